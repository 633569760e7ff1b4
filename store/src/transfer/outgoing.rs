//! What goes out: an image's documents and layers as others will see them.
//!
//! What came from elsewhere leaves byte-exact, so that its digests stay. A layer
//! that was built here is kept as its tar; it leaves as gzip, made once and
//! always the same, and the manifest that names the gzip has another digest
//! than the one that names the tar. As zstd, if somebody asks for that.

use super::Error;
use crate::digest::{Algorithm, DiffId, Digest};
use crate::image::media_type::{self, Compression};
use crate::image::{Descriptor, Manifest};
use crate::packed::Format;
use crate::progress::{Counted, Progress};
use crate::{Transaction, Verified, pack};
use std::io::{self, Write};

/// How layers that are plain tars leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As gzip.
    Gzip,
    /// As zstd.
    Zstd,
    /// As they are, so that the manifest's digest stays.
    AsTheyAre,
}

/// The layer's descriptor as it leaves. Its blob is in the store afterwards,
/// unless `is_there` says that where it goes has it already.
pub(crate) fn layer(
    work: &Transaction,
    layer: &Descriptor,
    diff_id: &DiffId,
    packing: Packing,
    is_there: &dyn Fn(&Digest) -> Result<bool, Error>,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let is_tar = media_type::layer_compression(&layer.media_type) == Some(Compression::None);
    if packing == Packing::AsTheyAre || !is_tar {
        return Ok(layer.clone());
    }
    let (kind, format) = match packing {
        Packing::Zstd => (media_type::OCI_LAYER_ZSTD, Format::Zstd),
        _ => (gzip_type(&layer.media_type), Format::Gzip),
    };
    for form in work.store().packed_forms(diff_id).into_iter().rev() {
        if form.format == format && (work.has_blob(&form.digest)? || is_there(&form.digest)?) {
            return Ok(Descriptor::new(kind, form.digest, form.size));
        }
    }
    let packed = compress(work, diff_id, kind, format, progress)?;
    work.note_packed(&packed, diff_id)?;
    Ok(packed)
}

/// Packs a layer's tar, checking it on the way.
fn compress(
    work: &Transaction,
    diff_id: &DiffId,
    kind: &str,
    format: Format,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let (tar, size) = work.store().layer_tar(diff_id)?;
    let task = progress.task(format!("pack  {}", diff_id.0.short()), size);
    let content = Counted::new(Verified::new(tar, diff_id.0, size), &task);
    let mut blob = Sized {
        inner: work.blob_writer(Algorithm::Sha256)?,
        size: 0,
    };
    let packed = match format {
        Format::Zstd => pack::zstd(content, &mut blob, pack::ZSTD_LEVEL),
        _ => pack::gzip(content, &mut blob),
    };
    packed.map_err(|source| crate::Error::Read {
        what: format!("layer {diff_id}"),
        source,
    })?;
    let descriptor = Descriptor::new(kind, blob.inner.digest(), blob.size);
    blob.inner.publish()?;
    task.finish("packed");
    Ok(descriptor)
}

/// The gzip type beside a tar type.
fn gzip_type(tar_type: &str) -> &'static str {
    match tar_type {
        media_type::DOCKER_LAYER => media_type::DOCKER_LAYER_GZIP,
        _ => media_type::OCI_LAYER_GZIP,
    }
}

/// A writer that knows how much it wrote.
pub(super) struct Sized<W> {
    pub(super) inner: W,
    pub(super) size: u64,
}

impl<W: Write> Write for Sized<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The manifest with these layers: its own bytes if they are its own, else a
/// new one, which is put into the store.
pub(crate) fn manifest(
    work: &Transaction,
    descriptor: &Descriptor,
    manifest: &Manifest,
    layers: Vec<Descriptor>,
) -> Result<(Descriptor, Vec<u8>), Error> {
    if manifest.layers == layers {
        let bytes = work
            .store()
            .read_blob(&descriptor.digest, descriptor.size)?;
        return Ok((descriptor.clone(), bytes));
    }
    let kind = manifest
        .media_type
        .clone()
        .unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    let changed = Manifest {
        layers,
        media_type: Some(kind.clone()),
        ..manifest.clone()
    };
    let bytes = serde_json::to_vec(&changed).map_err(|source| crate::Error::Json {
        what: format!("manifest {}", descriptor.digest),
        source,
    })?;
    Ok((work.put_bytes(&kind, &bytes)?, bytes))
}
