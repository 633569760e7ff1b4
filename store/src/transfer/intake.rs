//! The one way in for images: from a registry, a layout, an archive.
//!
//! 1. The document that the name leads to; through an index to the manifest of the platform.
//! 2. The configuration.
//! 3. The layers, several at a time; what is here is not fetched again.
//!
//! Nothing is named yet: a reference comes last, and is the caller's.

use super::{Error, parallel};
use crate::digest::{DiffId, Digest};
use crate::image::{
    DOCUMENT_BYTES_MAX, Descriptor, Document, ImageConfig, Index, Manifest, Platform, media_type,
};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::{Layer, Transaction, Verified, images};
use std::collections::BTreeSet;
use std::io::{self, Read};

/// Deepest nesting of indexes; nobody needs two, a hostile one has thousands (security.md, S13).
const INDEX_DEPTH_MAX: usize = 8;

/// Where an image's content comes from. Nothing it yields is believed before it is checked.
pub(crate) trait Origin: Sync {
    /// Opens a blob; who reads checks.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error>;

    /// Opens a blob at a place within it; who reads checks.
    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        skip(self.open(blob)?, blob, offset)
    }

    /// Whether it is far away: what was begun is worth keeping, and nothing is fetched twice at a time.
    fn is_remote(&self) -> bool {
        false
    }

    /// Opens a layer that is not stored with its image but at addresses of its own.
    fn foreign(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        Err(Error::ForeignLayer(blob.digest))
    }

    /// Reads a manifest or an index; who reads checks.
    fn document(&self, document: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let limit = document.size.min(DOCUMENT_BYTES_MAX) + 1;
        self.open(document)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| crate::Error::Read {
                what: format!("blob {}", document.digest),
                source,
            })?;
        Ok(bytes)
    }
}

/// A reader without its first `offset` bytes.
pub(crate) fn skip<'r>(
    mut content: Box<dyn Read + Send + 'r>,
    blob: &Descriptor,
    offset: u64,
) -> Result<Box<dyn Read + Send + 'r>, Error> {
    io::copy(&mut content.by_ref().take(offset), &mut io::sink()).map_err(|source| {
        crate::Error::Read {
            what: format!("blob {}", blob.digest),
            source,
        }
    })?;
    Ok(content)
}

/// A document as its origin has it, checked against its descriptor.
pub(crate) fn checked(origin: &dyn Origin, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    if descriptor.size > DOCUMENT_BYTES_MAX {
        let what = format!("blob {}", descriptor.digest);
        return Err(crate::Error::TooLarge {
            what,
            size: descriptor.size,
            max: DOCUMENT_BYTES_MAX,
        }
        .into());
    }
    let bytes = origin.document(descriptor)?;
    let mut checked = Vec::with_capacity(bytes.len());
    Verified::new(&bytes[..], descriptor.digest, descriptor.size)
        .read_to_end(&mut checked)
        .map_err(|source| crate::Error::Read {
            what: format!("blob {}", descriptor.digest),
            source,
        })?;
    Ok(checked)
}

/// An image that is in the store now, kept by the transaction until something names it.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What a reference should name: the manifest, or the index it was chosen from.
    pub(crate) target: Descriptor,
    /// The manifest.
    pub(crate) manifest: Descriptor,
    /// The configuration's digest.
    pub(crate) id: Digest,
    /// The layers that were fetched now.
    layers: Vec<Layer>,
}

impl Taken {
    /// Makes the image whole and gives it `name`; both at once and last.
    pub(crate) fn name(&self, work: &Transaction, name: &Reference) -> Result<(), Error> {
        Ok(work.finish_image(&self.manifest, &self.layers, Some(&self.target), Some(name))?)
    }
}

/// Takes the image that `target` (of content `bytes`) leads to.
pub(crate) fn image(
    work: &Transaction,
    origin: &dyn Origin,
    target: &Descriptor,
    bytes: Vec<u8>,
    platform: &Platform,
    progress: &Progress,
) -> Result<Taken, Error> {
    let mut named = target.clone();
    let mut here = target.clone();
    let mut bytes = bytes;
    for _ in 0..INDEX_DEPTH_MAX {
        put_document(work, &here, &bytes)?;
        match images::parse_document(&here, &bytes)? {
            Document::Manifest(manifest) => {
                let id = manifest.config.digest;
                let layers = content(work, origin, &here, &manifest, platform, progress)?;
                return Ok(Taken {
                    target: named,
                    manifest: here,
                    id,
                    layers,
                });
            }
            Document::Index(index) => {
                let entry = select(&index, platform)?;
                bytes = document(work, origin, &entry)?;
                // The store reads one index and no more: a nested one is named itself.
                named = std::mem::replace(&mut here, entry);
            }
        }
    }
    Err(Error::Nested(INDEX_DEPTH_MAX))
}

