//! `teu start`

use super::detach::Keys;
use super::handle::Connection;
use super::session::Session;
use super::{launch, rm, run};
use crate::container::record::{Network, Stdin};
use crate::container::status::{Status, observe};
use crate::container::{Folder, Lock, Place, Record, exit};
use crate::error::At as _;
use crate::network::files;
use crate::{Error, volume};

/// `teu start`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stay with it: show its output, pass signals, end with its status
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on; implies --attach
    #[arg(short, long)]
    interactive: bool,
    /// Leave its terminal by these keys; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// The container
    container: String,
}

/// Starts the program of a created container; one that has ended is created
/// again from its folder, with what it has written.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let folder = Folder::resolve(place, &arguments.container)?;
    let record = folder.record()?;
    match observe(&folder)? {
        Status::Created => {}
        Status::Exited(_) | Status::Lost => relaunch(place, &folder, &record)?,
        other => {
            return Err(Error::State {
                name: record.name.to_string(),
                state: other.word().to_owned(),
                hint: "",
            });
        }
    }
    let name = record.name.to_string();
    if !arguments.attach && !arguments.interactive {
        run::start(&Connection::open(&folder, &name)?)?;
        super::say(&arguments.container);
        return Ok(0);
    }
    let input = arguments.interactive && record.stdin != Stdin::Closed;
    let session = Session::open(&folder, name, record.terminal, input)?;
    run::start(session.connection())?;
    session.run(&arguments.detach_keys)
}

fn relaunch(place: &Place, folder: &Folder, record: &Record) -> Result<(), Error> {
    let lock = Lock::take(&folder.lock())?.ok_or_else(|| Error::State {
        name: record.name.to_string(),
        state: "held by another process".to_owned(),
        hint: "; try again in a moment",
    })?;
    if record.bundle.is_none() {
        return Err(Error::State {
            name: record.name.to_string(),
            state: "not complete".to_owned(),
            hint: ": what created it was interrupted; remove it (`teu rm`)",
        });
    }
    rm::take_down(place, folder, Some(record))?;
    if record.network != Network::Host {
        files::write(folder, &record.hostname)?;
    }
    for entry in &record.volumes {
        volume::ensure(place, &entry.name)?;
    }
    exit::reserve(&folder.exit_space())?;
    for name in ["state.json", "exit"] {
        let path = folder.path.join(name);
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(err).at("remove", &path);
            }
            _ => {}
        }
    }
    launch::launch(place, folder, lock).map_err(|failure| failure.error)
}
