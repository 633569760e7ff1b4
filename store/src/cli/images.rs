//! `images`: what is in the store.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use teu_store::{Digest, ListedImage, Reference, Store};

use super::format::{self, Format, Listed};
use super::{Outcome, chain, people_bytes};

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
    fn new(listed: ListedImage) -> Row {
        let image = listed.image;
        Row {
            name: listed.name,
            id: image.id,
            manifest: image.manifest,
            target: listed.target,
            pushed: listed.pushed,
            created: image.created,
            updated: listed.updated,
            architecture: image.architecture,
            os: image.os,
            layers: image.layers,
            size: image.size,
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
        let list = store.list_images()?;
        let rows = list.images.into_iter().map(Row::new);
        if self.quiet {
            let mut out = std::io::stdout().lock();
            for row in rows {
                writeln!(out, "{}", row.id)?;
            }
        } else {
            format::print(&self.format, rows)?;
        }
        for error in &list.unreadable {
            let _ = writeln!(std::io::stderr(), "teu-store: {}", chain(error));
        }
        Ok(match list.unreadable.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
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
