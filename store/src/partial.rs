//! Blobs that were begun and not finished: what a pull that was killed, or cut off, leaves for the next one.
//!
//! A blob on its way is `tmp/<id>/partial-<alg>-<hex>`. A transaction that ends because the other side fell silent keeps
//! these files and lets go of its lock; so does one that is killed. The next pull of the same blob takes the longest such
//! file, reads it through the same checks as the network, and goes on where it ends. `gc` removes what nobody takes.
//!
//! `lock/fetch-<alg>-<hex>` is held by who fetches a blob: others wait for it instead of fetching it, too.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::image::Descriptor;
use crate::lock::Lock;
use crate::store::{self, Store};
use crate::transaction::Transaction;

/// Less than this of a blob is not worth keeping, in bytes.
const PARTIAL_BYTES_MIN: u64 = 64 * 1024;

/// How long another process's fetch of the same blob is waited for; then it is fetched twice.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// How often is looked whether it is done.
const FETCH_POLL: Duration = Duration::from_millis(20);

/// The beginning of a blob.
#[derive(Debug)]
pub(crate) struct Begun {
    /// At its beginning.
    pub(crate) file: File,
    /// Its length in bytes; at most the blob's.
    pub(crate) length: u64,
}

/// The right to fetch a blob.
#[derive(Debug)]
pub(crate) struct Fetch {
    lock: PathBuf,
    _held: Option<Lock>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // Still held: who waits for this very file sees that the work is done.
        let _ = fs::remove_file(&self.lock);
    }
}

fn name(digest: &Digest) -> String {
    format!("partial-{}-{}", digest.algorithm().name(), digest.hex())
}

impl Transaction {
    /// A file for a blob on its way; a second one for the same blob is like any other scratch file.
    pub(crate) fn partial_file(&self, digest: &Digest) -> Result<(PathBuf, File), Error> {
        let path = self.scratch().join(name(digest));
        let mut options = OpenOptions::new();
        match options.read(true).write(true).create_new(true).open(&path) {
            Ok(file) => Ok((path, file)),
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => self.new_file("blob"),
            Err(err) => Err(err).context("create", path),
        }
    }

    /// Says that the blob at `path` broke off: kept for the next transaction if it is worth it.
    pub(crate) fn leave_partial(&self, path: &Path, length: u64) {
        if length >= PARTIAL_BYTES_MIN {
            self.keeps_partials.store(true, Ordering::Relaxed);
        } else {
            let _ = fs::remove_file(path);
        }
    }

    /// The folder's end: all but partial blobs goes, and the folder too if there are none.
    pub(crate) fn end(&self) {
        if !self.keeps_partials.load(Ordering::Relaxed) {
            let _ = crate::dirs::remove(self.scratch());
            return;
        }
        let Ok(entries) = fs::read_dir(self.scratch()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with("partial-") && name != "lock" {
                let _ = crate::dirs::remove(&entry.path());
            }
        }
    }

    /// Takes over the longest beginning of `blob` that a dead transaction has left.
    pub(crate) fn take_partial(&self, blob: &Descriptor) -> Result<Option<Begun>, Error> {
        let folder = self.store().folder("tmp");
        let name = name(&blob.digest);
        let mut longest: Option<(u64, PathBuf, Lock)> = None;
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let path = entry.context("list", &folder)?.path();
            // Ours is not dead, and most have none.
            let Ok(found) = fs::symlink_metadata(path.join(&name)) else {
                continue;
            };
            let fits = found.is_file() && (1..=blob.size).contains(&found.len());
            let longer = longest
                .as_ref()
                .is_none_or(|(length, ..)| found.len() > *length);
            if path != self.scratch()
                && fits
                && longer
                && let Some(lock) = of_dead(&path)
            {
                longest = Some((found.len(), path, lock));
            }
        }
        let Some((length, dead, _lock)) = longest else {
            return Ok(None);
        };
        let own = self.scratch().join(store::unique_name("begun")?);
        // gc may have been faster: then there is nothing to take.
        if fs::rename(dead.join(&name), &own).is_err() {
            return Ok(None);
        }
        remove_if_empty(&dead);
        let file = File::open(&own).context("open", &own)?;
        Ok(Some(Begun { file, length }))
    }

    /// Waits until nobody else fetches `blob`; `waits` is called once if somebody does. The caller looks
    /// afterwards whether the blob is there.
    pub(crate) fn fetch(&self, blob: &Descriptor, waits: impl FnOnce()) -> Result<Fetch, Error> {
        let digest = &blob.digest;
        let name = format!("fetch-{}-{}", digest.algorithm().name(), digest.hex());
        let lock = self.store().lock_path(&name);
        let deadline = Instant::now() + FETCH_WAIT_MAX;
        let mut waits = Some(waits);
        loop {
            let held = Lock::try_or_make(&lock)?;
            if held.is_some() || Instant::now() >= deadline {
                return Ok(Fetch { lock, _held: held });
            }
            if let Some(waits) = waits.take() {
                waits();
            }
            std::thread::sleep(FETCH_POLL);
        }
    }
}

