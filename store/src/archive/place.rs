//! Where a layout's files are: in a directory or in a tar.

use super::members::Members;
use crate::transfer::Error;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How often an open is repeated that a rename elsewhere on the host disturbed.
const OPEN_ATTEMPTS_MAX: usize = 128;

/// The files of a layout or an archive.
pub(crate) enum Place {
    Directory { descriptor: OwnedFd, path: PathBuf },
    Archive(Members),
}

impl Place {
    pub(crate) fn directory(path: &Path) -> Result<Self, Error> {
        let descriptor = openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Error::File {
            action: "open",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self::Directory {
            descriptor,
            path: path.to_owned(),
        })
    }

    /// Opens a file by its name in the layout.
    pub(crate) fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>, Error> {
        match self {
            Self::Archive(members) => Ok(Box::new(members.open(name)?)),
            Self::Directory { descriptor, path } => {
                let file = open_regular(descriptor, name).map_err(|source| Error::File {
                    action: "open",
                    path: path.join(name),
                    source,
                })?;
                Ok(Box::new(file))
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Archive(members) => members.has(name),
            Self::Directory { descriptor, .. } => open_regular(descriptor, name).is_ok(),
        }
    }

    /// A small file, whole.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open(name)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| crate::Error::Read {
                what: name.to_owned(),
                source,
            })?;
        if bytes.len() as u64 > limit {
            let size = bytes.len() as u64;
            return Err(crate::Error::TooLarge {
                what: name.to_owned(),
                size,
                max: limit,
            }
            .into());
        }
        Ok(bytes)
    }
}

/// Opens a regular file below `root`: no link on the way is followed, so it is
/// the layout's own, and a fifo or a device is not waited for (security.md, S19).
fn open_regular(root: &OwnedFd, name: &str) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(rustix::io::Errno::AGAIN);
    for _ in 0..OPEN_ATTEMPTS_MAX {
        result = openat2(root, name, flags, Mode::empty(), resolve);
        if result.as_ref().err() != Some(&rustix::io::Errno::AGAIN) {
            break;
        }
    }
    let file = match result {
        Err(rustix::io::Errno::LOOP) => {
            return Err(io::Error::other("it is a symbolic link, or behind one"));
        }
        other => File::from(other?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    // security.md, S19.
    #[test]
    fn only_regular_files_of_the_layout_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("layout");
        std::fs::create_dir_all(root.join("blobs")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("good"), "good").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        rustix::fs::mknodat(
            CWD,
            root.join("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let place = Place::directory(&root).unwrap();
        assert_eq!(place.read("good", 10).unwrap(), b"good");
        assert!(place.read("good", 3).is_err());
        for name in [
            "link",
            "up/secret",
            "fifo",
            "blobs",
            "../secret",
            "/etc/hostname",
            "nosuch",
        ] {
            assert!(place.open(name).is_err(), "{name}");
        }
    }
}
