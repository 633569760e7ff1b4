//! Layers in the packing that somebody asks for.

use super::Error;
use super::outgoing::Sized;
use crate::digest::{Algorithm, DiffId};
use crate::image::Descriptor;
use crate::image::media_type::{self, Compression};
use crate::packed::Format;
use crate::progress::{Counted, Progress};
use crate::{Transaction, Verified, pack};

/// How layers are to be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// In which format.
    pub format: Format,
    /// At which level: 0 to 9 of gzip, 1 to 22 of zstd; none is the format's default.
    pub level: Option<i32>,
    /// Layers that are packed already are packed again where they are not so.
    pub force: bool,
}

impl Transaction {
    /// Describes a layer, which a manifest names by `blob`, in a packing; it is in the store afterwards.
    /// What was packed before is not packed again. The same layer, packing and version give the same bytes.
    ///
    /// # Errors
    /// Those of reading the layer and writing the blob.
    pub fn pack_layer(
        &self,
        blob: &Descriptor,
        diff_id: &DiffId,
        packing: Packing,
        progress: &Progress,
    ) -> Result<Descriptor, Error> {
        let now = media_type::layer_compression(&blob.media_type);
        let is_so = now.map(Format::from) == Some(packing.format) && packing.level.is_none();
        let keeps = !packing.force && now != Some(Compression::None);
        if is_so || keeps {
            return Ok(blob.clone());
        }
        let kind = match packing.format {
            Format::Tar => media_type::OCI_LAYER,
            Format::Gzip => media_type::OCI_LAYER_GZIP,
            Format::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        for form in self.store().packed_forms(diff_id).into_iter().rev() {
            let fits = form.format == packing.format && form.level == packing.level;
            if fits && self.has_blob(&form.digest)? {
                return Ok(Descriptor::new(kind, form.digest, form.size));
            }
        }
        let packed = self.pack_anew(diff_id, kind, packing, progress)?;
        self.note_packed_at(&packed, diff_id, packing.level)?;
        Ok(packed)
    }

    fn pack_anew(
        &self,
        diff_id: &DiffId,
        kind: &str,
        packing: Packing,
        progress: &Progress,
    ) -> Result<Descriptor, Error> {
        let (tar, size) = self.store().layer_tar(diff_id)?;
        let task = progress.task(format!("pack  {}", diff_id.0.short()), size);
        let mut content = Counted::new(Verified::new(tar, diff_id.0, size), &task);
        let mut blob = Sized {
            inner: self.blob_writer(Algorithm::Sha256)?,
            size: 0,
        };
        let level = packing.level;
        match packing.format {
            Format::Tar => std::io::copy(&mut content, &mut blob),
            Format::Gzip => pack::gzip_at(content, &mut blob, level.unwrap_or(pack::GZIP_LEVEL)),
            Format::Zstd => pack::zstd(content, &mut blob, level.unwrap_or(pack::ZSTD_LEVEL)),
        }
        .map_err(|source| crate::Error::Read {
            what: format!("layer {diff_id}"),
            source,
        })?;
        let descriptor = Descriptor::new(kind, blob.inner.digest(), blob.size);
        blob.inner.publish()?;
        task.finish("packed");
        Ok(descriptor)
    }
}
