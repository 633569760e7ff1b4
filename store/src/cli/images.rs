//! `images`: what is in the store.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use teu_store::{Digest, Image, RefRecord, Reference, Store};

use super::format::{self, Format, Listed};
use super::{Outcome, people_bytes};

/// List the images of the store
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Print image ids only
    #[arg(short, long)]
    quiet: bool,
    /// How to print: table, json for a line each, or a text with fields in it such as '{name} {size}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// An image as `images` shows it.
#[derive(Debug, Serialize)]
struct Row {
    name: Reference,
    id: Digest,
    manifest: Digest,
    target: Digest,
    pushed: Option<Digest>,
    created: Option<String>,
    updated: String,
    architecture: String,
    os: String,
    layers: usize,
    size: u64,
}

impl Row {
    fn new(record: RefRecord, image: &Image) -> Row {
        Row {
            id: image.id(),
            manifest: image.manifest_digest(),
            target: record.target.digest,
            pushed: record.pushed.map(|pushed| pushed.digest),
            created: image.config.created.clone(),
            updated: record.updated,
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            layers: image.manifest.layers.len(),
            size: packed_bytes(image),
            name: record.name,
        }
    }
}

impl Listed for Row {
    const HEAD: &'static [&'static str] = &["NAME", "TAG", "IMAGE ID", "LAYERS", "SIZE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.familiar_name(),
            self.name.tag().unwrap_or("<none>").to_owned(),
            self.id.short(),
            self.layers.to_string(),
            people_bytes(self.size),
        ]
    }
}

impl Images {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let rows = store.map_images(Row::new)?;
        if self.quiet {
            let mut out = std::io::stdout().lock();
            for row in rows {
                writeln!(out, "{}", row.id)?;
            }
        } else {
            format::print(&self.format, rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Bytes of the image as a registry would send it.
pub(crate) fn packed_bytes(image: &Image) -> u64 {
    image
        .manifest
        .layers
        .iter()
        .map(|layer| layer.size)
        .sum::<u64>()
        + image.manifest.config.size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        let rows = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_999, "1.00 MB"),
            (534_000_000, "534 MB"),
        ];
        for (bytes, text) in rows {
            assert_eq!(people_bytes(bytes), text);
        }
    }
}
