//! The store as a build uses it: one transaction for its life, roots that pin what it mounts.

use crate::tree::Root;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use teu_store::image::{Descriptor, ImageConfig};
use teu_store::transfer::Packing;
use teu_store::{DiffId, Layer, Reference, Store, Transaction, UpperPlace};

/// What the store could not do for the build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The store itself.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
    /// A folder of the build.
    #[error("create {path:?}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl From<teu_store::Error> for StorageError {
    fn from(error: teu_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

/// A build's view of the store. Dropping it removes everything that is not part of an image.
#[derive(Debug)]
pub struct Storage {
    work: Transaction,
    /// Starts the names of this build's roots: whoever finds the transaction dead may release them.
    name: String,
    roots: AtomicUsize,
    pinned: Mutex<Vec<teu_store::Root>>,
    views: Mutex<HashMap<Vec<DiffId>, Arc<Root>>>,
    layers: Mutex<HashMap<DiffId, Layer>>,
}

/// A chain of layers to put an overlay on.
#[derive(Debug)]
pub struct Lowers {
    /// Directories, top first; at least one.
    pub paths: Vec<PathBuf>,
    /// Where the upper can lie.
    pub upper: UpperPlace,
}

impl Storage {
    /// Begins a build in `store`.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub fn begin(store: &Store) -> Result<Self, StorageError> {
        let work = store.begin()?;
        let states = work.scratch().join(crate::leftovers::STATES);
        std::fs::create_dir(&states).map_err(|source| StorageError::Folder {
            path: states,
            source,
        })?;
        let folder = work
            .scratch()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            work,
            name: format!("{}{folder}", crate::leftovers::ROOT_PREFIX),
            roots: AtomicUsize::new(0),
            pinned: Mutex::default(),
            views: Mutex::default(),
            layers: Mutex::default(),
        })
    }

    /// A folder for this build's unfinished files, on the store's file system.
    pub fn scratch(&self) -> &Path {
        self.work.scratch()
    }

    /// The store's folder for what only makes builds faster.
    pub fn cache_folder(&self) -> PathBuf {
        self.work.store().root_path().join("cache")
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.work.store()
    }

    /// Whether a layer is here; if so it stays as long as the build lasts.
    ///
    /// # Errors
    /// As [`Transaction::has_layer`].
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, StorageError> {
        Ok(self.work.has_layer(layer)?)
    }

    /// Makes a layer of the tar that `write` writes.
    ///
    /// # Errors
    /// What `write` fails with, or the store.
    pub fn write_layer<E: From<StorageError>>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<DiffId, E> {
        let mut writer = self.work.layer_writer().map_err(StorageError::from)?;
        let mut buffered = std::io::BufWriter::with_capacity(256 * 1024, &mut writer);
        write(&mut buffered)?;
        let flushed = buffered.flush();
        drop(buffered);
        flushed.map_err(|source| StorageError::Folder {
            path: self.scratch().to_owned(),
            source,
        })?;
        let layer = writer.finish().map_err(StorageError::from)?;
        let diff_id = layer.diff_id;
        lock(&self.layers).insert(diff_id, layer);
        Ok(diff_id)
    }

    /// A merged, read-only view of layers, bottom first; made once for each chain.
    ///
    /// # Errors
    /// As [`Store::view`].
    pub fn view(&self, layers: &[DiffId]) -> Result<Arc<Root>, StorageError> {
        // Held while mounting: two steps that want the same view shall share it.
        let mut views = lock(&self.views);
        if let Some(view) = views.get(layers) {
            return Ok(view.clone());
        }
        self.pin(layers)?;
        let view = Arc::new(Root::of_layers(self.work.store().view(layers)?));
        views.insert(layers.to_vec(), view.clone());
        Ok(view)
    }

    /// A view of layers that nobody shares, for as long as this build lasts.
    ///
    /// # Errors
    /// As [`Store::view`].
    pub fn own_view(&self, layers: &[DiffId]) -> Result<Root, StorageError> {
        self.pin(layers)?;
        Ok(Root::of_layers(self.work.store().view(layers)?))
    }

    /// The directories of layers, for an overlay that is to be written to.
    ///
    /// # Errors
    /// As [`Store::root`].
    pub fn lowers(&self, layers: &[DiffId]) -> Result<Lowers, StorageError> {
        if layers.is_empty() {
            return Ok(Lowers {
                paths: vec![self.empty_folder()?],
                upper: self.work.store().upper_place()?,
            });
        }
        let (paths, upper) = self.pin(layers)?;
        Ok(Lowers { paths, upper })
    }

    fn pin(&self, layers: &[DiffId]) -> Result<(Vec<PathBuf>, UpperPlace), StorageError> {
        let id = format!(
            "{}-{}",
            self.name,
            self.roots.fetch_add(1, Ordering::Relaxed)
        );
        let root = self.work.store().root(&id, layers)?;
        let found = (root.lowers().to_vec(), root.upper_place());
        lock(&self.pinned).push(root);
        Ok(found)
    }

    fn empty_folder(&self) -> Result<PathBuf, StorageError> {
        let path = self.scratch().join("empty");
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(StorageError::Folder { path, source })
            }
            _ => Ok(path),
        }
    }

    /// The tree of `scratch`: nothing.
    ///
    /// # Errors
    /// The empty folder cannot be made.
    pub fn empty(&self) -> Result<Root, StorageError> {
        let path = self.empty_folder()?;
        Root::open(&path).map_err(|error| StorageError::Folder {
            path,
            source: error.source.into(),
        })
    }

    /// Stores the image and gives it its names. Names that already mean it are left alone.
    ///
    /// # Errors
    /// As [`Transaction::put_image`].
    pub fn put_image(
        &self,
        mut config: ImageConfig,
        layers: &[DiffId],
        names: &[Reference],
    ) -> Result<teu_store::Image, StorageError> {
        config.rootfs.diff_ids = layers.to_vec();
        let stored = self.stored(layers)?;
        let mut missing = names
            .iter()
            .filter(|name| !self.is_already(name, &config))
            .peekable();
        if !names.is_empty() && missing.peek().is_none() {
            return Ok(self.work.store().image(&names[0])?);
        }
        let mut manifest = None;
        for name in missing {
            manifest = Some(self.work.put_image(config.clone(), &stored, Some(name))?);
        }
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => self.work.put_image(config, &stored, None)?,
        };
        Ok(self.work.store().image_by_manifest(&manifest)?)
    }

    /// Layers of the store, as manifests name them; bottom first.
    ///
    /// # Errors
    /// One that is not here.
    pub fn stored(&self, layers: &[DiffId]) -> Result<Vec<Layer>, StorageError> {
        let mut stored = Vec::new();
        for layer in layers {
            let known = lock(&self.layers).get(layer).cloned();
            let found = match known {
                Some(layer) => Some(layer),
                None => self.work.layer(layer)?,
            };
            stored.push(found.ok_or(teu_store::Error::NoSuchLayer(*layer))?);
        }
        Ok(stored)
    }

    /// Takes a layer from elsewhere, checking blob and content.
    ///
    /// # Errors
    /// It is not what its digests say, or the store.
    pub fn ingest(
        &self,
        content: impl std::io::Read,
        blob: &Descriptor,
        layer: &DiffId,
    ) -> Result<(), StorageError> {
        let taken = self
            .work
            .ingest_layer(content, blob, Some(layer), &mut |_| {})?;
        self.work.note_packed(blob, &taken.diff_id)?;
        lock(&self.layers).insert(*layer, taken);
        Ok(())
    }

    /// Describes a layer in a packing; it is in the store afterwards.
    ///
    /// # Errors
    /// As [`Transaction::pack_layer`].
    pub fn pack(
        &self,
        layer: &Layer,
        packing: Packing,
        progress: &teu_store::progress::Progress,
    ) -> Result<Descriptor, teu_store::transfer::Error> {
        self.work
            .pack_layer(&layer.blob, &layer.diff_id, packing, progress)
    }

    /// Stores a manifest, an index or a configuration.
    ///
    /// # Errors
    /// As [`Transaction::put_bytes`].
    pub fn put_document(&self, kind: &str, bytes: &[u8]) -> Result<Descriptor, StorageError> {
        Ok(self.work.put_bytes(kind, bytes)?)
    }

    /// Makes the image of a manifest whole.
    ///
    /// # Errors
    /// As [`Transaction::finish_image`].
    pub fn finish(&self, manifest: &Descriptor) -> Result<(), StorageError> {
        Ok(self.work.finish_image(manifest, &[], None, None)?)
    }

    /// Gives a manifest or an index that is whole a name, unless it has it.
    ///
    /// # Errors
    /// As [`Store::set_ref`].
    pub fn name(&self, name: &Reference, target: &Descriptor) -> Result<(), StorageError> {
        let now = self.store().get_ref(name)?;
        if now.is_some_and(|record| record.target.digest == target.digest) {
            return Ok(());
        }
        Ok(self.store().set_ref(name, target)?)
    }

    fn is_already(&self, name: &Reference, config: &ImageConfig) -> bool {
        self.work
            .store()
            .image(name)
            .is_ok_and(|image| image.config == *config)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        lock(&self.views).clear();
        for root in lock(&self.pinned).drain(..) {
            // What stays is released by the next build.
            let _ = root.release();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
