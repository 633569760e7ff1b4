//! Removes what nothing names.
//!
//! 1. Collectors take turns: each holds `lock/collect` from its start to its end.
//! 2. Holding the gc lock alone, it asks for announcements (see [`announced`]) and reads what everybody wants, in this
//!    order: transactions in flight, roots, the builder's cache, references. A transaction sets its reference before it
//!    ends, and a new one cannot announce anything meanwhile: so whatever is used stands in at least one of them when
//!    it is read. What is found there, and all that it names, is *kept*.
//! 3. Without the lock it looks for files that are not kept, and removes them by batches, each under the lock (see [`sweep`]).
//!    Before each batch, what was announced meanwhile is kept, too, with all that it names.
//!
//! Whoever uses something, be it the corrections of a stack, announces it *before* looking whether it is here: by 2 or 3
//! the collector has heard of it before it removes anything more. So what is here after it was announced stays. That holds
//! for each file: a document that is here may name another that is not, because that went in an earlier batch. Who gives
//! such a document a name looks for all that it names (`Transaction::finish_image`), or for another name that it still has,
//! whose content stays for that reason (`Transaction::hold`). A layer's files cannot be parted like this: its record goes
//! first, and vouches for the others.
//!
//! A reference or a root that is made when the collector has marked is not seen by it: only what was announced protects.
//! Who only reads announces nothing, and passes over what was taken away, or reads again, where a name means another image
//! by then (`Store::unless_gone`).
//!
//! Killed at any point, what it has removed nobody needed, and the next one goes on with the rest.

mod announced;
mod kept;
mod mark;
mod prune;
mod sweep;
mod usage;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::digest::{Algorithm, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::identity;
use crate::lock::{Lock, Mode};
use crate::store::{OWNED, Store};
use crate::transaction::Transaction;

use announced::Announced;
pub(crate) use announced::Lines;
use mark::Own;
use sweep::Sweep;

pub use prune::{PrunePolicy, Pruned};
pub use usage::{ImageUsage, Usage};

/// A layer's record vouches for its other files, so it goes first.
const FOLDERS: [&str; 7] = [
    "layers", "images", "index", "dirs", "tars", "packed", "blobs",
];
/// How many files go under one lock: some milliseconds of work, which whoever begins something waits for.
const BATCH_FILES: usize = 512;
/// Before each full batch, so that those who wait for the lock are given it.
const PAUSE: Duration = Duration::from_millis(1);

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, and directories of layers.
    pub files: u64,
    /// Bytes of the files on disk.
    pub bytes: u64,
}

impl Store {
    /// Removes what no reference, root, transaction or cached build step names, and unmounts what no root names.
    /// Safe beside anything else that uses the store. An image that cannot be read stops it, because
    /// what belongs to that image is unknown then.
    pub fn gc(&self) -> Result<Removed, Error> {
        self.gc_by(BATCH_FILES, &mut |is_full| {
            if is_full {
                thread::sleep(PAUSE);
            }
        })
    }

    /// As [`Store::gc`], by so many files at a time. Before each batch, holding no lock, it calls `pause` and says whether the batch
    /// is a full one.
    fn gc_by(&self, batch_files: usize, pause: &mut dyn FnMut(bool)) -> Result<Removed, Error> {
        self.drop_views()?;
        let _alone = Lock::acquire(&self.lock_path("collect"), Mode::Exclusive)?;
        // Taken before the lock, because taking it needs that lock; the trash goes when it is dropped, without the lock.
        let trash = match self.begin() {
            // The disk has no room for a folder, and is about to get some.
            Err(error) if error.is_full_disk() => None,
            other => Some(other?),
        };
        let trash = trash.as_ref().map(Transaction::scratch);
        let (announced, kept) = {
            let _gc = self.gc_lock(Mode::Exclusive)?;
            let announced = Announced::ask(self)?;
            (announced, self.kept(Own::Collector(trash))?)
        };
        let sweep = Sweep {
            store: self,
            kept,
            announced,
            trash,
            removed: Removed::default(),
            is_lent: identity::own().is_lent,
            batch_files,
            pause,
        };
        sweep.run()
    }

    /// As [`Store::gc`], and the builder's cache goes, too: the next build starts cold.
    pub fn gc_all(&self) -> Result<Removed, Error> {
        let cache = self.folder("cache");
        for entry in fs::read_dir(&cache).context("list", &cache)? {
            let path = entry.context("list", &cache)?.path();
            dirs::remove(&path).context("remove", &path)?;
        }
        self.gc()
    }

    /// Calls `each` for all that is in one of [`FOLDERS`], with the digest that it is named by.
    fn each_file(
        &self,
        folder: &str,
        mut each: impl FnMut(&fs::DirEntry, Option<Digest>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for algorithm in Algorithm::ALL {
            let path = self.folder(folder).join(algorithm.name());
            for entry in fs::read_dir(&path).context("list", &path)? {
                let entry = entry.context("list", &path)?;
                each(&entry, named(algorithm, &entry.file_name()))?;
            }
        }
        Ok(())
    }
}

/// The digest that a file of a folder is named by; `.dir` or `.owned` at its end says that it is a directory.
fn named(algorithm: Algorithm, name: &std::ffi::OsStr) -> Option<Digest> {
    let hex = name.to_str()?;
    let hex = hex.split_once('.').map_or(hex, |(hex, _)| hex);
    Digest::from_hex(algorithm, hex)
}

/// Whether a chain's corrections belong to subordinate ids.
fn is_owned(name: &std::ffi::OsStr) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == OWNED)
}

#[cfg(test)]
mod tests;
