//! The fifos between a client and its container. `fifo(7)`.
//!
//! The client may die and come back, and what it has not read then is kept: so
//! the shim holds both ends of each fifo. A write never meets a fifo without
//! readers (no signal, no error, the container waits), a read never meets the
//! end of file before the client has asked for it.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};

/// Opens a fifo of a client, both ends.
///
/// # Errors
/// What the kernel says; `InvalidInput` where it is no fifo.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    if is_fifo(&fd)? {
        return Ok(fd);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a fifo"))
}

/// Whether the file there is a fifo.
///
/// # Errors
/// What the kernel says.
pub(super) fn is_fifo_at(path: &Path) -> io::Result<bool> {
    let stat = rustix::fs::stat(path)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn is_fifo(fd: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// The reading end alone of an open fifo: it ends when the client's writing end is closed.
///
/// # Errors
/// What the kernel says.
pub(super) fn reader_of(fd: &OwnedFd) -> io::Result<OwnedFd> {
    reopen(fd, OFlags::RDONLY)
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Output that is complete, but that nobody has read yet and nobody is there to
/// read: it would be lost if the fifo were closed.
#[derive(Debug)]
pub(super) struct Unread(OwnedFd);

impl Unread {
    /// Closes a fifo whose output is complete, unless something would be lost.
    pub(super) fn close(fd: OwnedFd) -> Option<Self> {
        let empty = rustix::io::ioctl_fionread(&fd).is_ok_and(|bytes| bytes == 0);
        if empty || !is_fifo(&fd).ok()? {
            return None;
        }
        // Without an own reading end it shows whether there are others.
        let writer = reopen(&fd, OFlags::WRONLY).ok()?;
        drop(fd);
        let unread = Self(writer);
        (!unread.has_reader()).then_some(unread)
    }

    /// Whether somebody is there to read by now; then it can be dropped.
    pub(super) fn has_reader(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let polled = poll(&mut fds, Some(&at_once));
        polled.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }
}

/// Whether a read would not have to wait.
pub(super) fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}
