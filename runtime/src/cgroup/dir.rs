//! One cgroup as an open directory: its files are reached through it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::Error;

/// The most bytes read of one file of the kernel's. `cgroup.procs` of a
/// container with the most processes a kernel can hold (4,194,304) is 32 MiB.
const FILE_BYTES_MAX: usize = 32 << 20;

/// A cgroup in one hierarchy.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    names: Vec<String>,
}

impl Dir {
    /// Opens the cgroup at `path`; `names` are its controllers.
    pub(crate) fn open(path: &Path, names: &[&str]) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = openat(CWD, path, flags, Mode::empty())?;
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Ok(Self {
            fd,
            path: path.to_owned(),
            names,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the hierarchy of `controller`, `""` for cgroup2.
    pub(crate) fn serves(&self, controller: &str) -> bool {
        self.names.iter().any(|name| name == controller)
    }

    /// What `file` holds.
    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        self.try_read(file).map_err(|source| Error::Read {
            path: self.path.join(file),
            source,
        })
    }

    /// What `file` holds, where its absence is an answer too.
    pub(crate) fn try_read(&self, file: &str) -> Result<String, Errno> {
        read_all(&openat(
            &self.fd,
            file,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?)
    }

    /// Writes `value` to `file`, in one call, as the kernel wants it.
    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        self.try_write(file, value)
            .map_err(|source| self.refused(file, value, source))
    }

    /// Writes, and leaves it to the caller what a refusal means.
    pub(crate) fn try_write(&self, file: &str, value: &str) -> Result<(), Errno> {
        write_all(&self.open_to_write(file)?, value)
    }

    /// Opens `file` for several writes.
    pub(crate) fn open_to_write(&self, file: &str) -> Result<OwnedFd, Errno> {
        openat(
            &self.fd,
            file,
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
    }

    /// The error of a refused write.
    pub(crate) fn refused(&self, file: &str, value: &str, source: Errno) -> Error {
        Error::Write {
            path: self.path.join(file),
            value: value.trim_end().to_owned(),
            source,
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One write is one value to the kernel; a part of it would be another.
pub(crate) fn write_all(fd: impl AsFd, value: &str) -> Result<(), Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()))? {
        n if n == value.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// Reads a small file of procfs or cgroupfs by its path.
pub(crate) fn read_path(path: &Path) -> Result<String, Error> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| read_all(&fd))
        .map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })
}

/// Reads to the end of file.
pub(crate) fn read_all(fd: impl AsFd) -> Result<String, Errno> {
    /// Enough for most files of a cgroup, and what the kernel gives in one go.
    const CHUNK_BYTES: usize = 4096;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    loop {
        bytes.reserve(CHUNK_BYTES);
        let got = rustix::io::retry_on_intr(|| {
            rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes))
        })?;
        if got == 0 {
            // Names in these files may be any bytes; numbers and keywords are all we look for.
            return Ok(String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()));
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
    }
}
