//! `inspect`: what is known of images.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use teu_store::{Image, RefRecord, Reference, Store};

use super::Outcome;
use super::format::{self, Format};
use super::images::packed_bytes;

/// Print all that is known of images, as a JSON list
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Names or ids of images of the store
    #[arg(required = true)]
    images: Vec<String>,
    /// Print the configuration instead
    #[arg(long, conflicts_with = "manifest")]
    config: bool,
    /// Print the manifest for this machine instead
    #[arg(long)]
    manifest: bool,
    /// Print the bytes of the document: with --config or --manifest of that, else of what the name leads to, which may be an index
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// How to print: json for a line each, or a text with fields in it such as '{id} {config.architecture}' [default: a JSON list]
    #[arg(long, value_name = "FORMAT", value_parser = format::without_table)]
    format: Option<Format>,
}

impl Inspect {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut list = Vec::new();
        for name in &self.images {
            let image = store.find_image(name)?;
            if self.raw {
                std::io::stdout().write_all(&self.bytes(store, &image)?)?;
                continue;
            }
            let record = self.record(store, &image)?;
            match &self.format {
                Some(format) => format::print_record(format, &record)?,
                None => list.push(record),
            }
        }
        match list.as_slice() {
            [] => {}
            // One document is what was asked for, as skopeo prints it.
            [document] if self.config || self.manifest => {
                format::print_record(&Format::Table, document)?;
            }
            list => format::print_record(&Format::Table, &list)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn bytes(&self, store: &Store, image: &Image) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let descriptor = if self.config {
            image.manifest.config.clone()
        } else if self.manifest {
            image.manifest_descriptor.clone()
        } else {
            store.target(image)?
        };
        Ok(store.read_blob(&descriptor.digest, descriptor.size)?)
    }

    fn record(&self, store: &Store, image: &Image) -> Result<Value, Box<dyn std::error::Error>> {
        if self.config {
            return Ok(serde_json::to_value(&image.config)?);
        }
        if self.manifest {
            return Ok(serde_json::to_value(&image.manifest)?);
        }
        let mut records = store.list_refs()?;
        records.retain(|record| {
            store
                .image(&record.name)
                .is_ok_and(|other| other.id() == image.id())
        });
        let names: Vec<&Reference> = records.iter().map(|record| &record.name).collect();
        Ok(json!({
            "id": image.id(),
            "names": names,
            "digests": digests(&records),
            "descriptor": image.manifest_descriptor,
            "manifest": image.manifest,
            "config": image.config,
            "size": packed_bytes(image),
        }))
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
}
