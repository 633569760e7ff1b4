//! Removes a tree, however deep, holding two descriptors at a time and following no link
//! (security.md, S28; CVE-2022-21658).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, openat, unlinkat};
use rustix::io::Errno;

use crate::descent::open_own;

/// Removes what is at `path`: a directory with all that is in it, or a file. That nothing is there is fine.
/// Killed on its way, calling it again finishes the work.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    empty(enter(CWD, path)?)?;
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What is to be done in one directory.
struct Level {
    /// Sub-directories that are still there.
    directories: Vec<Box<std::ffi::CStr>>,
    /// Device and inode, to know it again on the way back.
    identity: (u64, u64),
}

fn empty(root: OwnedFd) -> io::Result<()> {
    let mut here = root;
    let mut levels = vec![sweep(here.as_fd())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.directories.last() {
            here = enter(here.as_fd(), name.as_ref())?;
            levels.push(sweep(here.as_fd())?);
            continue;
        }
        levels.pop();
        if let Some(parent) = levels.last_mut() {
            let up = openat(
                &here,
                c"..",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let stat = fstat(&up)?;
            if (stat.st_dev, stat.st_ino) != parent.identity {
                return Err(io::Error::other(
                    "somebody moved a directory that is being removed",
                ));
            }
            here = up;
            if let Some(name) = parent.directories.pop() {
                unlinkat(&here, &*name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

fn enter(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_own(parent, name, flags)
}

/// Removes all that is no directory.
fn sweep(directory: BorrowedFd<'_>) -> io::Result<Level> {
    let stat = fstat(directory)?;
    // Whoever is not root needs the permission to write in it.
    if stat.st_mode & 0o700 != 0o700 {
        fchmod(directory, Mode::RWXU)?;
    }
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = entry.file_type() == FileType::Directory;
        match if is_directory {
            Err(Errno::ISDIR)
        } else {
            unlinkat(directory, name, AtFlags::empty())
        } {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => directories.push(name.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Level {
        directories,
        identity: (stat.st_dev, stat.st_ino),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_trees_and_links_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "x").unwrap();
        let mut here = rustix::fs::open(
            dir.path(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = enter(&here, "d").unwrap();
            rustix::fs::symlinkat(&outside, &here, "link").unwrap();
        }
        remove(&dir.path().join("d")).unwrap();
        remove(&dir.path().join("d")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
