//! How a layer gets into the store, in one pass over its bytes:
//!
//! ```text
//! caller's thread:  read -> hash of the blob -> write the blob -> inflate --+
//!                                                                          | pieces of the tar
//! second thread:    hash of the tar -> write the tar -> its headers -> tree <+
//! both:             what is written goes to the disk meanwhile; fsync
//! then:             tree -> EROFS index, or directory; fsync; names; the layer's record last
//! ```

mod blob;
mod early;
mod sink;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::RenameFlags;

use crate::digest::{Algorithm, DiffId};
use crate::error::{Context, Error};
use crate::identity;
use crate::image::{Descriptor, media_type};
use crate::layers::{Index, Layer, LayerRecord};
use crate::probe::Backend;
use crate::store;
use crate::transaction::Transaction;
use crate::tree::Tree;
use crate::{dirs, erofs};

use blob::BlobTee;
use sink::{Received, TarSink};

impl Transaction {
    /// Takes a layer in: checks its blob while it streams, keeps it, unpacks it to a tar and makes that mountable.
    ///
    /// `blob` says media type, digest and size in bytes; `expected` is what the image's configuration says.
    /// `progress` is called with the bytes of the blob read so far. Nothing that was not checked becomes visible,
    /// and a layer that is here already is replaced, so taking it in again heals a damaged one.
    /// Several threads may take layers in at once.
    pub fn ingest_layer(
        &self,
        content: impl Read,
        blob: &Descriptor,
        expected: Option<&DiffId>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Layer, Error> {
        let compression = media_type::layer_compression(&blob.media_type)
            .ok_or_else(|| Error::LayerType(blob.media_type.clone()))?;
        self.want(
            [&blob.digest]
                .into_iter()
                .chain(expected.map(|expected| &expected.0)),
        )?;
        let algorithm = expected.map_or(Algorithm::Sha256, |expected| expected.0.algorithm());
        let keep = compression != media_type::Compression::None;
        let mut tee = BlobTee::new(self, content, blob, keep, progress)?;
        let mut sink = TarSink::start(self, algorithm)?;
        let inflated = blob::inflate(compression, &mut tee, &mut sink);
        // The rest of the blob decides whether it is corrupt or only no layer.
        let path = tee.finish();
        let received = sink.finish();
        let path = path?;
        inflated.map_err(|source| Error::Read {
            what: format!("layer {}", blob.digest),
            source,
        })?;
        let received = received.map_err(|source| Error::Layer {
            layer: blob.digest.to_string(),
            source,
        })?;
        if keep && received.size == 0 {
            // An empty archive has its end mark at least.
            let nothing = io::Error::new(io::ErrorKind::InvalidData, "it unpacks to nothing");
            return Err(Error::Read {
                what: format!("layer {}", blob.digest),
                source: nothing,
            });
        }
        let diff_id = DiffId(received.digest);
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            let what = format!("the content of layer {}", blob.digest);
            return Err(Error::DigestMismatch {
                what,
                expected: Box::new(expected.0),
                found: Box::new(diff_id.0),
            });
        }
        if let Some(path) = path {
            store::name_file(&path, &self.store().blob_path(&blob.digest))?;
        }
        self.publish(received, Some(blob.clone()), !keep)
    }

