//! The store's folder: where everything lies, and what opening it makes.
//!
//! ```text
//! store/                        0700
//! ├── VERSION
//! ├── blobs/<alg>/<hex>         compressed layers, manifests, configurations; byte-exact, immutable once named
//! ├── tars/<alg>/<hex>          uncompressed layer, named by its diff id: EROFS data device and export source
//! ├── index/<alg>/<hex>         EROFS metadata over that tar
//! ├── dirs/<alg>/<hex>/         directory back-end: the layer in overlay form
//! ├── owned/<alg>/<hex>/        the same, owned by subordinate ids, for user namespaces that have them
//! ├── layers/<alg>/<hex>        a layer's record: sizes, checksum of the index; written last, so it vouches for the above
//! ├── packed/<alg>/<hex>        which blobs unpack to a layer, named by its diff id
//! ├── images/<alg>/<hex>        a chain's corrections over its plain stack of layers, named by its chain id
//! ├── mounts/<kind>-<alg>-<hex>/  where layers and corrections are mounted, once a host
//! ├── refs/<escaped name>       one small file a reference, replaced by rename
//! ├── cache/                    the builder's; disposable
//! ├── roots/<id>                diff ids that a container or a build uses
//! ├── tmp/<id>/                 transactions in flight: lock, wants, unfinished files; blobs that broke off stay for the next pull
//! └── lock/                     flock only; `fetch-*` while a blob is fetched
//! ```

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{CWD, Mode as FileMode, RenameFlags, chmod, lstat, renameat_with};
use rustix::io::Errno;

use crate::digest::{Algorithm, ChainId, DiffId, Digest};
use crate::error::{Context, Error};
use crate::identity;
use crate::lock::{Lock, Mode};

/// What VERSION says; another number means another layout.
const VERSION: &str = "1";
/// Folders with one sub-folder an algorithm.
const BY_DIGEST: [&str; 7] = [
    "blobs", "tars", "index", "dirs", "layers", "packed", "images",
];
/// After this a directory that was changed is on the disk without being told: the kernel writes out by itself what is
/// 30 s old (`vm.dirty_expire_centisecs` in proc(5)), and looks for it every 5 s.
const NAMES_SETTLE: Duration = Duration::from_secs(300);
/// The directories that belong to subordinate ids; made where it is needed, in a namespace that has them.
pub(crate) const OWNED: &str = "owned";
/// The other folders.
const PLAIN: [&str; 6] = ["refs", "roots", "tmp", "lock", "cache", "mounts"];

/// A store. Cheap to open; any number of processes may have one open.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// The back-end to use instead of the one that the probe finds.
    pub(crate) forced_backend: Option<crate::probe::Backend>,
    /// What the probe found, once it was asked.
    pub(crate) probed: Arc<OnceLock<crate::probe::Found>>,
}

impl Store {
    /// Opens the store at `root`, making it where there is none.
    ///
    /// A store of another version is refused. Killed at any point, the next open continues.
    pub fn open(root: impl AsRef<Path>) -> Result<Store, Error> {
        let root = root.as_ref();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .context("create directory", root)?;
        let root = root.canonicalize().context("resolve", root)?;
        let store = Store {
            root,
            forced_backend: None,
            probed: Arc::default(),
        };
        let version = store.root.join("VERSION");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == VERSION => {
                store.create_owned()?;
                return Ok(store);
            }
            Ok(found) => {
                return Err(Error::Version {
                    path: store.root,
                    found: found.trim().chars().take(40).collect(),
                    known: VERSION,
                });
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).context("read", version),
        }
        store.create()?;
        store.create_owned()?;
        Ok(store)
    }

    /// Makes the folder of directories that belong to subordinate ids, in a namespace that has them.
    fn create_owned(&self) -> Result<(), Error> {
        let folder = self.root.join(OWNED);
        if !identity::own().is_lent || folder.join(Algorithm::ALL[0].name()).is_dir() {
            return Ok(());
        }
        make_directory(&folder)?;
        // The one that is looked for comes last.
        let mut algorithms = Algorithm::ALL.iter().rev();
        algorithms.try_for_each(|algorithm| make_directory(&folder.join(algorithm.name())))
    }

    /// Uses `backend` whatever the probe would find.
    pub fn force_backend(&mut self, backend: crate::probe::Backend) {
        self.forced_backend = Some(backend);
    }

    /// Makes the folders; VERSION comes last, so that a store with one is whole.
    fn create(&self) -> Result<(), Error> {
        let lock = self.root.join("lock");
        make_directory(&lock)?;
        let _creating = Lock::acquire(&lock.join("create"), Mode::Exclusive)?;
        for name in PLAIN {
            make_directory(&self.root.join(name))?;
        }
        for name in BY_DIGEST {
            make_directory(&self.root.join(name))?;
            for algorithm in Algorithm::ALL {
                make_directory(&self.root.join(name).join(algorithm.name()))?;
            }
            sync_directory(&self.root.join(name))?;
        }
        sync_directory(&self.root)?;
        sync_parent(&self.root)?;
        replace_file(
            &self.root.join("tmp"),
            &self.root.join("VERSION"),
            format!("{VERSION}\n").as_bytes(),
        )
    }

    /// The store's folder; absolute, without symbolic links.
    pub fn root_path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn by_digest(&self, folder: &str, digest: &Digest) -> PathBuf {
        self.root
            .join(folder)
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.by_digest("blobs", digest)
    }

    pub(crate) fn tar_path(&self, layer: &DiffId) -> PathBuf {
        self.by_digest("tars", &layer.0)
    }

    pub(crate) fn index_path(&self, layer: &DiffId) -> PathBuf {
        self.by_digest("index", &layer.0)
    }

    pub(crate) fn dir_path(&self, layer: &DiffId) -> PathBuf {
        let folder = if identity::own().is_lent {
            OWNED
        } else {
            "dirs"
        };
        self.by_digest(folder, &layer.0)
    }

    pub(crate) fn record_path(&self, layer: &DiffId) -> PathBuf {
        self.by_digest("layers", &layer.0)
    }

    /// A chain's corrections as an EROFS image; an empty file says that it needs none.
    pub(crate) fn corrections_path(&self, chain: &ChainId) -> PathBuf {
        self.by_digest("images", &chain.0)
    }

    /// A chain's corrections as a directory.
    pub(crate) fn corrections_dir(&self, chain: &ChainId) -> PathBuf {
        let kind = if identity::own().is_lent {
            OWNED
        } else {
            "dir"
        };
        self.by_digest("images", &chain.0).with_extension(kind)
    }

    /// Makes the names of all content durable: another process may have given one just now and not have come to that yet,
    /// and who found the content there is about to name an image of it.
    pub(crate) fn sync_names(&self) -> Result<(), Error> {
        // What was packed is only remembered.
        for folder in BY_DIGEST.into_iter().filter(|name| *name != "packed") {
            for algorithm in Algorithm::ALL {
                let path = self.root.join(folder).join(algorithm.name());
                let changed = fs::metadata(&path).and_then(|metadata| metadata.modified());
                let age = changed.context("stat", &path)?.elapsed();
                // A clock that was set back says nothing.
                if age.is_ok_and(|age| age > NAMES_SETTLE) {
                    continue;
                }
                sync_directory(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("lock").join(name)
    }

    /// Taken shared to announce what a transaction wants, exclusively to remove what nobody wants.
    pub(crate) fn gc_lock(&self, mode: Mode) -> Result<Lock, Error> {
        Lock::acquire(&self.lock_path("gc"), mode)
    }
}

/// Makes a directory of mode 0700; one that is there already is fine.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("create directory", path),
    }
}

