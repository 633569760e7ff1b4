//! A hold on a living container: through its supervisor, or, where that died,
//! on the process itself.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::container::status::{Process, State, Status, observe};
use crate::container::{Exit, Folder, Lock, Place, exit};
use crate::error::At as _;
use crate::runtime::Runtime;
use crate::supervisor::event_loop::wait_of_raw;
use crate::supervisor::machine::{Answer, Wait};
use crate::supervisor::protocol::{MESSAGE_BYTES_MAX, Request, decode};
use crate::supervisor::socket;
use crate::{Error, clock, network, sys};

/// A connection to a supervisor.
pub(super) struct Connection {
    name: String,
    pub(super) fd: OwnedFd,
}

impl Connection {
    pub(super) fn open(folder: &Folder, name: &str) -> Result<Self, Error> {
        let fd =
            socket::connect_to(&folder.path, "ctl").at("connect to", &folder.path.join("ctl"))?;
        Ok(Self {
            name: name.to_owned(),
            fd,
        })
    }

    fn died(&self) -> Error {
        Error::SupervisorDied {
            name: self.name.clone(),
        }
    }

    /// Sends a request.
    pub(super) fn send(&self, request: Request) -> Result<(), Error> {
        match send(&self.fd, request.encode().as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.died()),
        }
    }

    /// The next answer; `None` at the end of the connection.
    pub(super) fn next(&self) -> Result<Option<Answer>, Error> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        loop {
            match recv(&self.fd, &mut message[..], RecvFlags::empty()) {
                Ok((0, _)) => return Ok(None),
                Ok((n, _)) => return Ok(decode(&message[..n])),
                // A reset (it left a request unread) is said once, before what it had sent.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(err) => return Err(err).call("recv"),
            }
        }
    }

    /// Sends a request that is answered at once.
    pub(super) fn ask(&self, request: Request) -> Result<Answer, Error> {
        self.send(request)?;
        self.next()?.ok_or_else(|| self.died())
    }

    /// Waits until the supervisor has done everything.
    pub(super) fn wait_for_end(&self) {
        while matches!(self.next(), Ok(Some(_))) {}
    }
}

/// How long a state may last that passes by itself.
const PASSING_LIMIT: Duration = Duration::from_secs(2);
/// How long a runtime may take to start a program whose supervisor died.
const START_LIMIT: Duration = Duration::from_millis(500);
/// How often it is looked whether it has passed.
const PASSING_LOOK: Duration = Duration::from_millis(5);

/// Whom to talk to about a living container.
pub(super) enum Handle {
    /// Its supervisor.
    Supervised(Connection),
    /// Its first process: nobody else is there.
    Orphan(OwnedFd),
}

/// How a container ended, for who waited.
#[derive(Debug)]
pub(super) enum Ended {
    /// It has ended.
    Yes(Exit),
    /// It has not, within the time.
    NotYet,
}

impl Handle {
    /// A hold on the container, `None` if nothing of it runs. One that is being made, or
    /// whose supervisor is on its way out, is waited for, though not for long.
    fn open(place: &Place, folder: &Folder, name: &str) -> Result<Option<Self>, Error> {
        let until = Instant::now() + PASSING_LIMIT;
        loop {
            let passing = match observe(folder)? {
                Status::Running | Status::Created => match Connection::open(folder, name) {
                    Ok(connection) => return Ok(Some(Self::Supervised(connection))),
                    // It ends at this moment, or was killed: its sockets go before its lock.
                    Err(err) => err,
                },
                Status::Unsupervised(process) => {
                    return Ok(if was_never_started(place, folder)? {
                        None
                    } else {
                        Self::orphan(&process)
                    });
                }
                Status::Creating => Error::State {
                    name: name.to_owned(),
                    state: "being created".to_owned(),
                    hint: "; try again in a moment",
                },
                Status::Exited(_) | Status::Lost => return Ok(None),
            };
            if Instant::now() > until {
                return Err(passing);
            }
            std::thread::sleep(PASSING_LOOK);
        }
    }

    /// Does something by such a hold; by another, where the supervisor dies meanwhile.
    /// `None` if nothing of the container runs.
    pub(super) fn with<T>(
        place: &Place,
        folder: &Folder,
        name: &str,
        mut action: impl FnMut(&Self) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        loop {
            let Some(handle) = Self::open(place, folder, name)? else {
                return Ok(None);
            };
            match action(&handle) {
                // At most once: who comes next finds the process itself.
                Err(Error::SupervisorDied { .. }) => {}
                result => return result.map(Some),
            }
        }
    }

    /// The pidfd is that of the process that was meant only if that still lives after it was opened.
    fn orphan(process: &Process) -> Option<Self> {
        let pidfd = pidfd_open(process.as_pid()?, PidfdFlags::empty()).ok()?;
        process.is_alive().then_some(Self::Orphan(pidfd))
    }

