//! `delete`: containerd lost the shim of a container, or never got one. What is
//! left of the container goes away, and how it ended is told as far as anybody knows.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::address;
use super::events::publisher;
use super::flags::Flags;
use super::proto::Timestamp;
use super::proto::events::{Event as _, TaskDelete, TaskExit};
use super::proto::task::DeleteResponse;
use super::record::{Ended, Record, Seen};
use super::task::call::{Call, PID_FILE, Runtime};
use super::task::exit_status;
use super::{ADDRESS_FILE, bundle, default_runtime, events_address, rootfs};
use crate::Error;
use crate::error::{At as _, warn};

/// containerd's own word for a status that nobody knows.
const UNKNOWN_STATUS: u32 = 255;
/// How long a process that was killed may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long containerd may take for events that an earlier shim could not deliver.
const REPLAY_LIMIT: Duration = Duration::from_secs(2);
/// What containerd publishes itself after this.
const TOLD_BY_CONTAINERD: [&str; 2] = [TaskExit::TOPIC, TaskDelete::TOPIC];

/// Removes the container. Returns what goes to standard output.
///
/// # Errors
/// The folder cannot be entered. What else fails is told on standard error, and the rest is done.
pub fn delete(flags: &Flags) -> Result<Vec<u8>, Error> {
    let folder = folder(flags)?;
    let record = Record::read(&folder);
    // Opened before anything is killed: afterwards the kernel tells through it how the process ended.
    let pidfd = record.as_ref().and_then(|record| {
        let pidfd = pidfd_open(record.process.as_pid()?, PidfdFlags::empty()).ok()?;
        record.look().map(|_| pidfd)
    });
    complain(replay(flags, &folder));
    complain(remove(flags, &folder));
    complain(rootfs::unmount_all(&folder.join("rootfs")));
    complain(remove_socket(&folder));
    let ended = record
        .as_ref()
        .and_then(|record| record.exit.or_else(|| end_of(record, pidfd?)));
    let exit = ended.unwrap_or_else(|| Ended::now(UNKNOWN_STATUS));
    let pid = match &record {
        Some(record) => record.process.pid,
        None => bundle::read_pid(&folder.join(PID_FILE)).unwrap_or(0),
    };
    let response = DeleteResponse {
        pid: u32::try_from(pid).unwrap_or(0),
        exit_status: exit.status,
        exited_at: Some(Timestamp {
            seconds: exit.seconds,
            nanos: exit.nanos,
        }),
    };
    Ok(response.encode_to_vec())
}

/// Where the container is. containerd executes this in its bundle, or in another one's beside it.
fn folder(flags: &Flags) -> Result<PathBuf, Error> {
    if let Some(folder) = &flags.bundle {
        return Ok(folder.clone());
    }
    let own = std::env::current_dir().call("getcwd")?;
    Ok(own.parent().unwrap_or(Path::new("/")).join(&flags.id))
}

/// `delete --force` of the runtime.
fn remove(flags: &Flags, folder: &Path) -> Result<(), Error> {
    let options = bundle::read_options(folder);
    let runtime = Runtime::new(&options, &flags.namespace, &default_runtime());
    let log = folder.join("log.json");
    let mut command = std::process::Command::new(&runtime.program);
    command.args(Call::Delete { force: true }.arguments(&runtime, &log, &flags.id));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = command.status().at("execute", &runtime.program)?;
    if ended.success() {
        return Ok(());
    }
    let logged = crate::runtime::Runtime {
        program: runtime.program,
        root: runtime.root,
        log,
    };
    Err(Error::Runtime {
        message: logged.message(ended),
    })
}

/// Sends what the shim published and containerd did not take.
fn replay(flags: &Flags, folder: &Path) -> Result<(), Error> {
    let until = Instant::now() + REPLAY_LIMIT;
    publisher::replay(
        &events_address(&flags.address),
        &flags.namespace,
        folder,
        &TOLD_BY_CONTAINERD,
        until,
    )
}

/// Removes the dead shim's socket. One that serves other containers of the pod keeps its own.
fn remove_socket(folder: &Path) -> Result<(), Error> {
    let text = bundle::read_text(&folder.join(ADDRESS_FILE)).unwrap_or_default();
    match address::socket_of(&text) {
        Some(socket) if socket.exists() && !address::is_alive(socket) => {
            std::fs::remove_file(socket).at("remove", socket)
        }
        _ => Ok(()),
    }
}

/// How the process behind `pidfd` ended, once it has: from the process table until
/// it is reaped, from the kernel's memory (Linux 6.15) after that. `None` where neither tells, or
/// the process goes on.
fn end_of(record: &Record, pidfd: OwnedFd) -> Option<Ended> {
    let limit = Timespec::try_from(END_LIMIT).ok()?;
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).ok()?;
    let status = match record.look() {
        Some(Seen::Ended(status)) => Some(status),
        Some(Seen::Alive) => None,
        None => crate::sys::exit_status(&pidfd),
    };
    Some(Ended::now(exit_status(status?)))
}

impl Ended {
    fn now(status: u32) -> Self {
        let at = Timestamp::from(SystemTime::now());
        Self {
            status,
            seconds: at.seconds,
            nanos: at.nanos,
        }
    }
}

fn complain<E: std::error::Error>(result: Result<(), E>) {
    if let Err(err) = result {
        warn("shim", &err);
    }
}
