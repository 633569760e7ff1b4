//! `teu attach`

use super::detach::Keys;
use super::session::Session;
use crate::Error;
use crate::container::record::Stdin;
use crate::container::status::{Status, observe};
use crate::container::{Folder, Place};

/// `teu attach`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Leave its terminal by these keys; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// The container
    container: String,
}

/// Shows the output from now on and passes input and signals until the container has ended.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let folder = Folder::resolve(place, &arguments.container)?;
    let record = folder.record()?;
    match observe(&folder)? {
        Status::Running => {}
        other => {
            return Err(Error::State {
                name: record.name.to_string(),
                state: other.word().to_owned(),
                hint: ", it has no streams to attach to (`teu logs` shows its output)",
            });
        }
    }
    let input = record.stdin != Stdin::Closed && !arguments.no_stdin;
    let session = Session::open(&folder, record.name.to_string(), record.terminal, input)?;
    session.run(&arguments.detach_keys)
}
