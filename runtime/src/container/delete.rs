//! `delete`: whatever was made goes, also after a crash at any moment.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cgroup::{self, procs};
use crate::container::create::run_hooks;
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::log::Log;
use crate::spec::NamespaceType;
use crate::state::{Locked, Root, State};
use crate::sys;

/// How long another command may take before `delete --force` says so instead of
/// waiting on: as long as a killed init may.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(KILL_SECONDS_MAX as u64);

/// How long a killed init may take to end, in seconds: as long as runc waits.
const KILL_SECONDS_MAX: i64 = 10;

/// Deletes a container. With `force` one that runs is killed first, and one
/// that does not exist is no error.
pub(crate) fn delete(root: &Root, id: &ContainerId, force: bool, log: &Log) -> Result<(), Error> {
    let dir = match root.open(id) {
        Err(Error::State(_)) if force => return Ok(()),
        result => result?,
    };
    if force && let Ok(state) = dir.load() {
        // Before the lock: a `create` that hangs holds it until its child dies.
        end(&state)?;
    }
    let lock = if force {
        dir.lock_within(LOCK_WAIT_MAX)
    } else {
        dir.lock()
    };
    let locked = match lock {
        // Another `delete` was faster.
        Err(Error::State(_)) if force => return Ok(()),
        result => result?,
    };
    let state = match locked.dir().load() {
        Ok(state) => state,
        Err(error) if force => return salvage(locked, id, &error, log),
        Err(error) => return Err(error),
    };
    if !force {
        let status = Status::of(&state)?;
        if !matches!(status, Status::Stopped | Status::Created) {
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: {} (kill it first, or use --force)",
                status.word()
            )));
        }
    }
    end(&state)?;
    destroy(locked, &state, log)
}

/// Removes what is left of a container whose init has ended.
pub(crate) fn destroy(locked: Locked, state: &State, log: &Log) -> Result<(), Error> {
    if state.pid == 0 && state.unit.is_none() {
        cgroup::remove_unused(&state.cgroups)?;
    } else {
        if !has_own_pids(state) {
            procs::signal_all(&state.cgroups, Signal::KILL)?;
        }
        cgroup::destroy(state.unit.as_ref(), &state.cgroups)?;
    }
    if let Some(group) = &state.resctrl {
        group.remove()?;
    }
    if let Err(error) = run_hooks("poststop", &state.hooks.poststop, state, "stopped") {
        log.warn(&error.chain());
    }
    locked.remove()
}

/// Removes a container whose state cannot be read. Its init has a record of its
/// own, and the kernel knows the cgroups of that; without it they are looked for
/// where a container is by default. What cannot be found stays, and is no error:
/// `delete --force` must come to an end.
fn salvage(locked: Locked, id: &ContainerId, why: &Error, log: &Log) -> Result<(), Error> {
    log.warn(&format!(
        "delete container {id} without its state: {}",
        why.chain()
    ));
    let layout = cgroup::Layout::discover()?;
    let mut cgroups = layout.place(None, id.as_str())?;
    if let Ok(Some((pid, start_ticks))) = locked.dir().init()
        && let Some(pidfd) = pidfd_of(pid, start_ticks)?
    {
        cgroups = layout.of_process(pid)?;
        kill(pid, &pidfd)?;
        // What is frozen dies only when it thaws.
        let _ = cgroup::freezer::thaw_tree(&cgroups);
        await_end(pid, &pidfd)?;
    }
    if let Err(error) = cgroup::remove(&cgroups) {
        log.warn(&Error::from(error).chain());
    }
    locked.remove()
}

/// Whether the kernel ends all processes of the container with its init.
pub(crate) fn has_own_pids(state: &State) -> bool {
    state.namespaces.contains(&NamespaceType::Pid)
}

/// Kills init, if it lives, and waits for its end.
fn end(state: &State) -> Result<(), Error> {
    let Some(pidfd) = init_of(state)? else {
        return Ok(());
    };
    kill_init(state, &pidfd)?;
    await_end(state.pid, &pidfd)
}

fn await_end(pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
    let timeout = Timespec {
        tv_sec: KILL_SECONDS_MAX,
        tv_nsec: 0,
    };
    let ended = rustix::io::retry_on_intr(|| {
        poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout))
    });
    match ended.map_err(Error::at("wait for", "init"))? {
        0 => Err(Error::State(format!(
            "init (pid {}) still runs {KILL_SECONDS_MAX} seconds after SIGKILL",
            pid
        ))),
        _ => Ok(()),
    }
}

/// SIGKILL, also for a container that is held still.
pub(crate) fn kill_init(state: &State, pidfd: &OwnedFd) -> Result<(), Error> {
    kill(state.pid, pidfd)?;
    // Also what the container itself has frozen below: it may be init.
    Ok(cgroup::freezer::thaw_tree(&state.cgroups)?)
}

fn kill(pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
    match sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map_err(Error::on("kill pid", pid)),
    }
}

/// A pidfd of init, if it is alive. Checked after opening: from then on the
/// descriptor cannot come to mean another process.
pub(crate) fn init_of(state: &State) -> Result<Option<OwnedFd>, Error> {
    pidfd_of(state.pid, state.start_ticks)
}

fn pidfd_of(pid: i32, start_ticks: u64) -> Result<Option<OwnedFd>, Error> {
    let Some(named) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    let pidfd = match rustix::process::pidfd_open(named, PidfdFlags::empty()) {
        // EINVAL, before Linux 6.15: the number is nobody's any more, but still
        // that of a session or a process group with others in it.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
        result => result.map_err(Error::on("open pidfd of pid", pid))?,
    };
    Ok(crate::proc::lives(pid, start_ticks)?.then_some(pidfd))
}