/// The image of an index for `platform`; where there is none, an error that lists what there is.
pub(crate) fn select(index: &Index, platform: &Platform) -> Result<Descriptor, Error> {
    if let Some(entry) = index.select(platform) {
        return Ok(entry.clone());
    }
    let offered: BTreeSet<String> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
        .filter(|text| text != "unknown/unknown")
        .collect();
    let offered: Vec<String> = offered.into_iter().collect();
    Err(Error::Platform {
        wanted: platform.to_string(),
        offered: offered.join(", "),
    })
}

/// Takes every image of the index `target` (of content `bytes`) and names the index `name`.
///
/// What is listed and is no image of a file system (an attestation) is kept as its blobs.
pub(crate) fn all(
    work: &Transaction,
    origin: &dyn Origin,
    target: &Descriptor,
    bytes: Vec<u8>,
    name: &Reference,
    progress: &Progress,
) -> Result<(), Error> {
    put_document(work, target, &bytes)?;
    let Document::Index(index) = images::parse_document(target, &bytes)? else {
        return Err(crate::Error::Inconsistent {
            image: target.digest,
            why: "it is a manifest, not an index".into(),
        }
        .into());
    };
    for entry in &index.manifests {
        let bytes = document(work, origin, entry)?;
        let Document::Manifest(manifest) = images::parse_document(entry, &bytes)? else {
            // The store reads one index and no more.
            return Err(Error::Nested(1));
        };
        if !is_image(&manifest) {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let _fetch = match origin.is_remote() {
                    true => Some(work.fetch(blob, || ())?),
                    false => None,
                };
                if !work.has_blob(&blob.digest)? {
                    work.put_blob(origin.open(blob)?, &blob.digest, blob.size)?;
                }
            }
            continue;
        }
        let platform = entry.platform.clone().unwrap_or_else(Platform::host);
        let layers = content(work, origin, entry, &manifest, &platform, progress)?;
        work.finish_image(entry, &layers, None, None)?;
    }
    Ok(work.store().set_ref(name, target)?)
}

/// Whether a manifest is of an image whose layers make a file system.
fn is_image(manifest: &Manifest) -> bool {
    matches!(
        manifest.config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
    ) && manifest
        .layers
        .iter()
        .all(|layer| media_type::layer_compression(&layer.media_type).is_some())
}

/// Configuration and layers of a manifest that is in the store; the layers that were not here.
fn content(
    work: &Transaction,
    origin: &dyn Origin,
    descriptor: &Descriptor,
    manifest: &Manifest,
    platform: &Platform,
    progress: &Progress,
) -> Result<Vec<Layer>, Error> {
    if !matches!(
        manifest.config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
    ) {
        return Err(Error::NotAnImage(manifest.config.media_type.clone()));
    }
    let bytes = document(work, origin, &manifest.config)?;
    let config: ImageConfig =
        serde_json::from_slice(&bytes).map_err(|source| crate::Error::Json {
            what: format!("image configuration {}", manifest.config.digest),
            source,
        })?;
    images::check_layers(descriptor, manifest, &config)?;
    let is_for = config_platform(&config);
    if !platform.accepts(&is_for) {
        progress.note(format_args!(
            "this image is for {is_for}, not for {platform}"
        ));
    }
    let mut seen = BTreeSet::new();
    let mut layers = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        if media_type::layer_compression(&blob.media_type).is_none() {
            return Err(crate::Error::LayerType(blob.media_type.clone()).into());
        }
        if seen.insert((blob.digest, *diff_id)) {
            layers.push((blob, diff_id));
        }
    }
    let fetched = parallel::each(&layers, |(blob, diff_id), stop| {
        layer(work, origin, blob, diff_id, progress, stop)
    })?;
    Ok(fetched.into_iter().flatten().collect())
}

