//! `teu stop`

use std::time::Duration;

use super::flags;
use super::handle::{Ended, Handle};
use crate::Error;
use crate::container::{Folder, Place, Record};

/// How long the kernel may take to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// `teu stop`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Seconds until it is killed [default: the container's own, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Ask by this signal [default: the container's own, the image's, TERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stops each; that one has already ended is success.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    Ok(super::for_each(&arguments.containers, |name| {
        let folder = Folder::resolve(place, name)?;
        let record = folder.record()?;
        let asked = arguments
            .signal
            .clone()
            .or_else(|| record.stop_signal.clone());
        let signal = asked.or_else(|| record.bundle.as_ref()?.stop_signal.clone());
        let signal = signal.map_or(Ok(libc::SIGTERM), |text| flags::signal(&text))?;
        let patience = Duration::from_secs(arguments.time.unwrap_or(record.stop_timeout));
        stop(place, &folder, &record, signal, patience)
    }))
}

/// Sends `signal`, and SIGKILL where that does not end the container in time.
/// When this returns, the container has ended and nothing of it runs.
pub(super) fn stop(
    place: &Place,
    folder: &Folder,
    record: &Record,
    signal: i32,
    patience: Duration,
) -> Result<(), Error> {
    let name = record.name.as_str();
    let stopped = Handle::with(place, folder, name, |handle| {
        stop_by(handle, place, folder, name, (signal, patience))
    });
    stopped.map(|_| ())
}

fn stop_by(
    handle: &Handle,
    place: &Place,
    folder: &Folder,
    name: &str,
    (signal, patience): (i32, Duration),
) -> Result<(), Error> {
    handle.ask_wait()?;
    match handle.signal(name, signal) {
        // It ended before the signal: that will be told.
        Err(Error::Refused { .. }) | Ok(()) => {}
        Err(err) => return Err(err),
    }
    if let Ended::Yes(_) = handle.ended(place, folder, name, Some(patience))? {
        return Ok(());
    }
    match handle.signal(name, libc::SIGKILL) {
        Err(Error::Refused { .. }) | Ok(()) => {}
        Err(err) => return Err(err),
    }
    match handle.ended(place, folder, name, Some(KILL_LIMIT))? {
        Ended::Yes(_) => Ok(()),
        Ended::NotYet => Err(Error::State {
            name: name.to_owned(),
            state: "killed and still there".to_owned(),
            hint: ": a process of it hangs in the kernel",
        }),
    }
}
