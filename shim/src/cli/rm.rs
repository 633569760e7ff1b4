//! `teu rm`: nothing of the container is left, whatever state it was found in.

use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::bundle::Store;
use super::stop::stop;
use crate::container::folder::sweep;
use crate::container::lock::is_held;
use crate::container::status::{Process, State, Status, observe};
use crate::container::{Folder, Lock, Name, Place, Record};
use crate::error::{At as _, warn};
use crate::runtime::Runtime;
use crate::{Error, network, siblings, volume};

/// How long the one who holds a container may take to let it go after it has ended.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// `teu rm`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Kill it first if it runs; repair what was interrupted; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's users: a container's own volumes always go with it
    #[arg(short, long)]
    volumes: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Removes each with its processes, mounts, cgroups, network, volumes of its own and files.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let _ = arguments.volumes;
    let status = super::for_each(&arguments.containers, |name| {
        match Folder::resolve(place, name)
            .and_then(|folder| remove(place, &folder, arguments.force))
        {
            Err(Error::NoSuchContainer(_)) if arguments.force => Ok(()),
            result => result,
        }
    });
    sweep(place)?;
    collect(place)?;
    Ok(status)
}

/// Removes the containers that were to go with their end (`--rm`), and whose supervisor died
/// before it could see to that. What one of them has against it is said, and keeps nobody
/// from what was asked for.
pub(super) fn collect(place: &Place) -> Result<(), Error> {
    for folder in Folder::list(place)? {
        // That somebody looks after it is found out at little cost, and so for most.
        if !matches!(is_held(&folder.lock()), Ok(false)) || !is_left_over(&folder) {
            continue;
        }
        let removed = match Lock::take(&folder.lock()) {
            Ok(Some(lock)) if is_left_over(&folder) => remove_held(place, &folder, lock),
            Ok(_) => Ok(()),
            Err(err) => Err(err),
        };
        match removed {
            Err(err) if folder.path.exists() => warn("teu", &err),
            _ => {}
        }
    }
    Ok(())
}

/// Whether it was to be removed once it has ended, and has: one that was never started may still be.
/// That nobody looks after it is the caller's to know.
fn is_left_over(folder: &Folder) -> bool {
    let was_started_and_is_gone = || {
        let state: Result<Option<State>, Error> = folder.read_json("state.json");
        let gone = |state: State| state.starting && state.living_init().is_none();
        state.is_ok_and(|state| state.is_some_and(gone))
    };
    folder.record().is_ok_and(|record| record.remove)
        && (folder.exit().exists() || was_started_and_is_gone())
}

fn remove(place: &Place, folder: &Folder, force: bool) -> Result<(), Error> {
    let record = folder.record();
    let name = record.as_ref().map_or_else(
        |_| folder.id.short().to_owned(),
        |record| record.name.to_string(),
    );
    let status = observe(folder).unwrap_or(Status::Lost);
    if status.is_live() {
        if !force {
            let hint = if status == Status::Creating {
                "; wait, or force it (`teu rm -f`)"
            } else {
                "; stop it first (`teu stop`), or force it (`teu rm -f`)"
            };
            return Err(Error::State {
                name,
                state: status.word().to_owned(),
                hint,
            });
        }
        if let Ok(record) = &record {
            // Its supervisor ends it best. Where that fails, what follows does it without.
            let _: Result<(), Error> = stop(place, folder, record, libc::SIGKILL, LOCK_LIMIT);
        }
    }
    let lock = match patiently(folder)? {
        Some(lock) => lock,
        None if force => {
            end_supervisor(folder)?;
            patiently(folder)?.ok_or_else(|| busy(&name))?
        }
        None => return Err(busy(&name)),
    };
    remove_held(place, folder, lock)
}

fn busy(name: &str) -> Error {
    Error::State {
        name: name.to_owned(),
        state: "held by another process".to_owned(),
        hint: "; try again in a moment",
    }
}

/// The lock, as soon as whoever holds it lets it go.
fn patiently(folder: &Folder) -> Result<Option<Lock>, Error> {
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match Lock::take(&folder.lock()) {
            Ok(None) if Instant::now() < until => {}
            // Someone else has removed it meanwhile.
            Err(_) if !folder.path.exists() => {
                return Err(Error::NoSuchContainer(folder.id.short().to_owned()));
            }
            result => return result,
        }
    }
}

/// Kills a supervisor that does not react.
fn end_supervisor(folder: &Folder) -> Result<(), Error> {
    let state: Option<State> = folder.read_json("state.json")?;
    let shim: Option<Process> = state.map(|state| state.shim).filter(Process::is_alive);
    if let Some(shim) = shim
        && let Some(pid) = shim.as_pid()
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        && shim.is_alive()
    {
        pidfd_send_signal(&pidfd, Signal::KILL).call("pidfd_send_signal")?;
    }
    Ok(())
}

/// Removes a container that the caller holds. Each step is idempotent, and the
/// folder goes last: interrupted anywhere, it can be done again.
pub(super) fn remove_held(place: &Place, folder: &Folder, lock: Lock) -> Result<(), Error> {
    let record = folder.record().ok();
    take_down(place, folder, record.as_ref())?;
    Store::find(place)?.release(&folder.id)?;
    for entry in record
        .iter()
        .flat_map(|record| &record.volumes)
        .filter(|entry| entry.anonymous)
    {
        volume::remove(place, &entry.name)?;
    }
    let name = match record {
        Some(record) => record.name,
        None => name_of_unreadable(place, folder)?,
    };
    folder.remove(place, &name)?;
    drop(lock);
    Ok(())
}

/// Ends what runs and takes down what the host holds for it. The caller holds the container.
pub(super) fn take_down(
    place: &Place,
    folder: &Folder,
    record: Option<&Record>,
) -> Result<(), Error> {
    // Without this file no shim has begun.
    if folder.path.join("state.json").exists() {
        let program = match record {
            Some(record) => record.runtime.clone(),
            None => siblings::find("teu-runtime")?,
        };
        Runtime {
            program,
            root: place.runtime(),
            log: folder.path.join("runtime.log"),
        }
        .delete(&folder.id)?;
    }
    network::down(place, folder)
}

/// The name of a container whose record cannot be read, from the names' side.
fn name_of_unreadable(place: &Place, folder: &Folder) -> Result<Name, Error> {
    let names = place.names();
    for entry in std::fs::read_dir(&names).at("list", &names)? {
        let entry = entry.at("list", &names)?;
        let owner = std::fs::read_link(entry.path()).unwrap_or_default();
        if owner.as_os_str() == folder.id.as_str()
            && let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        {
            return Ok(name);
        }
    }
    folder.id.as_str().parse()
}
