//! The directory with all containers (`--root`).

use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::dir::{Locked, StateDir, not_there};
use crate::error::Error;
use crate::id::ContainerId;

/// The directory with all containers.
#[derive(Debug)]
pub(crate) struct Root {
    pub(super) path: PathBuf,
}

impl Root {
    /// The directory of `--root`; it need not exist.
    pub(crate) fn new(path: PathBuf) -> Root {
        Root { path }
    }

    /// Where the directory of a container is, or will be.
    pub(crate) fn place(&self, id: &ContainerId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Makes the directory of a new container and takes its lock. On a crash
    /// before the first [`Locked::save`] an empty directory is left, which
    /// `delete --force` removes.
    pub(crate) fn create(&self, id: &ContainerId) -> Result<Locked, Error> {
        let path = self.path.join(id.as_str());
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdir(&path, mode) {
            Err(Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                let made = std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.path);
                made.map_err(Error::on("create", &self.path))?;
                rustix::fs::mkdir(&path, mode)
            }
            result => result,
        }
        .map_err(|errno| match errno {
            Errno::EXIST => Error::State("container with given ID already exists".into()),
            errno => Error::on("create", &path)(errno),
        })?;
        self.open(id)?.lock()
    }

    /// Opens the directory of a container.
    pub(crate) fn open(&self, id: &ContainerId) -> Result<StateDir, Error> {
        let path = self.path.join(id.as_str());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => not_there(),
            errno => Error::on("open", &path)(errno),
        })?;
        Ok(StateDir {
            id: id.clone(),
            path,
            fd,
        })
    }

    /// Fails where the directory of all containers is not there: one that was
    /// named wrongly, or in which nothing was ever created.
    pub(crate) fn check(&self) -> Result<(), Error> {
        std::fs::metadata(&self.path)
            .map(drop)
            .map_err(Error::on("open", &self.path))
    }

    /// The ids of all containers, sorted. A missing directory holds none.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(Error::on("read", &self.path))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::on("read", &self.path))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort_by(|a: &ContainerId, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }
}
