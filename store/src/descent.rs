//! Going down into a tree of directories and up again, by descriptors, holding one at a time: however deep the tree,
//! and whoever renames directories meanwhile, nothing outside of it is reached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags, fstat, openat};
use rustix::path::Arg;

/// A place in a tree.
#[derive(Debug)]
pub(crate) struct Descent {
    here: OwnedFd,
    /// Device and inode of the directories above, the root first, to know them again on the way back.
    above: Vec<(u64, u64)>,
}

impl Descent {
    /// Starts at `root`.
    pub(crate) fn new(root: impl AsFd) -> io::Result<Descent> {
        Ok(Descent {
            here: open(root, c".")?,
            above: Vec::new(),
        })
    }

    /// The directory where we are.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Goes into directory `name`, following no link.
    pub(crate) fn enter(&mut self, name: impl Arg) -> io::Result<()> {
        let stat = fstat(&self.here)?;
        self.here = open(&self.here, name)?;
        self.above.push((stat.st_dev, stat.st_ino));
        Ok(())
    }

    /// Goes back to where [`Descent::enter`] was called, and fails if that is elsewhere now. At the root it stays.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let Some(identity) = self.above.pop() else {
            return Ok(());
        };
        let parent = open(&self.here, c"..")?;
        let stat = fstat(&parent)?;
        if (stat.st_dev, stat.st_ino) != identity {
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

fn open(parent: impl AsFd, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}
