//! Views: layers as directories. With the EROFS back-end each is mounted once a mount namespace, below `mounts/`;
//! with the directory back-end it is there anyway.
//!
//! Whether a view is mounted is asked of the kernel, never of a record: mounts vanish with their namespace and at a reboot.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::digest::{ChainId, DiffId, Digest};
use crate::error::{Context, Error};
use crate::identity;
use crate::images::Image;
use crate::lock::{Lock, Mode};
use crate::mount;
use crate::probe::Backend;
use crate::readahead::Known;
use crate::store::{self, Store};

impl Store {
    /// The layers, bottom first, as directories for an overlay, top first; makes the views that are missing.
    /// A root must pin the layers.
    pub(crate) fn make_views(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error> {
        let corrections = self.corrections(layers)?;
        let mut lowers = Vec::new();
        if self.backend()? == Backend::Directory {
            lowers.extend(corrections);
            lowers.extend(distinct(layers).map(|layer| self.dir_path(layer)));
            return Ok(lowers);
        }
        let _mounting = Lock::acquire(&self.lock_path("mounts"), Mode::Exclusive)?;
        let mut views = Views::open(self)?;
        if let (Some(image), Some(chain)) = (corrections, ChainId::of(layers)) {
            let tars: Vec<PathBuf> = layers.iter().map(|layer| self.tar_path(layer)).collect();
            lowers.push(views.make(&corrections_view(&chain), &image, &tars)?);
        }
        for layer in distinct(layers) {
            let (index, tar) = (self.index_path(layer), self.tar_path(layer));
            lowers.push(views.make(&layer_view(layer), &index, &[tar])?);
        }
        views.adjust_new(self.root_path());
        Ok(lowers)
    }

    /// Whether the layers were settled, and all their views are mounted: then they were looked at when that was done.
    pub(crate) fn stands(&self, layers: &[DiffId]) -> Result<bool, Error> {
        let Some(chain) = ChainId::of(layers) else {
            return Ok(true);
        };
        if self.backend()? != Backend::Erofs {
            return Ok(false);
        }
        let views = Views::open(self)?;
        let stands = |layer| views.has(&layer_view(layer)).unwrap_or(false);
        Ok(layers.iter().all(stands) && self.is_settled(&chain)?)
    }

    /// Unmounts, in this mount namespace, the views that no root names.
    pub(crate) fn drop_views(&self) -> Result<(), Error> {
        let _mounting = Lock::acquire(&self.lock_path("mounts"), Mode::Exclusive)?;
        let mut needed = HashSet::new();
        for root in self.root_records()? {
            needed.extend(root.layers.iter().map(layer_view));
            needed.extend(ChainId::of(&root.layers).map(|chain| corrections_view(&chain)));
        }
        let folder = self.folder("mounts");
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            if needed.contains(Path::new(&entry.file_name())) {
                continue;
            }
            let view = entry.path();
            mount::detach(&view).context("unmount", &view)?;
            // In another mount namespace it may still be a mount point.
            let _ = fs::remove_dir(&view);
        }
        Ok(())
    }

    /// A read-only directory that shows all of `layers`, bottom first, merged; attached nowhere, gone with its descriptor.
    /// A root must pin the layers.
    pub fn view(&self, layers: &[DiffId]) -> Result<OwnedFd, Error> {
        self.merged(&self.make_views(layers)?)
    }

    /// The directories, top first, as one.
    pub(crate) fn merged(&self, lowers: &[PathBuf]) -> Result<OwnedFd, Error> {
        let paths: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
        match paths.as_slice() {
            [] => {
                let empty = self.folder("mounts").join("empty");
                store::make_directory(&empty)?;
                mount::clone_tree(&empty).context("clone", empty)
            }
            // An overlay needs two.
            [only] => mount::clone_tree(only).context("clone", only),
            several => mount::overlay(several, None).context("mount an overlay of", several[0]),
        }
    }

    /// Shows the image that `name` means as a read-only directory at `target` (made if missing, by default a folder of the store) in this
    /// mount namespace, until [`Store::unmount_image`]. The directory's absolute path.
    pub fn mount_image(&self, name: &str, target: Option<&Path>) -> Result<PathBuf, Error> {
        self.with_image(name, |image| self.mount_found(image, target))
    }

