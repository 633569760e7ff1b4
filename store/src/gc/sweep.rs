//! Removing, a batch at a time: each under the lock, with what was announced since the one before. Between batches
//! everybody else has the lock; killed there, the next collector goes on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;

use super::announced::Announced;
use super::kept::Kept;
use super::{FOLDERS, Removed, is_owned, named};
use crate::digest::{Algorithm, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::lock::Mode;
use crate::store::{self, OWNED, Store};

/// Of a file larger than this, in bytes, the room is given back without the lock: that takes longer than its name.
const LARGE_BYTES: u64 = 1024 * 1024;

/// A collector that has marked.
pub(super) struct Sweep<'s> {
    pub(super) store: &'s Store,
    pub(super) kept: Kept,
    pub(super) announced: Announced,
    /// Directories go here, and from here when nobody is kept waiting; where there is no room for it, at once.
    pub(super) trash: Option<&'s Path>,
    pub(super) removed: Removed,
    /// Whether files of subordinate ids are within reach.
    pub(super) is_lent: bool,
    /// How many files go under one lock.
    pub(super) batch_files: usize,
    /// Called before that lock is taken, with whether they are that many.
    pub(super) pause: &'s mut dyn FnMut(bool),
}

/// A file, and the digest that it is named by.
type Candidate = (PathBuf, Option<Digest>);

impl Sweep<'_> {
    /// Removes what is not kept, in the order of [`FOLDERS`].
    pub(super) fn run(mut self) -> Result<Removed, Error> {
        // Only within a namespace that has their ids can these be removed, too.
        for folder in FOLDERS.iter().chain(self.is_lent.then_some(&OWNED)) {
            for algorithm in Algorithm::ALL {
                self.folder(algorithm, &self.store.folder(folder).join(algorithm.name()))?;
            }
        }
        Ok(self.removed)
    }

    fn folder(&mut self, algorithm: Algorithm, folder: &Path) -> Result<(), Error> {
        let mut batch = Vec::new();
        for entry in fs::read_dir(folder).context("list", folder)? {
            let entry = entry.context("list", folder)?;
            let name = entry.file_name();
            let digest = named(algorithm, &name);
            if self.is_kept(digest.as_ref()) || !self.is_lent && is_owned(&name) {
                continue;
            }
            batch.push((entry.path(), digest));
            if batch.len() == self.batch_files {
                self.discard(std::mem::take(&mut batch))?;
            }
        }
        self.discard(batch)
    }

    fn is_kept(&self, digest: Option<&Digest>) -> bool {
        digest.is_some_and(|digest| self.kept.contains(digest))
    }

    /// Removes those of `batch` that nobody has asked for meanwhile.
    fn discard(&mut self, batch: Vec<Candidate>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        (self.pause)(batch.len() == self.batch_files);
        let mut large = Vec::new();
        {
            let _gc = self.store.gc_lock(Mode::Exclusive)?;
            for digest in self.announced.news()? {
                // What a transaction has only begun to fetch cannot be read yet; it announces the rest itself.
                let _ = self.store.keep_all_of(&digest, &mut self.kept);
            }
            for (path, digest) in batch {
                if !self.is_kept(digest.as_ref()) {
                    large.extend(self.remove(&path)?);
                }
            }
        }
        // The last descriptor of what has no name any more gives its room back.
        drop(large);
        Ok(())
    }

    /// Takes the name of a file away, and hands back the file if it is large; moves a directory to the trash.
    fn remove(&mut self, path: &Path) -> Result<Option<File>, Error> {
        let metadata = match fs::symlink_metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context("stat", path)?,
        };
        self.removed.files += 1;
        if metadata.is_dir() {
            let Some(trash) = self.trash else {
                return dirs::remove(path).map(|()| None).context("remove", path);
            };
            let target = trash.join(store::unique_name("trash")?);
            return store::rename_directory(path, &target, RenameFlags::empty())
                .map(|()| None)
                .context("move away", path);
        }
        // A tar that is a blob, too, gives its space back only with its last name.
        if metadata.nlink() == 1 {
            self.removed.bytes += metadata.len();
        }
        let large = metadata.is_file() && metadata.len() > LARGE_BYTES;
        let file = large.then(|| File::open(path).ok()).flatten();
        fs::remove_file(path).context("remove", path)?;
        Ok(file)
    }
}