    /// Sends the first process a signal.
    pub(super) fn signal(&self, name: &str, number: i32) -> Result<(), Error> {
        match self {
            Self::Supervised(connection) => match connection.ask(Request::Kill(number))? {
                Answer::Refused(message) => Err(Error::Refused {
                    name: name.to_owned(),
                    message,
                }),
                Answer::Done | Answer::Ended(_) => Ok(()),
            },
            Self::Orphan(pidfd) => {
                let signal = sys::signal(number)
                    .ok_or_else(|| Error::Invalid(format!("{number} is no signal")))?;
                pidfd_send_signal(pidfd, signal).call("pidfd_send_signal")
            }
        }
    }

    /// Waits for the end; the wait has to be asked for before what causes it.
    /// When the end of a supervised container is told, all its traces but its folder are gone.
    pub(super) fn ask_wait(&self) -> Result<(), Error> {
        match self {
            Self::Supervised(connection) => connection.send(Request::Wait),
            Self::Orphan(_) => Ok(()),
        }
    }

    /// The end, after [`Handle::ask_wait`].
    pub(super) fn ended(
        &self,
        place: &Place,
        folder: &Folder,
        name: &str,
        limit: Option<Duration>,
    ) -> Result<Ended, Error> {
        let until = limit.map(|limit| Instant::now() + limit);
        loop {
            let fd = match self {
                Self::Supervised(connection) => &connection.fd,
                Self::Orphan(pidfd) => pidfd,
            };
            if !readable(fd, until)? {
                return Ok(Ended::NotYet);
            }
            match self {
                Self::Orphan(pidfd) => return bury_orphan(place, folder, pidfd).map(Ended::Yes),
                Self::Supervised(connection) => match connection.next()? {
                    Some(Answer::Ended(exit)) => {
                        connection.wait_for_end();
                        return Ok(Ended::Yes(exit));
                    }
                    Some(_) => {}
                    None => {
                        return Err(Error::SupervisorDied {
                            name: name.to_owned(),
                        });
                    }
                },
            }
        }
    }
}

/// Waits until `fd` can be read, at most until then.
fn readable(fd: &OwnedFd, until: Option<Instant>) -> Result<bool, Error> {
    loop {
        let left = until.map(|until| {
            until.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err).call("poll"),
        }
    }
}

/// Whether the supervisor died after it had noted that it starts the program, and before
/// the runtime did. Then nobody can, and what waits for the start is removed.
fn was_never_started(place: &Place, folder: &Folder) -> Result<bool, Error> {
    let state: Option<State> = folder.read_json("state.json")?;
    if state.is_none_or(|state| state.started.is_some()) {
        return Ok(false);
    }
    // A runtime that the supervisor had executed may be at it.
    std::thread::sleep(START_LIMIT);
    let Some(_lock) = Lock::take(&folder.lock())? else {
        return Ok(false);
    };
    // Without force, what runs is not deleted.
    Ok(runtime_of(place, folder)?
        .delete_unstarted(&folder.id)
        .is_ok())
}

fn runtime_of(place: &Place, folder: &Folder) -> Result<Runtime, Error> {
    Ok(Runtime {
        program: folder.record()?.runtime,
        root: place.runtime(),
        log: folder.path.join("runtime.log"),
    })
}

/// Does what the dead supervisor cannot: records the end, as far as the kernel
/// remembers it, and takes down what the container left.
fn bury_orphan(place: &Place, folder: &Folder, pidfd: &OwnedFd) -> Result<Exit, Error> {
    let wait = reaped_status(pidfd).map_or(Wait::Unknown, wait_of_raw);
    let (status, signal) = match wait {
        Wait::Exited(status) => (Some(status), None),
        Wait::Signaled(signal) => (Some(exit::SIGNAL_STATUS_BASE + signal), Some(signal)),
        Wait::Unknown => (None, None),
    };
    let ended = Exit {
        status,
        signal,
        finished: clock::now(),
        ..Exit::default()
    };
    // Several may watch: the first one writes.
    if let Some(_lock) = Lock::take(&folder.lock())?
        && exit::read(&folder.exit())?.is_none()
    {
        exit::write(&ended, &folder.exit_space(), &folder.exit())?;
        runtime_of(place, folder)?.delete(&folder.id)?;
        network::down(place, folder)?;
    }
    Ok(exit::read(&folder.exit())?.unwrap_or(ended))
}

/// How long the process's new parent has to reap it, after which alone its status can be read.
const REAP_LIMIT: Duration = Duration::from_secs(2);

fn reaped_status(pidfd: &OwnedFd) -> Option<i32> {
    let until = Instant::now() + REAP_LIMIT;
    loop {
        if let Some(status) = sys::exit_status(pidfd) {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
