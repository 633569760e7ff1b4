//! `start`, and the second half of `run`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup;
use crate::container::agent::{self, Filtered};
use crate::container::create::{Created, FAILURE, run_hooks};
use crate::container::delete::{init_of, kill_init};
use crate::container::service::Service;
use crate::container::service::notify::Proxy;
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::protocol::ToInit;
use crate::init::{Failure, gate};
use crate::log::Log;
use crate::state::{Locked, Phase, Root, State};
use crate::sys::SharedPage;
use crate::trace;

/// Starts a created container.
pub(crate) fn start(root: &Root, id: &ContainerId, log: &Log) -> Result<(), Error> {
    let mut locked = root.open(id)?.lock()?;
    let state = locked.dir().load()?;
    match Status::of(&state)? {
        Status::Created => (),
        Status::Stopped => {
            return Err(Error::State(
                "cannot start a container that has stopped".into(),
            ));
        }
        Status::Running => {
            return Err(Error::State(
                "cannot start an already running container".into(),
            ));
        }
        status => {
            return Err(Error::State(format!(
                "cannot start a container in the {} state",
                status.word()
            )));
        }
    }
    trace::step("find the container created");
    let notify = match Service::of_this_process().notify {
        Some(address) => Proxy::listen(&locked, &address)?,
        None => None,
    };
    let gone = || Error::State("cannot start a container that has stopped".into());
    let connection = gate::knock(locked.dir())
        .map_err(Error::at("knock at", "start gate"))?
        .ok_or_else(gone)?;
    connection
        .send(ToInit::Start)
        .map_err(Error::at("talk to", "init"))?;
    locked.reached(Phase::Running)?;
    locked.remove_file(gate::NAME)?;
    let page = page(&locked);
    if let (Some(agent), Some(page), Some(pidfd)) = (&state.agent, &page, init_of(&state)?) {
        let (pid, pidfd, socket) = (state.pid, &pidfd, &connection);
        let process = Filtered {
            pid,
            pidfd,
            page,
            socket,
        };
        agent::introduce(agent, &process, &state, "created")
            .inspect_err(|_| drop(kill_init(&state, pidfd)))?;
    }
    let spoken = gate::outcome(&connection, log).map_err(Error::at("talk to", "init"))?;
    trace::step("see init become its program, or fail");
    let unspoken = || page.and_then(|page| Failure::decode(&page.load()));
    if let Some(failure) = spoken.or_else(unspoken) {
        return Err(Error::Init(failure));
    }
    if state.tiny_memory {
        refuse_starved(&state, init_of(&state)?.as_ref())?;
    }
    after_start(&state)?;
    let Some(notify) = notify else {
        return Ok(());
    };
    let Some(init) = init_of(&state)? else {
        return Ok(());
    };
    // Others may act on the container meanwhile.
    drop(locked);
    notify.wait(init.as_fd(), state.pid.unsigned_abs())
}

/// The page in which init leaves what its filter forbids to say.
fn page(locked: &Locked) -> Option<SharedPage> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(locked.dir(), FAILURE, flags, Mode::empty()).ok()?;
    SharedPage::map(Some(file.as_fd())).ok()
}

/// Starts what `run` has just created.
pub(crate) fn begin(created: &mut Created, log: &Log) -> Result<(), Error> {
    if created.waits {
        let told = created.init.socket.send(ToInit::Start);
        told.map_err(Error::at("talk to", "init"))?;
    }
    created.state.phase = Phase::Running;
    created.locked.reached(Phase::Running)?;
    if let (Some(agent), Some(page)) = (&created.state.agent, &created.page) {
        let (pidfd, socket) = (&created.init.pidfd, &created.init.socket);
        let process = Filtered {
            pid: created.state.pid,
            pidfd,
            page,
            socket,
        };
        agent::introduce(agent, &process, &created.state, "created")?;
    }
    let spoken = gate::outcome(&created.init.socket, log).map_err(Error::at("talk to", "init"))?;
    trace::step("see init become its program, or fail");
    let unspoken = || {
        created
            .page
            .as_ref()
            .and_then(|page| Failure::decode(&page.load()))
    };
    match spoken.or_else(unspoken) {
        Some(failure) => return Err(Error::Init(failure)),
        None if created.state.tiny_memory => {
            refuse_starved(&created.state, Some(&created.init.pidfd))?
        }
        None => (),
    }
    after_start(&created.state)
}

/// The end of init closes its socket as its program does. Where hardly any
/// memory is allowed, and the kernel has killed for want of it, the two are told
/// apart by waiting a moment for the end.
fn refuse_starved(state: &State, init: Option<&OwnedFd>) -> Result<(), Error> {
    const MOMENT: Timespec = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    if cgroup::kills(&state.cgroups) == 0 {
        return Ok(());
    }
    let ends = |init| {
        let mut event = [PollFd::new(init, PollFlags::IN)];
        poll(&mut event, Some(&MOMENT)).is_ok_and(|count| count > 0)
    };
    if !init.is_none_or(ends) {
        return Ok(());
    }
    Err(Error::OutOfMemory(Box::new(Error::State(
        "it was killed before its program could run".into(),
    ))))
}

/// Hooks after the start; one that fails ends the container (runtime.md,
/// "Lifecycle", step 9).
fn after_start(state: &State) -> Result<(), Error> {
    run_hooks("poststart", &state.hooks.poststart, state, "running").inspect_err(|_| {
        if let Ok(Some(init)) = init_of(state) {
            // The failure of the hook is what the user must hear.
            let _ = kill_init(state, &init);
        }
    })?;
    if !state.hooks.poststart.is_empty() {
        trace::step("run the poststart hooks");
    }
    Ok(())
}
