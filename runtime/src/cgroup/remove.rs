//! The end of a container's cgroups.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::io::Errno;

use super::procs::children;
use super::{Error, Paths};

/// How long killed processes may take to leave, in milliseconds. Freeing the
/// memory of a large one takes a part of a second.
const EBUSY_MS_MAX: u64 = 5_000;
/// The longest pause between two tries, in milliseconds; the first is a quarter.
const PAUSE_MS_MAX: u64 = 16;

/// Removes the container's cgroups and those below them, in every hierarchy.
/// All are tried; the first error is returned. Those already gone are no error.
pub(crate) fn remove(paths: &Paths) -> Result<(), Error> {
    let mut first = Ok(());
    for (path, _) in paths.directories() {
        let removed = tree(path);
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// Removes one cgroup and those below it.
pub(super) fn tree(path: &Path) -> Result<(), Error> {
    let end = Instant::now() + Duration::from_millis(EBUSY_MS_MAX);
    let mut pause = Duration::from_micros(250);
    loop {
        match rmdir(path) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < end => {}
            Err(source) => {
                return Err(Error::Remove {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        let inner = children(path)?;
        if inner.is_empty() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
        }
        inner.iter().try_for_each(|child| tree(child))?;
    }
}

fn rmdir(path: &Path) -> Result<(), Errno> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
