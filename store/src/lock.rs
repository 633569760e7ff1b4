//! Locks: `flock(2)` on files below `lock/` and `tmp/`. They die with their process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Context, Error};

/// A lock that is held; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock at `path`, making the file where there is none.
    pub(crate) fn acquire(path: &Path, mode: Mode) -> Result<Lock, Error> {
        let file = open(path)?;
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::LockExclusive,
        };
        retry_on_intr(|| flock(&file, operation)).context("lock", path)?;
        Ok(Lock { _file: file })
    }

    /// Takes the lock at `path` for this process alone, making the file where there is none; `None` where another one
    /// holds it, or has removed the file meanwhile.
    pub(crate) fn try_or_make(path: &Path) -> Result<Option<Lock>, Error> {
        let file = open(path)?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            // Who held it removed it while it was opened here: the next one makes, and locks, another file.
            Ok(()) if !is_at(&file, path) => Ok(None),
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).context("lock", path),
        }
    }

    /// Takes the lock at `path`, whose file must be there, for this process alone; `None` where another one holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .context("open", path)?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).context("lock", path),
        }
    }
}

/// Whether `path` names this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .context("open", path)
}
