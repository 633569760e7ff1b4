//! Knowing that memory has run out for a container.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::dir::Dir;
use super::{Error, Paths};

/// The most bytes of `memory.events`; it has below 200.
const EVENTS_BYTES: usize = 1024;

/// Tells when the kernel has killed for want of memory.
///
/// v1 counts up an eventfd (`memory.oom_control`, memory.rst of cgroup-v1). v2
/// makes `memory.events` ready when one of its numbers has changed. It is
/// polled, not watched by inotify: of those instances a user has only 128.
#[derive(Debug)]
pub(crate) enum OomWatch {
    /// The counter, and the cgroup, by whose end it is counted up too.
    V1 { counter: OwnedFd, dir: Dir },
    /// The file, and how many were killed when it was last read.
    V2 { events: OwnedFd, killed: u64 },
}

impl OomWatch {
    /// Begins to watch; `None` where the container has no memory controller.
    pub(crate) fn new(paths: &Paths) -> Result<Option<Self>, Error> {
        if let Some(path) = paths.get("memory") {
            return v1(path).map(Some).map_err(|source| Error::Open {
                path: path.join("memory.oom_control"),
                source,
            });
        }
        let Some(path) = paths.get("") else {
            return Ok(None);
        };
        let path = path.join("memory.events");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match openat(rustix::fs::CWD, &path, flags, Mode::empty()) {
            Ok(events) => {
                let killed = kills_in(&events).unwrap_or(0);
                Ok(Some(Self::V2 { events, killed }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// What to wait for before [`Self::happened`] is asked.
    pub(crate) fn poll(&self) -> PollFd<'_> {
        match self {
            Self::V1 { counter, .. } => PollFd::new(counter, PollFlags::IN),
            Self::V2 { events, .. } => PollFd::new(events, PollFlags::PRI),
        }
    }

    /// Whether it has happened since the last time this was asked. Never waits.
    pub(crate) fn happened(&mut self) -> bool {
        match self {
            Self::V1 { counter, dir } => {
                let counted = rustix::io::read(counter, &mut [0; 8]).is_ok();
                // The end of the cgroup is counted like a shortage.
                counted && dir.try_read("memory.oom_control").is_ok()
            }
            Self::V2 { events, killed } => {
                let now = kills_in(events).unwrap_or(*killed);
                std::mem::replace(killed, now) < now
            }
        }
    }
}

fn v1(path: &std::path::Path) -> Result<OomWatch, Errno> {
    let dir = Dir::open(path, &["memory"])?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let control = openat(&dir, "memory.oom_control", flags, Mode::empty())?;
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let line = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
    dir.try_write("cgroup.event_control", &line)?;
    Ok(OomWatch::V1 { counter, dir })
}

/// Reads the number of kills anew; the kernel takes note of what was seen.
fn kills_in(events: &OwnedFd) -> Option<u64> {
    let mut text = [0; EVENTS_BYTES];
    let length = rustix::io::pread(events, &mut text, 0).ok()?;
    kills_of(std::str::from_utf8(&text[..length]).ok()?)
}

/// `oom_kill N`, the same line in v1 and v2 (kernel 4.13).
fn kills_of(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}

/// How often the kernel has killed in the container for want of memory, as far
/// as it tells.
pub(crate) fn kills(paths: &Paths) -> u64 {
    let file = match (paths.get("memory"), paths.get("")) {
        (Some(path), _) => path.join("memory.oom_control"),
        (None, Some(path)) => path.join("memory.events"),
        (None, None) => return 0,
    };
    super::dir::read_path(&file)
        .ok()
        .and_then(|text| kills_of(&text))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_in_both_versions() {
        assert_eq!(
            kills_of("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            Some(3)
        );
        assert_eq!(
            kills_of("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"),
            Some(1)
        );
        assert_eq!(kills_of("oom_kill_disable 0\n"), None);
    }
}
