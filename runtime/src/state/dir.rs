//! The directory of one container: read without its lock, changed only with it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::seal::{format_init, is_whole, parse_init, sealed};
use super::{Phase, STATE, STATE_BYTES_MAX, State, VERSION};
use crate::container::service::notify;
use crate::error::Error;
use crate::id::ContainerId;

/// Pause between two tries to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Name of the link that names init.
const INIT: &str = "init";

/// The directory of one container, opened. Reading needs no lock.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(super) id: ContainerId,
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
}

/// The same directory with its lock held: the only way to change the state.
/// The lock ends with the value.
#[derive(Debug)]
pub(crate) struct Locked {
    dir: StateDir,
}

pub(super) fn not_there() -> Error {
    Error::State("container does not exist".into())
}

impl StateDir {
    /// Reads the state and the facts added to it.
    pub(crate) fn load(&self) -> Result<State, Error> {
        let path = self.path.join(STATE);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd =
            rustix::fs::openat(&self.fd, STATE, flags, Mode::empty()).map_err(
                |errno| match errno {
                    Errno::NOENT => not_there(),
                    errno => Error::on("open", &path)(errno),
                },
            )?;
        let text = crate::file::read_open(File::from(fd), STATE_BYTES_MAX)
            .map_err(Error::on("read", &path))?;
        if !is_whole(&text) {
            return Err(Error::on("read", &path)(crate::file::damaged()));
        }
        let mut state: State = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        if state.version != VERSION || state.id != self.id.as_str() {
            return Err(Error::State(format!(
                "{path:?} is not a state of container {} that this version can read",
                self.id
            )));
        }
        self.add_facts(&mut state)?;
        Ok(state)
    }

    /// Pid and start time of init, where it is named already.
    pub(crate) fn init(&self) -> Result<Option<(i32, u64)>, Error> {
        let path = || self.path.join(INIT);
        let link = match rustix::fs::readlinkat(&self.fd, INIT, Vec::new()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(Error::on("read", path()))?,
        };
        let named = link.to_str().ok().and_then(parse_init);
        let damaged = || Error::on("read", path())(crate::file::damaged());
        named.map(Some).ok_or_else(damaged)
    }

    fn add_facts(&self, state: &mut State) -> Result<(), Error> {
        let Some((pid, start_ticks)) = self.init()? else {
            return Ok(());
        };
        (state.pid, state.start_ticks) = (pid, start_ticks);
        for phase in [Phase::Running, Phase::Created] {
            let there =
                |name| rustix::fs::accessat(&self.fd, name, Access::EXISTS, AtFlags::empty());
            if phase.fact().is_some_and(|name| there(name).is_ok()) {
                state.phase = phase;
                break;
            }
        }
        Ok(())
    }

    /// The same, but gives up after a time: whoever holds it may be stopped.
    pub(crate) fn lock_within(self, limit: Duration) -> Result<Locked, Error> {
        let end = Instant::now() + limit;
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return self.locked(),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(errno) => return Err(Error::on("lock", &self.path)(errno)),
            }
        }
    }

    /// Takes the lock and makes sure that the directory was not removed
    /// meanwhile (`flock(2)`; a removed directory has no links).
    pub(crate) fn lock(self) -> Result<Locked, Error> {
        rustix::io::retry_on_intr(|| rustix::fs::flock(&self.fd, FlockOperation::LockExclusive))
            .map_err(Error::on("lock", &self.path))?;
        self.locked()
    }

    fn locked(self) -> Result<Locked, Error> {
        let stat = rustix::fs::fstat(&self.fd).map_err(Error::on("stat", &self.path))?;
        if stat.st_nlink == 0 {
            return Err(not_there());
        }
        Ok(Locked { dir: self })
    }
}

impl StateDir {
    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Locked {
    /// The directory, for reading.
    pub(crate) fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// Replaces the state: readers see the old or the new one.
    pub(crate) fn save(&mut self, state: &State) -> Result<(), Error> {
        let text = serde_json::to_vec(state).map_err(|source| Error::Json {
            path: STATE.into(),
            source,
        })?;
        crate::file::replace(&self.dir.fd, STATE, &sealed(&text))
            .map_err(Error::on("write", self.dir.path.join(STATE)))
    }

    /// Adds the fact which process init is. One system call: there or not.
    pub(crate) fn name_init(&mut self, pid: i32, start_ticks: u64) -> Result<(), Error> {
        rustix::fs::symlinkat(format_init(pid, start_ticks), &self.dir.fd, INIT)
            .map_err(Error::on("write", self.dir.path.join(INIT)))
    }

    /// Adds the fact that the container has come so far.
    pub(crate) fn reached(&mut self, phase: Phase) -> Result<(), Error> {
        let Some(name) = phase.fact() else {
            return Ok(());
        };
        let mode = Mode::from_raw_mode(0o600);
        match rustix::fs::mknodat(&self.dir.fd, name, FileType::RegularFile, mode, 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::on("write", self.dir.path.join(name))(errno)),
        }
    }

    /// Removes one file, or one empty directory; its absence is no error.
    pub(crate) fn remove_file(&mut self, name: &str) -> Result<(), Error> {
        let removed = match rustix::fs::unlinkat(&self.dir.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&self.dir.fd, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::on("remove", self.dir.path.join(name))(errno)),
        }
    }

    /// Forgets the container: the state last, so that a crash on the way
    /// leaves what a further `delete` needs.
    pub(crate) fn remove(mut self) -> Result<(), Error> {
        let entries =
            rustix::fs::Dir::read_from(&self.dir.fd).map_err(Error::on("read", &self.dir.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::on("read", &self.dir.path))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != ".." && name != STATE);
        for name in &names {
            if name == notify::FOLDER {
                notify::remove_folder(&self)?;
            } else {
                self.remove_file(name)?;
            }
        }
        self.remove_file(STATE)?;
        match rustix::fs::unlinkat(CWD, &self.dir.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::on("remove", &self.dir.path)(errno)),
        }
    }
}
