//! A directory tree that paths cannot leave.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::mount::PROC_SUPER_MAGIC;

/// How often a lookup is repeated that a rename somewhere on the host has
/// disturbed (EAGAIN, `openat2(2)`). One repetition nearly always does.
const LOOKUP_ATTEMPTS_MAX: u32 = 128;

/// Symbolic links followed while a missing mount point is made; the kernel's
/// own limit (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;

/// What a missing mount point is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stub {
    /// An empty directory.
    Directory,
    /// An empty file.
    File,
}

/// The root of a container, by descriptor.
#[derive(Debug)]
pub(crate) struct RootDir(pub OwnedFd);

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RootDir {
    /// Opens `path` as the container sees it; a last symlink is followed, and
    /// no link leaves the root. `openat2(2)`, Linux 5.6.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.resolve(
            path,
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// The same, but any symbolic link on the way is ELOOP.
    pub(crate) fn open_without_links(
        &self,
        path: &Path,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        self.resolve(
            path,
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn resolve(
        &self,
        path: &Path,
        flags: OFlags,
        how: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let mut attempts = 0;
        loop {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) if attempts < LOOKUP_ATTEMPTS_MAX => attempts += 1,
                result => return result,
            }
        }
    }

    /// The directory that holds `path`, with the last name; makes what is missing.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(parent, flags) {
            Ok(directory) => Ok((directory, name)),
            Err(Errno::NOENT) => Ok((self.create(parent, Stub::Directory)?, name)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens `path` and makes what is missing of it, following links inside
    /// the root, dangling ones too. Only `mkdirat(2)`, `openat(2)` on single
    /// names: no lookup can be led out of the root.
    pub(crate) fn create(&self, path: &Path, stub: Stub) -> io::Result<OwnedFd> {
        let mut walk = Walk {
            root: self,
            above: Vec::new(),
            pending: Vec::new(),
            links: 0,
        };
        walk.push(path);
        while let Some(name) = walk.pending.pop() {
            walk.step(&name, stub)?;
        }
        match walk.above.pop() {
            Some(last) => Ok(last),
            None => Ok(self.0.try_clone()?),
        }
    }
}

/// A path being walked: names still to come (last first) and the opened
/// directories above, whose end is where we are.
struct Walk<'a> {
    root: &'a RootDir,
    above: Vec<OwnedFd>,
    pending: Vec<OsString>,
    links: u32,
}

impl Walk<'_> {
    fn push(&mut self, path: &Path) {
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => self.pending.push(name.to_owned()),
                Component::ParentDir => self.pending.push("..".into()),
                // Always the last of a reversed path, so first to be taken.
                Component::RootDir => self.pending.push("/".into()),
                Component::CurDir | Component::Prefix(_) => (),
            }
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.above.last().map_or(self.root.as_fd(), |fd| fd.as_fd())
    }

    fn step(&mut self, name: &OsStr, stub: Stub) -> io::Result<()> {
        match name.as_bytes() {
            b"/" => self.above.clear(),
            b".." if is_directory(self.here())? => drop(self.above.pop()),
            b".." => return Err(Errno::NOTDIR.into()),
            _ => {
                let next = match self.look(name) {
                    Err(Errno::NOENT) => self.make(name, stub)?,
                    other => other?,
                };
                self.enter(name, next)?;
            }
        }
        Ok(())
    }

    fn look(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.here(), name, flags, Mode::empty())
    }

    fn make(&self, name: &OsStr, stub: Stub) -> io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o755);
        if self.pending.is_empty() && stub == Stub::File {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            drop(rustix::fs::openat(self.here(), name, flags, mode)?);
        } else {
            match rustix::fs::mkdirat(self.here(), name, mode) {
                Ok(()) | Err(Errno::EXIST) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.look(name)?)
    }

    fn enter(&mut self, name: &OsStr, next: OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            self.above.push(next);
            return Ok(());
        }
        self.links += 1;
        // In procfs nothing can be made, and a link there may be magic: what it
        // says as text is not where it leads.
        let on_procfs = rustix::fs::fstatfs(&next)?.f_type as u64 == PROC_SUPER_MAGIC;
        if self.links > LINKS_MAX || on_procfs {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(self.here(), name, Vec::new())?;
        self.push(Path::new(&OsString::from_vec(target.into_bytes())));
        Ok(())
    }
}

/// Whether the file behind a descriptor is a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Mode, owner and device of the file behind a descriptor.
pub(crate) fn stat(fd: impl AsFd) -> rustix::io::Result<rustix::fs::Stat> {
    rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> (std::path::PathBuf, RootDir) {
        let path = std::env::temp_dir().join(format!("teu-runtime-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("root")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.join("root"), flags, Mode::empty()).unwrap();
        (path, RootDir(root))
    }

    #[test]
    fn a_missing_path_is_made() {
        let (path, root) = scratch("made");
        root.create(Path::new("/a/b/c"), Stub::File).unwrap();
        assert!(path.join("root/a/b/c").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn links_stay_inside() {
        let (path, root) = scratch("links");
        std::os::unix::fs::symlink("../../../../outside", path.join("root/up")).unwrap();
        std::os::unix::fs::symlink("/abs/olute", path.join("root/down")).unwrap();
        root.create(Path::new("/up/x"), Stub::Directory).unwrap();
        root.create(Path::new("/down"), Stub::File).unwrap();
        assert!(path.join("root/outside/x").is_dir());
        assert!(path.join("root/abs/olute").is_file());
        assert!(!path.join("outside").exists());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (path, root) = scratch("circle");
        std::os::unix::fs::symlink("b", path.join("root/a")).unwrap();
        std::os::unix::fs::symlink("a", path.join("root/b")).unwrap();
        let err = root.create(Path::new("/a/x"), Stub::Directory).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::ELOOP));
        std::fs::remove_dir_all(path).unwrap();
    }
}
