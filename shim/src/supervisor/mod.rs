//! `teu-shim`: the process that looks after one container.
//!
//! [`machine`] decides, [`event_loop`] carries out. Around them: [`setup`]
//! brings the container to life, [`pump`] moves its output and input,
//! [`control`] speaks with those who ask.
//!
//! One thread, no runtime, no memory that grows. It never leaves before its
//! container: signals that would end it are ignored but for SIGKILL.

pub mod cgroups;
mod clients;
pub mod control;
pub mod event_loop;
mod input;
pub mod log;
pub mod machine;
pub mod oom;
pub mod poller;
pub mod protocol;
pub mod pump;
pub mod rest;
pub mod rootfs;
pub mod setup;
pub mod socket;
pub mod terminal;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{set_child_subreaper, setsid, umask};

use crate::Error;
use crate::container::{ContainerId, Exit, Folder, Lock, Place, Record, exit};
use crate::error::{At as _, chain, warn};
use crate::runtime::Runtime;
use event_loop::Supervisor;

/// What the shim tells who started it, on standard output, before it says no more.
pub mod report {
    /// The container exists; `ctl` and `attach` are there.
    pub const CREATED: &str = "created";
    /// It could not be set up; the reason follows after a blank.
    pub const FAILED: &str = "failed";
    /// The runtime refused to create it; its reason follows after a blank.
    pub const REFUSED: &str = "refused";
}

/// Everything about the container that the supervisor works on.
#[derive(Debug)]
pub struct Container {
    /// The roots of all files.
    pub place: Place,
    /// Its folder.
    pub folder: Folder,
    /// What was asked.
    pub record: Record,
    /// What executes it.
    pub runtime: Runtime,
}

/// `teu-shim run --root DATA --state STATE ID`: the lock on standard input,
/// [`report`] on standard output.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    crate::sys::close_inherited();
    match parse(arguments).and_then(|(place, id)| supervise(place, &id)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            warn("teu-shim", &err);
            ExitCode::FAILURE
        }
    }
}

/// The command line. It is `teu`'s to write, so there is one form only.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<(Place, ContainerId), Error> {
    let arguments: Vec<OsString> = arguments.collect();
    match arguments.as_slice() {
        [run, root, data, state_flag, state, id]
            if run == "run" && root == "--root" && state_flag == "--state" =>
        {
            let (data, state) = (PathBuf::from(data), PathBuf::from(state));
            Ok((Place { data, state }, id.to_string_lossy().parse()?))
        }
        _ => Err(Error::Invalid(format!(
            "{arguments:?} is not `run --root DATA --state STATE ID`; `teu run` starts this program"
        ))),
    }
}

fn supervise(place: Place, id: &ContainerId) -> Result<(), Error> {
    let folder = Folder::open(&place, id).ok_or_else(|| Error::NoSuchContainer(id.to_string()))?;
    let lock = match Lock::inherited(&folder.lock())? {
        Some(lock) => lock,
        None => Lock::take(&folder.lock())?.ok_or_else(|| Error::State {
            name: id.short().to_owned(),
            state: "held by another process".to_owned(),
            hint: "",
        })?,
    };
    let mut reporter = Some(detach(&folder)?);
    let result = folder.record().and_then(|record| {
        let runtime = Runtime {
            program: record.runtime.clone(),
            root: place.runtime(),
            log: folder.path.join("runtime.log"),
        };
        live(
            &Container {
                place,
                folder: folder.clone(),
                record,
                runtime,
            },
            lock,
            &mut reporter,
        )
    });
    if let Err(err) = &result {
        let word = match err {
            Error::Runtime { .. } => report::REFUSED,
            _ => report::FAILED,
        };
        tell(&mut reporter, word, &chain(err));
    }
    result
}

/// Leaves the session, the terminal and the streams of who started it.
/// Returns a descriptor of the standard output it had.
fn detach(folder: &Folder) -> Result<OwnedFd, Error> {
    let reporter = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).call("dup")?;
    // Fails only where it already leads a session of its own.
    let _: rustix::io::Result<rustix::process::Pid> = setsid();
    set_child_subreaper(Some(rustix::process::getpid())).call("prctl")?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let null = PathBuf::from("/dev/null");
    let null_fd = File::options()
        .read(true)
        .write(true)
        .open(&null)
        .at("open", &null)?;
    let own_log = folder.path.join("shim.log");
    let own_log_fd = File::options()
        .append(true)
        .create(true)
        .open(&own_log)
        .at("open", &own_log)?;
    rustix::stdio::dup2_stdin(&null_fd).call("dup2")?;
    rustix::stdio::dup2_stdout(&null_fd).call("dup2")?;
    rustix::stdio::dup2_stderr(&own_log_fd).call("dup2")?;
    // Sockets are bound by relative names: a path of a socket may have 107 bytes only.
    std::env::set_current_dir(&folder.path).at("enter", &folder.path)?;
    Ok(reporter)
}

/// From the record to the end.
fn live(container: &Container, lock: Lock, reporter: &mut Option<OwnedFd>) -> Result<(), Error> {
    let signals = crate::sys::signalfd(&event_loop::SIGNALS).call("signalfd")?;
    let mut undo = setup::Undo::default();
    let ready = setup::create(container, &mut undo)
        .and_then(|made| Supervisor::new(container, made, signals));
    match ready {
        Ok(mut supervisor) => {
            tell(reporter, report::CREATED, "");
            supervisor.run(lock)
        }
        Err(err) => {
            let ended = Exit {
                finished: crate::clock::now(),
                error: Some(chain(&err)),
                ..Exit::default()
            };
            let folder = &container.folder;
            complain(exit::write(&ended, &folder.exit_space(), &folder.exit()));
            setup::tear_down(container, undo.host.as_ref());
            drop(lock);
            if container.record.remove {
                complain(event_loop::remove(container));
            }
            Err(err)
        }
    }
}

/// Writes an error down that must not stop what follows; standard error is the folder's shim.log.
fn complain(result: Result<(), Error>) {
    if let Err(err) = result {
        warn("teu-shim", &err);
    }
}

/// One line for who started the shim, once; then end of file. That nobody listens any more is no error.
fn tell(reporter: &mut Option<OwnedFd>, word: &str, reason: &str) {
    if let Some(fd) = reporter.take() {
        let line = format!("{word} {}\n", reason.replace('\n', " "));
        let _: rustix::io::Result<usize> = rustix::io::write(&fd, line.as_bytes());
    }
}
