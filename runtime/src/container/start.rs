//! `start`, and the second half of `run`.

use std::os::fd::AsFd;

use crate::container::create::{Created, FAILURE, run_hooks};
use crate::container::delete::{init_of, kill_init};
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::protocol::ToInit;
use crate::init::{Failure, gate};
use crate::state::{Locked, Phase, Root, State};
use crate::sys::SharedPage;

/// Starts a created container.
pub(crate) fn start(root: &Root, id: &ContainerId) -> Result<(), Error> {
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
    let gone = || Error::State("cannot start a container that has stopped".into());
    let connection = gate::knock(locked.dir())
        .map_err(Error::at("knock at", "start gate"))?
        .ok_or_else(gone)?;
    connection
        .send(ToInit::Start)
        .map_err(Error::at("talk to", "init"))?;
    locked.reached(Phase::Running)?;
    locked.remove_file(gate::NAME)?;
    let spoken = gate::outcome(&connection).map_err(Error::at("talk to", "init"))?;
    if let Some(failure) = spoken.or(unspoken(&locked)) {
        return Err(Error::Init(failure));
    }
    after_start(&state)
}

/// What init left in the shared page because its filter forbade to speak.
fn unspoken(locked: &Locked) -> Option<Failure> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::openat(
        locked.dir(),
        FAILURE,
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let page = SharedPage::map(Some(file.as_fd())).ok()?;
    Failure::decode(&page.load())
}

/// Starts what `run` has just created.
pub(crate) fn begin(created: &mut Created) -> Result<(), Error> {
    created
        .init
        .socket
        .send(ToInit::Start)
        .map_err(Error::at("talk to", "init"))?;
    created.state.phase = Phase::Running;
    created.locked.reached(Phase::Running)?;
    let spoken = gate::outcome(&created.init.socket).map_err(Error::at("talk to", "init"))?;
    let unspoken = || {
        created
            .page
            .as_ref()
            .and_then(|page| Failure::decode(&page.load()))
    };
    match spoken.or_else(unspoken) {
        Some(failure) => Err(Error::Init(failure)),
        None => after_start(&created.state),
    }
}

/// Hooks after the start; one that fails ends the container (runtime.md,
/// "Lifecycle", step 9).
fn after_start(state: &State) -> Result<(), Error> {
    run_hooks("poststart", &state.hooks.poststart, state, "running").inspect_err(|_| {
        if let Ok(Some(init)) = init_of(state) {
            // The failure of the hook is what the user must hear.
            let _ = kill_init(state, &init);
        }
    })
}