    /// A layer whose uncompressed tar the caller writes; for layers made here.
    pub fn layer_writer(&self) -> Result<LayerWriter<'_>, Error> {
        let sink = TarSink::start(self, Algorithm::Sha256)?;
        Ok(LayerWriter {
            transaction: self,
            sink,
        })
    }

    /// Makes a received tar a layer. `is_blob`: the tar itself is the layer's blob.
    fn publish(
        &self,
        received: Received,
        blob: Option<Descriptor>,
        is_blob: bool,
    ) -> Result<Layer, Error> {
        let Received {
            tree,
            digest,
            size,
            file,
            path,
        } = received;
        let diff_id = DiffId(digest);
        self.want([&digest])?;
        if is_blob {
            let other_name = self.scratch().join(store::unique_name("blob")?);
            fs::hard_link(&path, &other_name).context("link", &other_name)?;
            store::name_file(&other_name, &self.store().blob_path(&digest))?;
        }
        store::name_file(&path, &self.store().tar_path(&diff_id))?;
        let mut record = LayerRecord {
            tar_size: size,
            dependence: tree.dependence(),
            erofs: None,
            directory: false,
        };
        self.make_mountable(&diff_id, &tree, &file, &mut record)?;
        if record.erofs.is_some() {
            early::forget(&file);
        }
        let blob = blob.unwrap_or_else(|| Descriptor::new(media_type::OCI_LAYER, digest, size));
        Ok(Layer {
            diff_id,
            size,
            blob,
            tree: Some(Arc::new(tree)),
        })
    }

    /// Makes what the back-end serves from a layer's tar, then the layer's record.
    pub(crate) fn make_mountable(
        &self,
        diff_id: &DiffId,
        tree: &Tree,
        tar: &fs::File,
        record: &mut LayerRecord,
    ) -> Result<(), Error> {
        match self.store().backend()? {
            Backend::Erofs => {
                let target = self.store().index_path(diff_id);
                record.erofs = Some(self.write_index(
                    tree,
                    &[tar],
                    diff_id.0.uuid(),
                    &diff_id.to_string(),
                    &target,
                )?);
            }
            Backend::Directory => {
                self.write_directory(tree, &[tar], &self.store().dir_path(diff_id))?;
                // The record speaks of `dirs/`; what a namespace owns vouches for itself by its name, given last.
                record.directory |= !identity::own().is_lent;
            }
        }
        self.store().write_record(diff_id, record)
    }

    /// Writes the EROFS image of `tree` and gives it the name `target`, durably.
    pub(crate) fn write_index(
        &self,
        tree: &Tree,
        tars: &[&fs::File],
        uuid: [u8; 16],
        what: &str,
        target: &Path,
    ) -> Result<Index, Error> {
        let (path, mut file) = self.new_file("index")?;
        erofs::write(tree, tars, uuid, &mut file).map_err(|source| Error::Index {
            layer: what.to_owned(),
            source,
        })?;
        file.sync_all().context("sync", &path)?;
        let index = Index::of(&file).context("read", &path)?;
        store::name_file(&path, target)?;
        Ok(index)
    }

    /// Writes `tree` as a lower directory of an overlay and gives it the name `target`, durably.
    pub(crate) fn write_directory(
        &self,
        tree: &Tree,
        tars: &[&fs::File],
        target: &Path,
    ) -> Result<(), Error> {
        let path = self.scratch().join(store::unique_name("dir")?);
        store::make_directory(&path)?;
        let root = fs::File::open(&path).context("open", &path)?;
        dirs::write(tree, tars, root.as_fd(), dirs::Form::Overlay).map_err(|source| {
            Error::Unpack {
                target: target.to_owned(),
                source,
            }
        })?;
        rustix::fs::syncfs(&root).context("sync", &path)?;
        match store::rename_directory(&path, target, RenameFlags::NOREPLACE) {
            // What was there is left in the scratch folder and removed with it.
            Err(rustix::io::Errno::EXIST) => {
                store::rename_directory(&path, target, RenameFlags::EXCHANGE)
            }
            other => other,
        }
        .context("rename to", target)?;
        store::sync_parent(target)
    }
}

/// A layer being written as a tar. Dropped before [`LayerWriter::finish`], nothing of it is ever seen.
#[derive(Debug)]
pub struct LayerWriter<'t> {
    transaction: &'t Transaction,
    sink: TarSink,
}

impl LayerWriter<'_> {
    /// Ends the tar, makes the layer durable and mountable. Its blob is the tar itself.
    pub fn finish(self) -> Result<Layer, Error> {
        let received = self.sink.finish().map_err(|source| Error::Layer {
            layer: "made here".into(),
            source,
        })?;
        self.transaction.publish(received, None, true)
    }
}

impl Write for LayerWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
