//! Transactions: how anything gets into the store while others use, and clean, it.
//!
//! `gc` removes what nothing names. A transaction names what it is about to use, in `tmp/<id>/wants`,
//! *before* it looks whether that exists; `gc` reads all wants under its exclusive lock, and while it is at work it is told of
//! new ones. So what a transaction found stays until it ends. `tmp/<id>/lock` is held for the transaction's life: who obtains it knows the owner is dead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Error};
use crate::gc::Lines;
use crate::image::Descriptor;
use crate::lock::{Lock, Mode};
use crate::store::{self, Store};

/// Size of the pieces in which content is copied, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// A transaction in flight. What it wants or puts is safe from `gc` until it is dropped;
/// by then a reference or a root must name what is to stay.
#[derive(Debug)]
pub struct Transaction {
    store: Store,
    folder: PathBuf,
    _lock: Lock,
    wants: Mutex<File>,
    /// Blobs that broke off stay for the next transaction (see `partial.rs`).
    pub(crate) keeps_partials: AtomicBool,
}

impl Store {
    /// Begins a transaction. Killed at any point, `gc` removes what it left below `tmp/`.
    pub fn begin(&self) -> Result<Transaction, Error> {
        let _gc = self.gc_lock(Mode::Shared)?;
        let folder = self.folder("tmp").join(store::unique_name("work")?);
        store::make_directory(&folder)?;
        let lock = Lock::acquire(&folder.join("lock"), Mode::Exclusive)?;
        let wants = folder.join("wants");
        let wants = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&wants)
            .context("create", &wants)?;
        Ok(Transaction {
            store: self.clone(),
            folder,
            _lock: lock,
            wants: Mutex::new(wants),
            keeps_partials: AtomicBool::new(false),
        })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // What stays is removed by the next gc.
        self.end();
    }
}

impl Transaction {
    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A folder for unfinished files; on the store's own file system, removed with the transaction.
    pub fn scratch(&self) -> &Path {
        &self.folder
    }

    /// Announces digests (of blobs, or diff ids) that `gc` must keep from now on. Must come before the test
    /// whether they exist; afterwards what exists stays.
    pub fn want<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<(), Error> {
        let lines = Lines::of(digests);
        let _gc = self.store.gc_lock(Mode::Shared)?;
        let mut wants = self
            .wants
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        wants
            .write_all(lines.text().as_bytes())
            .context("write", self.folder.join("wants"))?;
        self.store.announce(&lines)
    }

    /// Whether blob `digest` is here; if so it stays until the transaction ends.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.want([digest])?;
        Ok(self.store.has_blob(digest))
    }

    /// Stores what `content` yields as blob `digest` of `size` bytes.
    ///
    /// Idempotent: success means the blob is there and durable, not that this call put it there. Content that is longer,
    /// shorter or other than promised is refused, and reading stops at the first byte too many. A blob that is there
    /// is replaced, so putting again heals a damaged one. A reader never sees a partial blob.
    pub fn put_blob(&self, content: impl Read, digest: &Digest, size: u64) -> Result<(), Error> {
        self.want([digest])?;
        let mut blob = self.blob_writer(digest.algorithm())?;
        let what = || format!("blob {digest}");
        let copied = copy(content.take(size.saturating_add(1)), &mut blob)
            .map_err(|err| err.into_error(what()))?;
        if copied != size {
            return Err(Error::SizeMismatch {
                what: what(),
                expected: size,
                found: copied,
            });
        }
        let found = blob.digest();
        if found != *digest {
            return Err(Error::DigestMismatch {
                what: what(),
                expected: Box::new(*digest),
                found: Box::new(found),
            });
        }
        blob.publish()
    }

    /// Stores `bytes` and describes them as `media_type`.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        self.put_blob(bytes, &digest, size)?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// A blob whose digest is known only when it is written.
    pub fn blob_writer(&self, algorithm: Algorithm) -> Result<BlobWriter<'_>, Error> {
        let (path, file) = self.new_file("blob")?;
        Ok(BlobWriter {
            transaction: self,
            path,
            file,
            hasher: Hasher::new(algorithm),
        })
    }

    /// A new file in the scratch folder.
    pub(crate) fn new_file(&self, kind: &str) -> Result<(PathBuf, File), Error> {
        let path = self.folder.join(store::unique_name(kind)?);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .context("create", &path)?;
        Ok((path, file))
    }
}

/// A blob being written. Dropped before [`BlobWriter::publish`], nothing of it is ever seen.
#[derive(Debug)]
pub struct BlobWriter<'t> {
    transaction: &'t Transaction,
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

impl BlobWriter<'_> {
    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes the blob durable and gives it its name, its digest.
    pub fn publish(self) -> Result<(), Error> {
        let digest = self.digest();
        self.transaction.want([&digest])?;
        self.file.sync_all().context("sync", &self.path)?;
        store::name_file(&self.path, &self.transaction.store.blob_path(&digest))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which side of a copy failed.
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl CopyError {
    pub(crate) fn into_error(self, what: String) -> Error {
        match self {
            CopyError::Read(source) => Error::Read { what, source },
            CopyError::Write(source) => Error::Io {
                action: "write",
                path: what.into(),
                source,
            },
        }
    }
}

/// Copies all of `from`; the number of bytes.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => {
                to.write_all(&buffer[..n]).map_err(CopyError::Write)?;
                copied += n as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(CopyError::Read(err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_blob_is_what_its_name_says_or_is_not_there() {
        let (_dir, store) = store();
        let work = store.begin().unwrap();
        let digest = Digest::of(b"hello");
        assert!(matches!(
            work.put_blob(&b"hello!"[..], &digest, 5),
            Err(Error::SizeMismatch { found: 6, .. })
        ));
        assert!(matches!(
            work.put_blob(&b"hell"[..], &digest, 5),
            Err(Error::SizeMismatch { found: 4, .. })
        ));
        assert!(matches!(
            work.put_blob(&b"hallo"[..], &digest, 5),
            Err(Error::DigestMismatch { .. })
        ));
        assert!(!work.has_blob(&digest).unwrap());
        work.put_blob(&b"hello"[..], &digest, 5).unwrap();
        work.put_blob(&b"hello"[..], &digest, 5).unwrap();
        assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    }

    #[test]
    fn nothing_stays_below_tmp() {
        let (dir, store) = store();
        let work = store.begin().unwrap();
        let _ = work.put_blob(&b"x"[..], &Digest::of(b"y"), 1);
        drop(work);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}
