//! Commands that change a container: start, kill, delete, pause, resume.

use super::args::Args;
use super::{Context, container_id, named};
use crate::cgroup::freezer;
use crate::container::mounts::{self as container_mounts, Change};
use crate::container::status::Status;
use crate::container::{delete as removal, signal, start as starting};
use crate::error::Error;
use crate::id::ContainerId;

/// `start`.
pub(super) fn start(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    named(
        "start",
        &id,
        starting::start(&context.root, &id, context.log),
    )
    .map(|()| 0)
}

/// `mounts add` and `mounts remove`.
pub(super) fn mounts(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let change = match args.words[0].as_str() {
        "add" => Change::Add,
        "remove" => Change::Remove,
        other => {
            return Err(Error::Usage(format!(
                "unknown command {other}: add or remove"
            )));
        }
    };
    let id: ContainerId = args.words[1].parse()?;
    let file = &args.words[2];
    let changed = container_mounts::change(&context.root, &id, change, file, context.log);
    named("mounts", &id, changed).map(|()| 0)
}

/// `kill`.
pub(super) fn kill(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let number = signal::parse(args.words.get(1).map_or("TERM", String::as_str))?;
    named(
        "kill",
        &id,
        signal::kill(&context.root, &id, number, args.flag("all")),
    )
    .map(|()| 0)
}

/// `delete`.
pub(super) fn delete(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    named(
        "delete",
        &id,
        removal::delete(&context.root, &id, args.flag("force"), context.log),
    )
    .map(|()| 0)
}

/// `pause`.
pub(super) fn pause(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let paused = (|| {
        let state = context.root.open(&id)?.load()?;
        match Status::of(&state)? {
            Status::Running | Status::Created => Ok(freezer::freeze(&state.cgroups)?),
            status => Err(Error::State(format!(
                "container not running or created: {}",
                status.word()
            ))),
        }
    })();
    named("pause", &id, paused).map(|()| 0)
}

/// `resume`.
pub(super) fn resume(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let resumed = (|| {
        let state = context.root.open(&id)?.load()?;
        match Status::of(&state)? {
            Status::Paused => Ok(freezer::thaw(&state.cgroups)?),
            _ => Err(Error::State("container not paused".into())),
        }
    })();
    named("resume", &id, resumed).map(|()| 0)
}
