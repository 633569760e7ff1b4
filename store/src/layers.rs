//! Layers of the store: `layers/<alg>/<hex>`, the record that vouches for a layer's other files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, DiffId, Digest, Hasher};
use crate::error::{Context, Error};
use crate::identity;
use crate::image::Descriptor;
use crate::probe::Backend;
use crate::store::{self, Store};
use crate::tar::FileSource;
use crate::transaction::Transaction;
use crate::tree::{self, Dependence, Tree};

/// What the store knows of a layer. Written last, so the files it speaks of are whole and durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Bytes of the uncompressed tar.
    pub(crate) tar_size: u64,
    pub(crate) dependence: Dependence,
    /// The EROFS index, where one was made.
    pub(crate) erofs: Option<Index>,
    /// Whether the layer's directory was made.
    #[serde(default)]
    pub(crate) directory: bool,
}

/// Size and checksum of an index: that it mounts proves nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl Index {
    /// Reads `file` whole.
    pub(crate) fn of(mut file: &File) -> io::Result<Index> {
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 256 * 1024];
        let mut size = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => {
                    return Ok(Index {
                        size,
                        digest: hasher.finish(),
                    });
                }
                n => {
                    hasher.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
    }
}

/// A layer that is in the store and mountable; safe from `gc` while the transaction it came from lives.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its identity.
    pub diff_id: DiffId,
    /// Bytes of its uncompressed tar.
    pub size: u64,
    /// Its blob; of a layer made here the tar itself.
    pub blob: Descriptor,
    /// Its content, where it has just been read.
    pub(crate) tree: Option<Arc<Tree>>,
}

impl Transaction {
    /// Whether the layer is here; if so it stays until the transaction ends, and is mountable: what was taken in under
    /// another back-end, or by another kind of user, is adapted.
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, Error> {
        self.want([&layer.0])?;
        Ok(self.store().has_layer(layer)?
            || self.was_never_here(layer)? && self.adapt_layer(layer)?)
    }

    /// Whether the layer is whole, but was never made mountable by the present back-end: nothing of it is damaged.
    fn was_never_here(&self, layer: &DiffId) -> Result<bool, Error> {
        let store = self.store();
        let Some(record) = store.record(layer)? else {
            return Ok(false);
        };
        let was_here = match store.backend()? {
            Backend::Erofs => record.erofs.is_some(),
            Backend::Directory => record.directory && !identity::own().is_lent,
        };
        let tar = fs::metadata(store.tar_path(layer));
        Ok(!was_here && tar.is_ok_and(|tar| tar.len() == record.tar_size))
    }

    /// The layer, if it is here and mountable. Its blob is the one that it came as; of a layer made here, its tar.
    pub fn layer(&self, layer: &DiffId) -> Result<Option<Layer>, Error> {
        if !self.has_layer(layer)? {
            return Ok(None);
        }
        let Some(record) = self.store().record(layer)? else {
            return Ok(None);
        };
        let blob = self.layer_blob(layer, record.tar_size)?;
        Ok(Some(Layer {
            diff_id: *layer,
            size: record.tar_size,
            blob,
            tree: None,
        }))
    }

    /// Makes the layer mountable by the present back-end from its tar, where it was taken in under another one.
    /// The layer must be wanted. Whether it is mountable now.
    pub(crate) fn adapt_layer(&self, layer: &DiffId) -> Result<bool, Error> {
        if self.store().has_layer(layer)? {
            return Ok(true);
        }
        let Some(mut record) = self.store().record(layer)? else {
            return Ok(false);
        };
        let tree = self.store().layer_tree(layer)?;
        let (tar, _) = self.store().layer_tar(layer)?;
        self.make_mountable(layer, &tree, &tar, &mut record)?;
        Ok(true)
    }
}

impl Store {
    /// Whether the layer is here now, mountable by the present back-end. Only a [`Transaction`] or a root keeps it here.
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, Error> {
        let Some(record) = self.record(layer)? else {
            return Ok(false);
        };
        let size_is = |path: std::path::PathBuf, size: u64| {
            fs::metadata(path).is_ok_and(|file| file.len() == size)
        };
        let mountable = match self.backend()? {
            Backend::Erofs => record
                .erofs
                .is_some_and(|index| size_is(self.index_path(layer), index.size)),
            Backend::Directory => {
                (record.directory || identity::own().is_lent) && self.dir_path(layer).is_dir()
            }
        };
        Ok(mountable && size_is(self.tar_path(layer), record.tar_size))
    }

    /// The layer's uncompressed tar and its size in bytes; not checked against its digest.
    pub fn layer_tar(&self, layer: &DiffId) -> Result<(File, u64), Error> {
        let path = self.tar_path(layer);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchLayer(*layer));
            }
            other => other.context("open", &path)?,
        };
        let size = file.metadata().context("stat", &path)?.len();
        Ok((file, size))
    }

    /// The layer's content, read from its tar's headers.
    pub(crate) fn layer_tree(&self, layer: &DiffId) -> Result<Tree, Error> {
        let (file, _) = self.layer_tar(layer)?;
        let source = FileSource::new(&file).context("read", self.tar_path(layer))?;
        let scanned = tree::scan(source).map_err(|source| Error::Layer {
            layer: layer.to_string(),
            source,
        });
        Ok(scanned?.0)
    }

    /// What is known of a layer; `None` where it is not here.
    pub(crate) fn record(&self, layer: &DiffId) -> Result<Option<LayerRecord>, Error> {
        let path = self.record_path(layer);
        let text = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context("read", &path)?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| Error::Json {
                what: path.display().to_string(),
                source,
            })
    }

    pub(crate) fn write_record(&self, layer: &DiffId, record: &LayerRecord) -> Result<(), Error> {
        let text = serde_json::to_vec(record).map_err(|source| Error::Json {
            what: layer.to_string(),
            source,
        })?;
        store::replace_file(&self.folder("tmp"), &self.record_path(layer), &text)
    }
}