fn config_platform(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
        os_version: None,
        os_features: Vec::new(),
    }
}

fn layer(
    work: &Transaction,
    origin: &dyn Origin,
    blob: &Descriptor,
    diff_id: &DiffId,
    progress: &Progress,
    stop: &parallel::Stop,
) -> Result<Option<Layer>, Error> {
    let name = format!("layer {}", blob.digest.short());
    let is_here = || work.has_packed_layer(blob, diff_id);
    if is_here()? {
        progress.reused(&name, blob.size, "already here");
        return Ok(None);
    }
    let _fetch = if origin.is_remote() {
        let waits = || progress.note(format_args!("{name}  another process fetches it"));
        let fetch = work.fetch(blob, waits)?;
        if is_here()? {
            progress.reused(&name, blob.size, "fetched by another process");
            return Ok(None);
        }
        Some(fetch)
    } else {
        None
    };
    let begun = if origin.is_remote() {
        work.take_partial(blob)?
    } else {
        None
    };
    let task = progress.task(name.clone(), blob.size);
    let take = |content: Box<dyn Read + Send + '_>| {
        let content = stop.watch(content);
        work.ingest_layer(content, blob, Some(diff_id), &mut |read| task.reach(read))
    };
    let taken = match begun {
        None => take(open(origin, blob, 0)?),
        Some(begun) => {
            progress.note(format_args!(
                "{name}  goes on after {} bytes of an earlier attempt",
                begun.length
            ));
            let resumed = begun.file.chain(Later {
                origin,
                blob,
                offset: begun.length,
                inner: None,
            });
            match take(Box::new(resumed)) {
                // The beginning was damaged where it lay: all of it again.
                Err(crate::Error::DigestMismatch { .. } | crate::Error::SizeMismatch { .. }) => {
                    take(open(origin, blob, 0)?)
                }
                other => other,
            }
        }
    };
    let layer = taken?;
    work.note_packed(blob, &layer.diff_id)?;
    task.finish("done");
    Ok(Some(layer))
}

/// A layer from where it is stored.
fn open<'o>(
    origin: &'o dyn Origin,
    blob: &Descriptor,
    offset: u64,
) -> Result<Box<dyn Read + Send + 'o>, Error> {
    if !blob.urls.is_empty() && !media_type::is_distributable(&blob.media_type) {
        return skip(origin.foreign(blob)?, blob, offset);
    }
    if offset == 0 {
        return origin.open(blob);
    }
    origin.open_at(blob, offset)
}

/// The rest of a blob, asked for when its beginning is read.
struct Later<'a> {
    origin: &'a dyn Origin,
    blob: &'a Descriptor,
    offset: u64,
    inner: Option<Box<dyn Read + Send + 'a>>,
}

impl Read for Later<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offset >= self.blob.size {
            return Ok(0);
        }
        if self.inner.is_none() {
            let opened = open(self.origin, self.blob, self.offset).map_err(io::Error::other)?;
            self.inner = Some(opened);
        }
        match &mut self.inner {
            Some(inner) => inner.read(buffer),
            None => Ok(0),
        }
    }
}

/// A document from the store if it is there, else from its origin, checked, and in the store then.
pub(crate) fn document(
    work: &Transaction,
    origin: &dyn Origin,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, Error> {
    let here = || -> Result<Option<Vec<u8>>, Error> {
        let is_here = work.has_blob(&descriptor.digest)?;
        let read = || work.store().read_blob(&descriptor.digest, descriptor.size);
        Ok(is_here.then(read).and_then(Result::ok))
    };
    if let Some(bytes) = here()? {
        return Ok(bytes);
    }
    // Held until it is in the store.
    let fetch = match origin.is_remote() {
        true => Some(work.fetch(descriptor, || ())?),
        false => None,
    };
    if fetch.is_some()
        && let Some(bytes) = here()?
    {
        return Ok(bytes);
    }
    let bytes = checked(origin, descriptor)?;
    work.put_blob(&bytes[..], &descriptor.digest, descriptor.size)?;
    Ok(bytes)
}

fn put_document(work: &Transaction, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    if !work.has_blob(&descriptor.digest)? {
        work.put_blob(bytes, &descriptor.digest, descriptor.size)?;
    }
    Ok(())
}
