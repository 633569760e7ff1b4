//! `events`: what a container uses, and when memory runs out for it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::cgroup::{OomWatch, Stats};
use crate::container::delete::init_of;
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::log::Log;
use crate::resctrl;
use crate::state::{Root, State};

/// One line of the output.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

impl<'a> Event<'a> {
    fn stats(id: &'a str, data: Stats) -> Self {
        Self {
            kind: "stats",
            id,
            data: Some(data),
        }
    }

    fn oom(id: &'a str) -> Self {
        Self {
            kind: "oom",
            id,
            data: None,
        }
    }

    /// Writes the line at once. False when the reader has gone away.
    fn tell(&self) -> Result<bool, Error> {
        let mut line = serde_json::to_vec(self).map_err(|source| Error::Json {
            path: "output".into(),
            source,
        })?;
        line.push(b'\n');
        match std::io::stdout().write_all(&line) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            result => result
                .map(|()| true)
                .map_err(Error::at("write", "an event")),
        }
    }
}

/// Prints one `stats` event.
pub(crate) fn once(root: &Root, id: &ContainerId) -> Result<(), Error> {
    let (state, _) = running(root, id)?;
    Event::stats(&state.id, snapshot(&state)?).tell().map(drop)
}

/// Prints a `stats` event every `interval` and an `oom` event as it happens,
/// until the container ends or nobody reads any more. Numbers that cannot be
/// read are warned about, and tried again.
pub(crate) fn stream(
    root: &Root,
    id: &ContainerId,
    interval: Duration,
    log: &Log,
) -> Result<(), Error> {
    let (state, init) = running(root, id)?;
    let mut oom = OomWatch::new(&state.cgroups)?;
    if oom.is_none() {
        log.warn("no oom events: the container has no memory controller");
    }
    let mut next = Instant::now() + interval;
    loop {
        let woken = wait(&init, oom.as_ref(), next)?;
        // The shortage comes first: it may have been what ended the container.
        let short = oom.as_mut().is_some_and(OomWatch::happened);
        if (short && !Event::oom(&state.id).tell()?) || woken == Woken::End {
            return Ok(());
        }
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + interval;
        match snapshot(&state) {
            Ok(stats) => {
                if !Event::stats(&state.id, stats).tell()? {
                    return Ok(());
                }
            }
            Err(error) => log.warn(&error.chain()),
        }
    }
}

/// The state of a container whose init lives, and init.
fn running(root: &Root, id: &ContainerId) -> Result<(State, OwnedFd), Error> {
    let state = root.open(id)?.load()?;
    let stopped = || Error::State(format!("container with id {id} is not running"));
    if matches!(Status::of(&state)?, Status::Stopped | Status::Creating) {
        return Err(stopped());
    }
    let init = init_of(&state)?.ok_or_else(stopped)?;
    Ok((state, init))
}

fn snapshot(state: &State) -> Result<Stats, Error> {
    let mut stats = Stats::read(&state.cgroups)?;
    if let Some(group) = &state.resctrl {
        stats.intel_rdt = resctrl::Stats::read(group);
    }
    Ok(stats)
}

/// Why waiting was over.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// The container has ended, or nobody reads.
    End,
    /// It is time, or there may be news.
    Look,
}

fn wait(init: &OwnedFd, oom: Option<&OomWatch>, until: Instant) -> Result<Woken, Error> {
    let stdout = rustix::stdio::stdout();
    // No event is asked of the output: that its reader is gone is told always.
    let mut events = vec![
        PollFd::new(init, PollFlags::IN),
        PollFd::new(&stdout, PollFlags::empty()),
    ];
    events.extend(oom.map(OomWatch::poll));
    let left = until.saturating_duration_since(Instant::now());
    // Longer than the kernel can wait is for ever.
    let timeout = Timespec::try_from(left).ok();
    match poll(&mut events, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => return Ok(Woken::Look),
        result => result.map_err(Error::at("wait for", "events"))?,
    };
    let ended = events[..2].iter().any(|event| !event.revents().is_empty());
    Ok(if ended { Woken::End } else { Woken::Look })
}
