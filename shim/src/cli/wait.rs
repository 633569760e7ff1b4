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
    let ended = Handle::with(place, &folder, name, |handle| {
        handle.ask_wait()?;
        handle.ended(place, &folder, name, None)
    })?;
    if let Some(Ended::Yes(Exit { status, .. })) = ended {
        return Ok(status);
    }
    match observe(&folder)? {
        Status::Exited(exit) => Ok(exit.status),
        _ => Ok(None),
    }
}
