//! `inspect`: what is known of images.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use teu_store::copy::{CopyOptions, Location, Look, Looked};
use teu_store::image::Platform;
use teu_store::{Image, RefRecord, Reference, Store};

use super::Outcome;
use super::format::{self, Format};
use super::registry::RegistryArgs;
use super::transfer::Failed;

/// Print all that is known of images, as a JSON list
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Names or ids of images of the store; or images elsewhere, as for `copy`: docker://NAME, oci:PATH[:REF] ...
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
    /// Which of several images that are elsewhere, as OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Inspect {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut list = Vec::new();
        for name in &self.images {
            let (bytes, record) = match elsewhere(name) {
                Some(place) => self.look(store, &place)?,
                None => {
                    let image = store.find_image(name)?;
                    match self.raw {
                        true => (self.bytes(store, &image)?, Value::Null),
                        false => (Vec::new(), self.record(store, &image)?),
                    }
                }
            };
            if self.raw {
                std::io::stdout().write_all(&bytes)?;
                continue;
            }
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

    /// An image that is not in the store: the bytes to print, or the record.
    fn look(
        &self,
        store: &Store,
        place: &Location,
    ) -> Result<(Vec<u8>, Value), Box<dyn std::error::Error>> {
        let registry = self.registry.clone().options();
        let options = CopyOptions {
            from: registry.clone(),
            to: registry,
            all: false,
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            preserve_digests: true,
            docker_socket: super::copy::docker_socket(None)?,
        };
        let failed = |source| Failed::new("inspect", place, source);
        let look = Look::open(store, place, &options).map_err(failed)?;
        if self.raw && !self.config && !self.manifest {
            return Ok((look.bytes().to_vec(), Value::Null));
        }
        let Looked {
            image,
            manifest,
            config,
        } = look.image().map_err(failed)?;
        let (bytes, record) = match (self.config, self.manifest) {
            (true, _) => (config, serde_json::to_value(&image.config)?),
            (_, true) => (manifest, serde_json::to_value(&image.manifest)?),
            _ => {
                let record = json!({
                    "id": image.id(),
                    "names": [place.to_string()],
                    "digests": [look.target().digest],
                    "descriptor": image.manifest_descriptor,
                    "manifest": image.manifest,
                    "config": image.config,
                    "size": image.packed_bytes(),
                });
                (Vec::new(), record)
            }
        };
        Ok((bytes, record))
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
            "size": image.packed_bytes(),
        }))
    }
}

/// A place that is not the store; a name alone means the store.
fn elsewhere(name: &str) -> Option<Location> {
    let place = name.parse().ok()?;
    (!matches!(place, Location::Store(_))).then_some(place)
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
            summary: None,
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
