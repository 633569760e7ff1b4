//! Holding a container is a value.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat};

use crate::Error;
use crate::error::At as _;

/// How long a lock is asked for again. [`is_held`] takes it for an instant to
/// look, and must not make a removal fail.
const BLINK: Duration = Duration::from_millis(200);

/// The right to change a container, and the duty to look after it.
///
/// The lock belongs to the open file, so it passes to a child that inherits
/// the descriptor, and dies with the last holder.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Takes the lock at `path`, making the file where it lacks. `None`: held by another.
    ///
    /// # Errors
    /// I/O errors; that the folder is gone is one.
    pub fn take(path: &Path) -> Result<Option<Self>, Error> {
        let file = open(path)?;
        let until = Instant::now() + BLINK;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if fstat(&file).at("inspect", path)?.st_nlink > 0 => {
                    return Ok(Some(Self(file.into())));
                }
                // Removed between open and flock: whoever removed it removed the container.
                Ok(()) => {
                    return Err(std::io::Error::from(std::io::ErrorKind::NotFound))
                        .at("lock", path);
                }
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(err) => return Err(err).at("lock", path),
            }
        }
    }

    /// The lock that the parent passed as standard input, if that is what it is.
    ///
    /// # Errors
    /// I/O errors.
    pub fn inherited(path: &Path) -> Result<Option<Self>, Error> {
        let stdin = rustix::stdio::stdin();
        let (theirs, ours) = (
            fstat(stdin).call("fstat")?,
            rustix::fs::stat(path).at("inspect", path)?,
        );
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
            return Ok(None);
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(stdin, 3).call("dup")?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(fd))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(err) => Err(err).at("lock", path),
        }
    }

    /// The lock as a child's standard input: see [`Lock::inherited`].
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn share(&self) -> Result<Stdio, Error> {
        Ok(Stdio::from(self.0.try_clone().call("dup")?))
    }

    /// The open lock file.
    #[must_use]
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether somebody looks after the container of this lock file.
///
/// # Errors
/// I/O errors.
pub fn is_held(path: &Path) -> Result<bool, Error> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(err) => Err(err).at("lock", path),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .at("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_looking_does_not_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path).unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        assert!(Lock::take(&path).unwrap().is_none());
        drop(held);
        assert!(!is_held(&path).unwrap());
        assert!(Lock::take(&path).unwrap().is_some());
    }

    #[test]
    fn a_child_keeps_the_lock_of_its_dead_parent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::take(&path).unwrap().unwrap();
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .stdin(lock.share().unwrap())
            .spawn()
            .unwrap();
        drop(lock);
        assert!(is_held(&path).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_held(&path).unwrap());
    }
}