impl Store {
    /// Removes what transactions of the dead have left, but for the beginnings of blobs, which others may go on with.
    /// Best effort: what stays is removed by `gc`.
    pub fn put_away_dead(&self) {
        let folders = || {
            let entries = fs::read_dir(self.folder("tmp")).into_iter().flatten();
            let paths = entries.flatten().map(|entry| entry.path());
            paths.filter(|path| path.is_dir())
        };
        let is_begun = |folder: &Path| folder.join("wants").exists();
        // Who begins one holds the lock, shared, until it has wants: nobody does now.
        if let Ok(Some(_alone)) = Lock::try_exclusive(&self.lock_path("gc")) {
            for folder in folders().filter(|folder| !is_begun(folder)) {
                let _ = crate::dirs::remove(&folder);
            }
        }
        for folder in folders().filter(|folder| is_begun(folder)) {
            if let Some(_held) = of_dead(&folder) {
                remove_if_empty(&folder);
            }
        }
    }
}

/// The lock of a transaction's folder whose owner has ended.
fn of_dead(folder: &Path) -> Option<Lock> {
    Lock::try_exclusive(&folder.join("lock")).ok().flatten()
}

/// Removes a dead transaction's folder unless there are beginnings of other blobs in it.
fn remove_if_empty(folder: &Path) {
    let Ok(mut entries) = fs::read_dir(folder) else {
        return;
    };
    let is_partial = |name: std::ffi::OsString| name.to_string_lossy().starts_with("partial-");
    if !entries.any(|entry| entry.is_ok_and(|entry| is_partial(entry.file_name()))) {
        let _ = crate::dirs::remove(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn of_the_dead_only_what_was_begun_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let tmp = store.folder("tmp");
        let alive = store.begin().unwrap();
        for name in ["dead", "begun", "young"] {
            fs::create_dir(tmp.join(name)).unwrap();
            fs::write(tmp.join(name).join("lock"), "").unwrap();
        }
        for name in ["dead", "begun"] {
            fs::write(tmp.join(name).join("wants"), "").unwrap();
        }
        fs::write(tmp.join("dead/file"), "half").unwrap();
        fs::write(tmp.join("begun/partial-sha256-0"), "half").unwrap();
        let stays = |name: &str| tmp.join(name).exists();
        {
            let _somebody_begins = store.gc_lock(crate::lock::Mode::Shared).unwrap();
            store.put_away_dead();
            assert_eq!(["dead", "begun", "young"].map(stays), [false, true, true]);
        }
        store.put_away_dead();
        assert_eq!(["dead", "begun", "young"].map(stays), [false, true, false]);
        assert!(alive.scratch().join("wants").exists());
    }

    #[test]
    fn what_one_transaction_leaves_the_next_one_takes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Descriptor::new("x", Digest::of(b"blob"), 1 << 20);
        let leave = |length: usize| {
            let work = store.begin().unwrap();
            let (path, mut file) = work.partial_file(&blob.digest).unwrap();
            file.write_all(&vec![7; length]).unwrap();
            work.new_file("other").unwrap();
            work.leave_partial(&path, length as u64);
        };
        {
            // One that is alive keeps its own.
            let (alive, other) = (store.begin().unwrap(), store.begin().unwrap());
            let (_, mut file) = alive.partial_file(&blob.digest).unwrap();
            file.write_all(&[7; 100]).unwrap();
            assert!(other.take_partial(&blob).unwrap().is_none());
        }
        leave(70_000);
        leave(100_000);
        let work = store.begin().unwrap();
        let mut begun = work.take_partial(&blob).unwrap().unwrap();
        assert_eq!(begun.length, 100_000);
        let mut bytes = Vec::new();
        begun.file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 100_000);
        // The shorter one is still there, and gc takes it.
        assert_eq!(work.take_partial(&blob).unwrap().unwrap().length, 70_000);
        drop(work);
        store.gc().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn little_is_not_kept_and_too_much_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Descriptor::new("x", Digest::of(b"blob"), 80_000);
        for length in [10, 90_000] {
            let work = store.begin().unwrap();
            let (path, mut file) = work.partial_file(&blob.digest).unwrap();
            file.write_all(&vec![7; length]).unwrap();
            work.leave_partial(&path, length as u64);
        }
        let work = store.begin().unwrap();
        assert!(work.take_partial(&blob).unwrap().is_none());
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Descriptor::new("x", Digest::of(b"blob"), 1);
        let work = store.begin().unwrap();
        let first = work.fetch(&blob, || panic!("nobody else fetches")).unwrap();
        let waited = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = store.begin().unwrap();
                second
                    .fetch(&blob, || waited.store(true, Ordering::SeqCst))
                    .unwrap();
            });
            while !waited.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(first);
        });
        assert!(!store.lock_path("fetch-sha256-x").exists());
        let left = fs::read_dir(folder.path().join("lock")).unwrap();
        let fetches = left
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("fetch-"));
        assert_eq!(fetches.count(), 0);
    }
}
