//! `images`, `tag`: names.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;
use teu_store::{Image, RefRecord, Reference, Store};

use super::{Outcome, people_bytes};

/// List the images of the store
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Print image ids only
    #[arg(short, long)]
    quiet: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON object a line
    Json,
}

impl Images {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut out = std::io::stdout().lock();
        let mut rows = Vec::new();
        for record in store.list_refs()? {
            let image = store.image(&record.name)?;
            match (self.quiet, self.format) {
                (true, _) => writeln!(out, "{}", image.id())?,
                (false, Format::Json) => writeln!(out, "{}", as_json(&record, &image))?,
                (false, Format::Table) => rows.push(columns(&record, &image)),
            }
        }
        if !self.quiet && matches!(self.format, Format::Table) {
            let head = ["NAME", "TAG", "IMAGE ID", "LAYERS", "SIZE"].map(str::to_owned);
            write_table(&mut out, &head, &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Bytes of the image as a registry would send it.
fn packed_bytes(image: &Image) -> u64 {
    image
        .manifest
        .layers
        .iter()
        .map(|layer| layer.size)
        .sum::<u64>()
        + image.manifest.config.size
}

fn as_json(record: &RefRecord, image: &Image) -> serde_json::Value {
    json!({
        "name": record.name,
        "id": image.id(),
        "manifest": image.manifest_digest(),
        "target": record.target.digest,
        "pushed": record.pushed.as_ref().map(|pushed| pushed.digest),
        "created": image.config.created,
        "updated": record.updated,
        "architecture": image.config.architecture,
        "os": image.config.os,
        "layers": image.manifest.layers.len(),
        "size": packed_bytes(image),
    })
}

fn columns(record: &RefRecord, image: &Image) -> [String; 5] {
    let tag = record
        .name
        .tag()
        .map_or_else(|| "<none>".to_owned(), str::to_owned);
    [
        record.name.familiar_name(),
        tag,
        image.id().short(),
        image.manifest.layers.len().to_string(),
        people_bytes(packed_bytes(image)),
    ]
}

/// Writes rows below a head, each column as wide as its widest cell.
fn write_table<const N: usize>(
    out: &mut impl std::io::Write,
    head: &[String; N],
    rows: &[[String; N]],
) -> std::io::Result<()> {
    let mut widths = [0; N];
    for row in rows.iter().chain([head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in [head].into_iter().chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// Name or id of an image of the store
    image: String,
    /// The new name
    name: Reference,
}

impl Tag {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        store.tag(&self.image, &self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Take names of images away, and remove what nothing needs any more
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Names, or ids of images
    #[arg(required = true)]
    images: Vec<String>,
    /// An id takes all names of its image away
    #[arg(short, long)]
    force: bool,
}

impl Rmi {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut out = std::io::stdout().lock();
        for image in &self.images {
            for name in store.untag(image, self.force)? {
                writeln!(out, "untagged {}", name.familiar())?;
            }
        }
        let removed = store.gc()?;
        if removed.files > 0 {
            writeln!(
                out,
                "removed {} files, {}",
                removed.files,
                people_bytes(removed.bytes)
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Print all that is known of images, as a JSON list
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Names or ids of images of the store
    #[arg(required = true)]
    images: Vec<String>,
}

impl Inspect {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut list = Vec::new();
        for name in &self.images {
            let image = store.find_image(name)?;
            let mut records = store.list_refs()?;
            records.retain(|record| {
                store
                    .image(&record.name)
                    .is_ok_and(|other| other.id() == image.id())
            });
            let names: Vec<&Reference> = records.iter().map(|record| &record.name).collect();
            list.push(json!({
                "id": image.id(),
                "names": names,
                "digests": digests(&records),
                "descriptor": image.manifest_descriptor,
                "manifest": image.manifest,
                "config": image.config,
                "size": packed_bytes(&image),
            }));
        }
        writeln!(
            std::io::stdout().lock(),
            "{}",
            serde_json::to_string_pretty(&list)?
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// By which digests registries know an image: of its manifest as it left for them where that is another, or else
/// of the one that is here. Docker's `RepoDigests`.
fn digests(records: &[RefRecord]) -> BTreeSet<String> {
    let digest = |record: &RefRecord| {
        let sent = record.pushed.as_ref().unwrap_or(&record.target);
        format!("{}@{}", record.name.familiar_name(), sent.digest)
    };
    records.iter().map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use teu_store::Digest;
    use teu_store::image::Descriptor;

    #[test]
    fn digests_are_those_that_registries_know() {
        let descriptor = |content: &[u8]| Descriptor::new("x/y", Digest::of(content), 1);
        let record = |name: &str, pushed: Option<Descriptor>| RefRecord {
            name: name.parse().unwrap(),
            target: descriptor(b"here"),
            pushed,
            updated: String::new(),
        };
        let records = [
            record("busybox:1", None),
            record("busybox:2", None),
            record("host:5000/a", Some(descriptor(b"sent"))),
        ];
        let wanted = [
            format!("busybox@{}", Digest::of(b"here")),
            format!("host:5000/a@{}", Digest::of(b"sent")),
        ];
        assert_eq!(digests(&records), BTreeSet::from(wanted));
    }

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
