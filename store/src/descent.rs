//! Going down into a tree of directories and up again, by descriptors, holding one at a time: however deep the tree,
//! and whoever renames directories meanwhile, nothing outside of it is reached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags, chmod, fchmod, fstat, openat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::geteuid;

use crate::identity;

/// A place in a tree.
#[derive(Debug)]
pub(crate) struct Descent {
    here: OwnedFd,
    /// The mode to give back to the directory where we are: who is not root may not even go into some of its own.
    mode: Option<Mode>,
    /// The directories above, the root first.
    above: Vec<Above>,
}

/// A directory to go back to.
#[derive(Debug)]
struct Above {
    /// Device and inode, to know it again.
    identity: (u64, u64),
    mode: Option<Mode>,
}

impl Descent {
    /// Starts at `root`.
    pub(crate) fn new(root: impl AsFd) -> io::Result<Descent> {
        let here = open(root, c".")?;
        let mode = open_up(&here)?;
        Ok(Descent {
            here,
            mode,
            above: Vec::new(),
        })
    }

    /// The directory where we are.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Goes into directory `name`, following no link.
    pub(crate) fn enter(&mut self, name: impl Arg + Copy) -> io::Result<()> {
        let stat = fstat(&self.here)?;
        let below = open(&self.here, name)?;
        let mode = open_up(&below)?;
        self.here = below;
        self.above.push(Above {
            identity: (stat.st_dev, stat.st_ino),
            mode: std::mem::replace(&mut self.mode, mode),
        });
        Ok(())
    }

    /// Goes back to where [`Descent::enter`] was called, and fails if that is elsewhere now. At the root it stays.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let Some(above) = self.above.pop() else {
            return Ok(());
        };
        let parent = open(&self.here, c"..")?;
        if let Some(mode) = self.mode {
            fchmod(&self.here, mode)?;
        }
        self.mode = above.mode;
        let stat = fstat(&parent)?;
        if (stat.st_dev, stat.st_ino) != above.identity {
            return Err(io::Error::other("somebody moved it meanwhile"));
        }
        self.here = parent;
        Ok(())
    }

    /// The names in the directory where we are, sorted by their bytes.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Drop for Descent {
    fn drop(&mut self) {
        if let Some(mode) = self.mode {
            // A mode that could not be given back is found as a change.
            let _ = fchmod(&self.here, mode);
        }
    }
}

/// Lets who is not root list a directory of its own and go on from there; the mode to give back.
fn open_up(directory: &OwnedFd) -> io::Result<Option<Mode>> {
    if identity::own().is_root {
        return Ok(None);
    }
    let stat = fstat(directory)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if mode.contains(Mode::RUSR | Mode::XUSR) || stat.st_uid != geteuid().as_raw() {
        return Ok(None);
    }
    fchmod(directory, mode | Mode::RWXU)?;
    Ok(Some(mode))
}

fn open(parent: impl AsFd, name: impl Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_own(parent, name, flags)
}

/// Opens what may be unreadable though it is our own: who is not root needs the permission, and gives it for a moment.
pub(crate) fn open_own(
    parent: impl AsFd,
    name: impl Arg + Copy,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) if !identity::own().is_root => {}
        other => return Ok(other?),
    }
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = openat(&parent, name, path, Mode::empty())?;
    let mode = Mode::from_raw_mode(fstat(&handle)?.st_mode & 0o7777);
    // A descriptor of the path alone has no other way to its file's mode (open(2), O_PATH).
    let file = format!("/proc/self/fd/{}", handle.as_raw_fd());
    chmod(&file, mode | Mode::RWXU)?;
    let opened = openat(&parent, name, flags, Mode::empty());
    chmod(&file, mode)?;
    Ok(opened?)
}
