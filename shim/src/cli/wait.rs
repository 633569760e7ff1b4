//! `teu wait`

use super::handle::{Ended, Handle};
use crate::Error;
use crate::container::status::{Status, observe};
use crate::container::{Exit, Folder, Place};
use crate::error::warn;

/// `teu wait`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Prints each one's status as soon as it has ended, `unknown` where nobody saw it.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let mut result = 0;
    for name in &arguments.containers {
        match status(place, name) {
            Ok(Some(status)) => super::show(&status.to_string())?,
            Ok(None) => {
                super::show("unknown")?;
                result = 1;
            }
            Err(err) => {
                warn("teu", &err);
                result = 1;
            }
        }
    }
    Ok(result)
}

fn status(place: &Place, name: &str) -> Result<Option<i32>, Error> {
    let folder = Folder::resolve(place, name)?;
    while let Some(handle) = Handle::open(&folder, name)? {
        handle.ask_wait()?;
        match handle.ended(place, &folder, name, None) {
            Ok(Ended::Yes(Exit { status, .. })) => return Ok(status),
            // The supervisor died: the process itself can still be watched.
            Ok(Ended::NotYet) | Err(Error::SupervisorDied { .. }) => {}
            Err(err) => return Err(err),
        }
    }
    match observe(&folder)? {
        Status::Exited(exit) => Ok(exit.status),
        _ => Ok(None),
    }
}
