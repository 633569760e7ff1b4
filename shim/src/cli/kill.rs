//! `teu kill`

use super::flags;
use super::handle::Handle;
use crate::Error;
use crate::container::{Folder, Place};

/// `teu kill`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Sends the first process of each the signal.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let signal = flags::signal(&arguments.signal)?;
    Ok(super::for_each(&arguments.containers, |name| {
        let folder = Folder::resolve(place, name)?;
        match Handle::with(place, &folder, name, |handle| handle.signal(name, signal))? {
            Some(()) => Ok(()),
            None => Err(Error::State {
                name: name.to_owned(),
                state: "not running".to_owned(),
                hint: "",
            }),
        }
    }))
}
