//! Which blobs unpack to which layer: `packed/<alg>/<diff id>`, a list of the
//! packed forms that were seen, each checked when it was unpacked or packed here.
//!
//! What it says is true of the bytes as such and stays true, whatever the store
//! holds: that a blob unpacks to a layer is decided by their digests. So a lost
//! update only costs some work later; `gc` forgets it with the layer. It
//! answers two questions: whether a manifest's pairing of blob and diff id may
//! be believed without unpacking (a registry could pair anything with what is
//! here), and what a layer that is kept as a tar is called in packed form.

use crate::digest::{DiffId, Digest};
use crate::error::{Context, Error};
use crate::image::Descriptor;
use crate::image::media_type::{self, Compression};
use crate::store::{self, Store};
use crate::transaction::Transaction;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

/// Most forms kept for one layer; the oldest go first.
const FORMS_MAX: usize = 16;

/// Largest list, in bytes: sixteen forms have under 4 KiB.
const LIST_BYTES_MAX: u64 = 64 * 1024;

/// One packed form of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// `gzip`, `zstd`, or `tar` for a blob that is the tar.
    pub format: Format,
    /// The level that it was packed with here, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

/// How a blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Not at all.
    Tar,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl From<Compression> for Format {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Tar,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

impl Store {
    /// The packed forms of layer `diff_id` that were seen, the latest last.
    /// None of them need be here.
    #[must_use]
    pub fn packed_forms(&self, diff_id: &DiffId) -> Vec<Packed> {
        // Unreadable means unknown: the answer is then found out by work.
        let mut text = Vec::new();
        let read = File::open(self.packed_path(diff_id))
            .and_then(|file| file.take(LIST_BYTES_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    fn packed_path(&self, diff_id: &DiffId) -> PathBuf {
        self.folder("packed")
            .join(diff_id.0.algorithm().name())
            .join(diff_id.0.hex())
    }
}

impl Transaction {
    /// Remembers that `blob` unpacks to `diff_id`, which the caller has seen.
    ///
    /// # Errors
    /// Those of writing a small file.
    pub fn note_packed(&self, blob: &Descriptor, diff_id: &DiffId) -> Result<(), Error> {
        self.note_packed_at(blob, diff_id, None)
    }

    /// As [`Transaction::note_packed`], of a blob that was packed here at a level that was asked for.
    pub(crate) fn note_packed_at(
        &self,
        blob: &Descriptor,
        diff_id: &DiffId,
        level: Option<i32>,
    ) -> Result<(), Error> {
        let Some(compression) = media_type::layer_compression(&blob.media_type) else {
            return Ok(());
        };
        let form = Packed {
            digest: blob.digest,
            size: blob.size,
            format: compression.into(),
            level,
        };
        let mut forms = self.store().packed_forms(diff_id);
        if forms.contains(&form) {
            return Ok(());
        }
        forms.push(form);
        let surplus = forms.len().saturating_sub(FORMS_MAX);
        forms.drain(..surplus);
        let text = serde_json::to_vec(&forms).map_err(|source| Error::Json {
            what: diff_id.to_string(),
            source,
        })?;
        let path = self.store().packed_path(diff_id);
        let unfinished = self.scratch().join(store::unique_name("packed")?);
        fs::write(&unfinished, text).context("write", &unfinished)?;
        // Not synced: after a power cut an empty or old list only means work.
        fs::rename(&unfinished, &path).context("rename to", path)
    }

    /// How a manifest that is made here names a layer that is here, whose tar has `tar_size` bytes: by the tar if that
    /// is a blob, else by the first of its packed forms that is here. So an image built on a pulled one names the
    /// same blobs as that, and a registry that has them need not be sent them again.
    pub(crate) fn layer_blob(&self, diff_id: &DiffId, tar_size: u64) -> Result<Descriptor, Error> {
        let forms = self.store().packed_forms(diff_id);
        self.want(forms.iter().map(|form| &form.digest).chain([&diff_id.0]))?;
        let tar = Descriptor::new(media_type::OCI_LAYER, diff_id.0, tar_size);
        if self.store().has_blob(&diff_id.0) {
            return Ok(tar);
        }
        let here = forms
            .iter()
            .find(|form| self.store().has_blob(&form.digest));
        if let Some(form) = here {
            let kind = match form.format {
                Format::Tar => media_type::OCI_LAYER,
                Format::Gzip => media_type::OCI_LAYER_GZIP,
                Format::Zstd => media_type::OCI_LAYER_ZSTD,
            };
            return Ok(Descriptor::new(kind, form.digest, form.size));
        }
        let unfinished = self.scratch().join(store::unique_name("blob")?);
        let path = self.store().tar_path(diff_id);
        fs::hard_link(&path, &unfinished).context("link", &path)?;
        store::name_file(&unfinished, &self.store().blob_path(&diff_id.0))?;
        Ok(tar)
    }

    /// Whether `blob` is here, and the layer it was seen to unpack to, so that
    /// neither need be fetched. What is found stays until the transaction ends.
    ///
    /// # Errors
    /// Those of announcing what is wanted.
    pub fn has_packed_layer(&self, blob: &Descriptor, diff_id: &DiffId) -> Result<bool, Error> {
        self.want([&blob.digest, &diff_id.0])?;
        let known = blob.digest == diff_id.0
            || self
                .store()
                .packed_forms(diff_id)
                .iter()
                .any(|form| form.digest == blob.digest);
        if !known || !self.store().has_layer(diff_id)? {
            return Ok(false);
        }
        match self.store().open_blob(&blob.digest) {
            // A blob that a full disk or a power cut left too short is fetched again.
            Ok((_, size)) => Ok(size == blob.size),
            Err(Error::NoSuchBlob(_)) => Ok(false),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_remembered_once_and_the_oldest_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let work = store.begin().unwrap();
        let layer = DiffId(Digest::of(b"tar"));
        assert_eq!(store.packed_forms(&layer), []);
        let blob =
            |number: u8| Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(&[number]), 1);
        for number in [0, 0, 1] {
            work.note_packed(&blob(number), &layer).unwrap();
        }
        let forms = store.packed_forms(&layer);
        assert_eq!(forms.len(), 2);
        assert_eq!(
            forms[1],
            Packed {
                digest: blob(1).digest,
                size: 1,
                format: Format::Gzip,
                level: None,
            }
        );
        for number in 2..40 {
            work.note_packed(&blob(number), &layer).unwrap();
        }
        let forms = store.packed_forms(&layer);
        assert_eq!((forms.len(), forms[15].digest), (16, blob(39).digest));
    }

    // A registry may pair a blob it knows with a layer it does not have.
    #[test]
    fn a_pairing_that_was_not_seen_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let work = store.begin().unwrap();
        let blob = work.put_bytes(media_type::OCI_LAYER_GZIP, b"blob").unwrap();
        assert!(
            !work
                .has_packed_layer(&blob, &DiffId(Digest::of(b"tar")))
                .unwrap()
        );
    }

    // An image built on a pulled one names the blobs of that.
    #[test]
    fn a_layer_is_named_by_the_blob_it_came_as() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.force_backend(crate::Backend::Directory);
        let work = store.begin().unwrap();
        let mut tar = crate::tar::Writer::new(Vec::new());
        let attributes = crate::tar::Attributes::default();
        tar.file(b"file", &attributes, 2, &b"hi"[..]).unwrap();
        let tar = tar.finish().unwrap();
        let mut gzip = Vec::new();
        crate::pack::gzip(&tar[..], &mut gzip).unwrap();
        let blob = Descriptor::new(
            media_type::OCI_LAYER_GZIP,
            Digest::of(&gzip),
            gzip.len() as u64,
        );
        let layer = work
            .ingest_layer(&gzip[..], &blob, None, &mut |_| {})
            .unwrap();
        work.note_packed(&blob, &layer.diff_id).unwrap();
        assert_eq!(work.layer(&layer.diff_id).unwrap().unwrap().blob, blob);
        assert!(work.has_packed_layer(&blob, &layer.diff_id).unwrap());
        // Without its blob the tar becomes one, so that a manifest never names what is not here.
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        let named = work.layer(&layer.diff_id).unwrap().unwrap().blob;
        assert_eq!(
            (named.digest, named.size),
            (layer.diff_id.0, tar.len() as u64)
        );
        assert!(store.has_blob(&named.digest));
        assert!(!work.has_packed_layer(&blob, &layer.diff_id).unwrap());
    }
}