/// Replaces `target` whole with `bytes`, durably: readers see the old content or the new.
pub(crate) fn replace_file(tmp: &Path, target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = tmp.join(unique_name("file")?);
    let mut file = fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .open(&unfinished)
        .context("create", &unfinished)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .context("write", &unfinished)?;
    fs::rename(&unfinished, target).context("rename to", target)?;
    sync_parent(target)
}

/// Replaces `target` whole with `bytes`, for what a power cut may take: then the file can be the old one, the new one,
/// missing or empty.
pub(crate) fn replace_file_volatile(tmp: &Path, target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = tmp.join(unique_name("file")?);
    fs::write(&unfinished, bytes).context("write", &unfinished)?;
    fs::rename(&unfinished, target).context("rename to", target)
}

/// Gives a finished, synced file its name. Success means a file is there under that name, not that it is this one:
/// names are digests, so the one that was there first is as good.
pub(crate) fn name_file(unfinished: &Path, target: &Path) -> Result<(), Error> {
    match renameat_with(CWD, unfinished, CWD, target, RenameFlags::empty()) {
        Ok(()) => sync_parent(target),
        Err(errno) => Err(errno).context("rename to", target),
    }
}

/// Renames a directory that may be read-only: who is not root must be able to write to it for that
/// (its `..` changes), and gives itself the permission for a moment.
pub(crate) fn rename_directory(
    from: &Path,
    to: &Path,
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::ACCESS) if !identity::own().is_root => {}
        other => return other,
    }
    let mode_of =
        |path: &Path| lstat(path).map(|stat| FileMode::from_raw_mode(stat.st_mode & 0o7777));
    let mode = mode_of(from)?;
    chmod(from, mode | FileMode::RWXU)?;
    // The other one of an exchange moves, too.
    let other = match flags.contains(RenameFlags::EXCHANGE) {
        true => Some(mode_of(to)?),
        false => None,
    };
    if let Some(other) = other {
        chmod(to, other | FileMode::RWXU)?;
    }
    let renamed = renameat_with(CWD, from, CWD, to, flags);
    chmod(if renamed.is_ok() { to } else { from }, mode)?;
    if let Some(other) = other {
        chmod(if renamed.is_ok() { from } else { to }, other)?;
    }
    renamed
}

/// Makes a new name durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), Error> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .context("sync", path)
}

/// A file name nobody else uses: `<kind>-<pid>-<128 random bits>`.
pub(crate) fn unique_name(kind: &str) -> Result<String, Error> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .context("read", "/dev/urandom")?;
    Ok(format!(
        "{kind}-{}-{:032x}",
        std::process::id(),
        u128::from_ne_bytes(random)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap();
        Store::open(dir.path()).unwrap();
        fs::write(dir.path().join("VERSION"), "2\n").unwrap();
        assert!(matches!(
            Store::open(dir.path()),
            Err(Error::Version { .. })
        ));
    }
}
