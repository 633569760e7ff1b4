//! Cache mounts as people handle them: listed, exported, imported, removed.

use super::name_of;
use crate::output::{FilesError, tree_to_directory, tree_to_tar};
use crate::storage::{Storage, StorageError};
use crate::tree::Root;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use teu_store::Store;

/// The file that says what a folder of the cache is.
const NAME: &str = "name";

/// Largest such file, in bytes: an id and three numbers.
const NAME_BYTES_MAX: u64 = 64 * 1024;

/// What distinguishes cache mounts: `--mount=type=cache,id=,mode=,uid=,gid=`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheMount {
    /// The id: by default the target.
    pub id: String,
    /// Permissions of the directory.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Why a cache mount cannot be handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is none of that id.
    #[error("there is no cache mount {0:?}")]
    None(String),
    /// There are several of that id.
    #[error("there are several cache mounts {id:?}: {list}; choose one with --owner")]
    Several {
        /// The id.
        id: String,
        /// What distinguishes them.
        list: String,
    },
    /// A build uses it.
    #[error("the cache mount {0:?} is in use")]
    InUse(String),
    /// A file of the cache.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The archive, on its way through the store.
    #[error("read the archive")]
    Archive(#[from] StorageError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError::File {
        action,
        path,
        source,
    }
}

impl CacheMount {
    /// Where it lies below the folder of all caches.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        let Self { id, mode, uid, gid } = self;
        let name = name_of(format!("{id}\0{mode:o}\0{uid}\0{gid}").as_bytes());
        cache.join("mounts").join(name)
    }

    /// Writes into a mount's folder what it is, once. Failure costs only its name in lists.
    pub(crate) fn note(folder: &Path, id: &str, (mode, uid, gid): (u32, u32, u32)) {
        let path = folder.join(NAME);
        if let Ok(file) = File::open(&path) {
            // What is used is pruned last.
            let _ = rustix::fs::futimens(&file, &super::NOW);
            return;
        }
        let own = Self {
            id: id.to_owned(),
            mode,
            uid,
            gid,
        };
        let unfinished = folder.join(format!("{NAME}.{}", std::process::id()));
        let written = serde_json::to_vec(&own).is_ok_and(|text| {
            std::fs::write(&unfinished, text).is_ok() && std::fs::rename(&unfinished, path).is_ok()
        });
        if !written {
            let _ = std::fs::remove_file(&unfinished);
        }
    }

    /// The file whose time is that of the last use.
    pub(super) fn last_use(&self, cache: &Path) -> PathBuf {
        self.folder(cache).join(NAME)
    }

    /// Bytes that it takes on disk.
    pub fn bytes(&self, cache: &Path) -> u64 {
        super::usage::on_disk(&self.folder(cache))
    }

    /// All cache mounts below `cache`, by their ids.
    pub fn list(cache: &Path) -> Vec<Self> {
        let mut all: Vec<Self> = super::usage::entries(&cache.join("mounts"))
            .filter_map(|entry| read(&entry.path().join(NAME)))
            .collect();
        all.sort();
        all
    }

    /// The one that an id means; `owner` chooses among several.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(cache: &Path, id: &str, owner: Option<u32>) -> Result<Self, MountError> {
        let fits = |mount: &Self| mount.id == id && owner.is_none_or(|uid| uid == mount.uid);
        let mut found: Vec<Self> = Self::list(cache).into_iter().filter(fits).collect();
        match (found.pop(), &found[..]) {
            (Some(only), []) => Ok(only),
            (None, _) => Err(MountError::None(id.to_owned())),
            (Some(last), others) => {
                let shown = others.iter().chain([&last]);
                let list = shown.map(|one| format!("{:o} {}:{}", one.mode, one.uid, one.gid));
                Err(MountError::Several {
                    id: id.to_owned(),
                    list: list.collect::<Vec<_>>().join(", "),
                })
            }
        }
    }

    /// Writes its files as a tar. Waits for no build: one that uses it alone is an error.
    ///
    /// # Errors
    /// It is in use, or cannot be read.
    pub fn export(&self, cache: &Path, out: impl Write) -> Result<(), MountError> {
        let folder = self.folder(cache);
        let _lock = self.lock(&folder, FlockOperation::NonBlockingLockShared)?;
        let data = folder.join("0");
        let root = Root::open(&data).map_err(|error| failed("open", &data)(error.source.into()))?;
        Ok(tree_to_tar(&root, out)?)
    }

    /// Fills it from a tar, over what is there; makes it if it is not there.
    ///
    /// # Errors
    /// It is in use, or the tar is none.
    pub fn import(&self, store: &Store, archive: impl Read) -> Result<(), MountError> {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = self.folder(&store.root_path().join("cache"));
        std::fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        Self::note(&folder, &self.id, (self.mode, self.uid, self.gid));
        let _lock = self.lock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        let data = folder.join("0");
        if !data.is_dir() {
            std::fs::create_dir(&data).map_err(failed("create", &data))?;
            let mode = std::fs::Permissions::from_mode(self.mode);
            std::fs::set_permissions(&data, mode).map_err(failed("set permissions of", &data))?;
            chown(&data, Some(self.uid), Some(self.gid))
                .map_err(failed("set the owner of", &data))?;
        }
        // The store reads archives, whatever is in them, safely: as a layer that nothing names.
        let storage = Storage::begin(store)?;
        let layer = storage.write_layer(|out| {
            let mut archive = archive;
            io::copy(&mut archive, out)
                .map(drop)
                .map_err(failed("read", Path::new("the archive")))
        })?;
        let view = storage.view(&[layer])?;
        Ok(tree_to_directory(&view, &data)?)
    }

    /// Removes it with all its copies.
    ///
    /// # Errors
    /// It is in use, or a file cannot be removed.
    pub fn remove(&self, cache: &Path) -> Result<(), MountError> {
        let folder = self.folder(cache);
        let _lock = self.lock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        std::fs::remove_dir_all(&folder).map_err(failed("remove", &folder))
    }

    fn lock(&self, folder: &Path, how: FlockOperation) -> Result<File, MountError> {
        let path = folder.join("0.lock");
        let mut options = File::options();
        let file = options
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        match flock(&file, how) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(MountError::InUse(self.id.clone())),
            Err(errno) => Err(failed("lock", &path)(errno.into())),
        }
    }
}

fn read(path: &Path) -> Option<CacheMount> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(NAME_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