    fn mount_found(&self, image: &Image, target: Option<&Path>) -> Result<PathBuf, Error> {
        if !identity::own().is_root {
            return Err(Error::MountByUser);
        }
        let target = match target {
            Some(target) => target.to_owned(),
            None => {
                let folder = self.folder("mnt");
                store::make_directory(&folder)?;
                folder.join(image.id().short())
            }
        };
        fs::create_dir_all(&target).context("create directory", &target)?;
        let target = target.canonicalize().context("resolve", &target)?;
        let id = mount_id(&target);
        let layers = &image.config.rootfs.diff_ids;
        let root = self.pin(&id, layers, Some(image))?;
        let attached = self.merged(root.lowers()).and_then(|view| {
            let directory = File::open(&target).context("open", &target)?;
            mount::attach(view.as_fd(), directory.as_fd()).context("mount on", &target)
        });
        match attached {
            Ok(()) => Ok(target),
            Err(err) => {
                // The error that is reported is the first one.
                let _ = root.release();
                Err(err)
            }
        }
    }

    /// Takes the image at `target` away.
    pub fn unmount_image(&self, target: &Path) -> Result<(), Error> {
        let target = target.canonicalize().context("resolve", target)?;
        let id = mount_id(&target);
        if !self.has_root(&id) {
            return Err(Error::NotMounted(target));
        }
        mount::detach(&target).context("unmount", &target)?;
        if target.starts_with(self.folder("mnt")) {
            // Another mount on the same place keeps it.
            let _ = fs::remove_dir(&target);
        }
        self.release_root(&id)
    }
}

/// The folder of the views.
struct Views {
    path: PathBuf,
    folder: OwnedFd,
    /// What was mounted before the first of ours; nothing until then.
    known: Option<Known>,
}

impl Views {
    fn open(store: &Store) -> Result<Views, Error> {
        let path = store.folder("mounts");
        let folder = File::open(&path).context("open", &path)?.into();
        Ok(Views {
            path,
            folder,
            known: None,
        })
    }

    /// Whether the view is there. An image may have a hundred: each costs one short look.
    fn has(&self, name: &Path) -> io::Result<bool> {
        mount::is_mounted(self.folder.as_fd(), name)
    }

    /// Mounts the view of `image` over `tars` unless it is there; its path.
    fn make(&mut self, name: &Path, image: &Path, tars: &[PathBuf]) -> Result<PathBuf, Error> {
        let target = self.path.join(name);
        match self.has(name) {
            Ok(true) => return Ok(target),
            Err(err) if err.kind() == io::ErrorKind::NotFound => store::make_directory(&target)?,
            other => other.map(|_| ()).context("stat", &target)?,
        }
        let directory = File::open(&target).context("open", &target)?;
        let tars: Vec<&Path> = tars.iter().map(PathBuf::as_path).collect();
        self.known.get_or_insert_with(Known::look);
        let view = mount::erofs(image, &tars).context("mount", image)?;
        mount::attach(view.as_fd(), directory.as_fd()).context("mount on", &target)?;
        Ok(target)
    }

    /// Lets those that were mounted read as far ahead as the disk of `store`.
    fn adjust_new(self, store: &Path) {
        if let Some(known) = self.known {
            known.adjust_new(store);
        }
    }
}

fn layer_view(layer: &DiffId) -> PathBuf {
    file_name("layer", &layer.0)
}

fn corrections_view(chain: &ChainId) -> PathBuf {
    file_name("image", &chain.0)
}

/// The layers, top first, each once: overlay file systems refuse one twice, and what lies below
/// its own repetition cannot show anything that the repetition does not.
fn distinct(layers: &[DiffId]) -> impl Iterator<Item = &DiffId> {
    let mut seen = HashSet::new();
    layers
        .iter()
        .rev()
        .filter(move |layer| seen.insert(**layer))
}

/// The pin of an image that is mounted at `target`.
fn mount_id(target: &Path) -> String {
    format!("mount:{}", target.display())
}

fn file_name(kind: &str, digest: &Digest) -> PathBuf {
    format!("{kind}-{}-{}", digest.algorithm().name(), digest.hex()).into()
}
