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
/// How long, in milliseconds, where nobody should be in it: a child that was
/// born into it, and ends because its maker has, needs a moment to leave.
const UNUSED_MS_MAX: u64 = 200;
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

/// The same for a container that never had a process. A cgroup that is in use
/// is another's, which stood where this one was going to be: it stays as it is.
pub(crate) fn remove_unused(paths: &Paths) -> Result<(), Error> {
    for (path, _) in paths.directories() {
        let mut patience = Patience::new(UNUSED_MS_MAX);
        loop {
            match rmdir(path) {
                Err(Errno::BUSY) if patience.lasts() => patience.pause(),
                Ok(()) | Err(Errno::BUSY) => break,
                Err(source) => return Err(failed(path, source)),
            }
        }
    }
    Ok(())
}

/// Removes one cgroup and those below it.
pub(super) fn tree(path: &Path) -> Result<(), Error> {
    let mut patience = Patience::new(EBUSY_MS_MAX);
    loop {
        match rmdir(path) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if patience.lasts() => {}
            Err(source) => return Err(failed(path, source)),
        }
        let inner = children(path)?;
        if inner.is_empty() {
            patience.pause();
        }
        inner.iter().try_for_each(|child| tree(child))?;
    }
}

/// How long to wait for dying processes to leave, in pauses that grow.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new(millis: u64) -> Self {
        Self {
            end: Instant::now() + Duration::from_millis(millis),
            pause: Duration::from_micros(250),
        }
    }

    fn lasts(&self) -> bool {
        Instant::now() < self.end
    }

    fn pause(&mut self) {
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
    }
}

fn failed(path: &Path, source: Errno) -> Error {
    Error::Remove {
        path: path.to_owned(),
        source,
    }
}

fn rmdir(path: &Path) -> Result<(), Errno> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
