//! `export`: images of the store into one file or directory.

use super::layout::{IMAGE_NAME, MARKER, MARKER_TEXT, REF_NAME};
use super::sink::{DirectorySink, Sink, TarSink};
use crate::digest::{DiffId, Digest};
use crate::image::{Descriptor, Index, media_type};
use crate::progress::{Counted, Progress};
use crate::transfer::Error;
use crate::transfer::outgoing::{self, Packing};
use crate::{Image, Store, Transaction, Verified};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// An OCI layout as a directory.
    OciDir,
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker save` writes, for `docker load` and `podman load`.
    DockerArchive,
}

/// Where and how images are written.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// What is written.
    pub format: ExportFormat,
    /// The file or directory; none for standard output.
    pub output: Option<PathBuf>,
    /// Layers that are plain tars stay so, and no digest changes.
    pub preserve_digests: bool,
}

/// Writes the images that `names` mean. The same images give the same bytes.
///
/// A file appears when it is whole. In a directory, which must be new or empty,
/// `index.json` comes last.
///
/// # Errors
/// Images that are not here, or a place that cannot be written to.
pub fn export(
    store: &Store,
    names: &[String],
    options: &ExportOptions,
    progress: &Progress,
) -> Result<(), Error> {
    let work = store.begin()?;
    let images = names
        .iter()
        .map(|name| Ok(work.hold(name)?.0))
        .collect::<Result<Vec<_>, Error>>()?;
    let export = Export {
        work: &work,
        options,
        progress,
    };
    match (options.format, &options.output) {
        (ExportFormat::OciDir, Some(path)) => {
            let mut sink = DirectorySink::create(path)?;
            export.oci(&images, &mut sink)
        }
        (ExportFormat::OciDir, None) => {
            let why = "a directory cannot go to standard output: name it with --output".to_owned();
            Err(Error::Archive {
                what: "oci-dir".into(),
                why,
            })
        }
        (_, output) => {
            let mut sink = TarSink::create(output.as_deref())?;
            match options.format {
                ExportFormat::DockerArchive => export.docker(&images, &mut sink)?,
                _ => export.oci(&images, &mut sink)?,
            }
            sink.finish()
        }
    }
}

struct Export<'a> {
    work: &'a Transaction,
    options: &'a ExportOptions,
    progress: &'a Progress,
}

impl Export<'_> {
    /// An OCI layout (image-spec, image-layout.md).
    fn oci(&self, images: &[Image], sink: &mut dyn Sink) -> Result<(), Error> {
        sink.small(MARKER, MARKER_TEXT.as_bytes())?;
        for folder in ["blobs", "blobs/sha256"] {
            sink.directory(folder)?;
        }
        let mut written = BTreeSet::new();
        let mut listed = Vec::new();
        for image in images {
            let descriptor = self.image(image, sink, &mut written)?;
            listed.push(self.named(descriptor, image, images));
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: listed,
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        };
        sink.small("index.json", &to_json(&index)?)
    }

    /// The blobs of one image; its manifest's descriptor.
    fn image(
        &self,
        image: &Image,
        sink: &mut dyn Sink,
        written: &mut BTreeSet<Digest>,
    ) -> Result<Descriptor, Error> {
        let packing = if self.options.preserve_digests {
            Packing::AsTheyAre
        } else {
            Packing::Gzip
        };
        let mut layers = Vec::new();
        for (layer, diff_id) in image
            .manifest
            .layers
            .iter()
            .zip(&image.config.rootfs.diff_ids)
        {
            let leaving = outgoing::layer(
                self.work,
                layer,
                diff_id,
                packing,
                &|_| Ok(false),
                self.progress,
            )?;
            self.blob(&leaving, sink, written)?;
            layers.push(leaving);
        }
        self.blob(&image.manifest.config, sink, written)?;
        let (manifest, _) = outgoing::manifest(
            self.work,
            &image.manifest_descriptor,
            &image.manifest,
            layers,
        )?;
        self.blob(&manifest, sink, written)?;
        if let Some(name) = &image.reference {
            self.work.store().set_pushed(name, &manifest)?;
        }
        Ok(manifest)
    }

    fn blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn Sink,
        written: &mut BTreeSet<Digest>,
    ) -> Result<(), Error> {
        if !written.insert(blob.digest) {
            return Ok(());
        }
        let (file, size) = self.work.store().open_blob(&blob.digest)?;
        let name = format!(
            "blobs/{}/{}",
            blob.digest.algorithm().name(),
            blob.digest.hex()
        );
        let content = Verified::new(file, blob.digest, blob.size);
        self.file(sink, &name, &blob.digest, size, content)
    }

    fn file(
        &self,
        sink: &mut dyn Sink,
        name: &str,
        digest: &Digest,
        size: u64,
        content: impl Read,
    ) -> Result<(), Error> {
        let task = self
            .progress
            .task(format!("write {}", digest.short()), size);
        sink.file(name, size, &mut Counted::new(content, &task))?;
        task.finish("written");
        Ok(())
    }

    /// How a layout lists an image: by its tag for umoci and skopeo, and by its
    /// whole name. Where tags collide, the whole name stands for both.
    fn named(&self, mut descriptor: Descriptor, image: &Image, all: &[Image]) -> Descriptor {
        let Some(name) = &image.reference else {
            return descriptor;
        };
        let tag = name.tag().unwrap_or(crate::reference::DEFAULT_TAG);
        let same =
            |other: &&Image| other.reference.as_ref().and_then(|name| name.tag()) == name.tag();
        let short = if all.iter().filter(same).count() > 1 {
            name.to_string()
        } else {
            tag.to_owned()
        };
        descriptor.annotations.insert(REF_NAME.to_owned(), short);
        descriptor
            .annotations
            .insert(IMAGE_NAME.to_owned(), name.to_string());
        descriptor
    }

    /// What `docker save` wrote before it wrote layouts; all that load images read it.
    fn docker(&self, images: &[Image], sink: &mut dyn Sink) -> Result<(), Error> {
        let mut written = BTreeSet::new();
        let mut list = Vec::new();
        for image in images {
            let config = &image.manifest.config;
            let config_name = format!("{}.json", config.digest.hex());
            if written.insert(config.digest) {
                let bytes = self.work.store().read_blob(&config.digest, config.size)?;
                sink.small(&config_name, &bytes)?;
            }
            let mut layers = Vec::new();
            for diff_id in &image.config.rootfs.diff_ids {
                let name = format!("{}.tar", diff_id.0.hex());
                if written.insert(diff_id.0) {
                    self.layer_tar(diff_id, &name, sink)?;
                }
                layers.push(name);
            }
            let names: Vec<String> = image
                .reference
                .iter()
                .filter(|name| name.tag().is_some())
                .map(ToString::to_string)
                .collect();
            list.push(json!({"Config": config_name, "RepoTags": names, "Layers": layers}));
        }
        sink.small("manifest.json", &to_json(&list)?)
    }

    fn layer_tar(&self, diff_id: &DiffId, name: &str, sink: &mut dyn Sink) -> Result<(), Error> {
        let (tar, size) = self.work.store().layer_tar(diff_id)?;
        let content = Verified::new(tar, diff_id.0, size);
        self.file(sink, name, &diff_id.0, size, content)
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| {
        crate::Error::Json {
            what: "a new document".into(),
            source,
        }
        .into()
    })
}
