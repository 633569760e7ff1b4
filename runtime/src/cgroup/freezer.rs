//! Holding all processes of a container still, and letting them go on.
//!
//! v2: write `cgroup.freeze`, the kernel reports the result in `cgroup.events`
//! (kernel 5.2). v1: write `freezer.state` and read it back; it says FREEZING
//! while a process resists, and one born meanwhile can keep it so, therefore it
//! is written again (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::dir::{Dir, read_all};
use super::procs::walk;
use super::{Error, Paths};

/// How long processes may resist, in milliseconds. A process in an
/// uninterruptible wait freezes only when that ends.
const FREEZE_MS_MAX: u64 = 2_000;
/// Tries on v1 between two thaws: letting them run a moment lets a fork finish.
const TRIES_BETWEEN_THAWS: u32 = 50;
/// The pause of such a thaw and between reads of an unsettled state, in milliseconds.
const PAUSE_MS: u64 = 2;

/// Holds all processes. Returns when they stand still; on a timeout they run again.
pub(crate) fn freeze(paths: &Paths) -> Result<(), Error> {
    match freezer_of(paths)? {
        (dir, true) => freeze_v2(&dir),
        (dir, false) => freeze_v1(&dir),
    }
}

/// Lets all processes go on.
pub(crate) fn thaw(paths: &Paths) -> Result<(), Error> {
    match freezer_of(paths)? {
        (dir, true) => dir.write("cgroup.freeze", "0"),
        (dir, false) => dir.write("freezer.state", "THAWED"),
    }
}

/// Lets all processes go on, also those that the container itself has frozen in
/// v1 cgroups below its own: they would not even die.
pub(crate) fn thaw_tree(paths: &Paths) -> Result<(), Error> {
    match place(paths) {
        Some((path, false)) => walk(path, &mut |path| match Dir::open(path, &[]) {
            Ok(dir) => dir.write("freezer.state", "THAWED"),
            Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(Error::Open {
                path: path.to_owned(),
                source,
            }),
        }),
        Some((_, true)) => match thaw(paths) {
            Err(Error::Open {
                source: Errno::NOENT,
                ..
            }) => Ok(()),
            other => other,
        },
        None => Ok(()),
    }
}

/// Whether the container itself, not only one of its ancestors, is frozen. One
/// without freezer or without cgroup is not.
pub(crate) fn is_frozen(paths: &Paths) -> Result<bool, Error> {
    match place(paths) {
        Some((path, is_v2)) => is_frozen_at(path, is_v2),
        None => Ok(false),
    }
}

/// The same for one cgroup.
pub(super) fn is_frozen_at(path: &Path, is_v2: bool) -> Result<bool, Error> {
    let dir = match Dir::open(path, &[]) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(false),
        Err(source) => {
            return Err(Error::Open {
                path: path.to_owned(),
                source,
            });
        }
    };
    // On both it is the wish for this very cgroup; the state would tell of ancestors too.
    let file = if is_v2 {
        "cgroup.freeze"
    } else {
        "freezer.self_freezing"
    };
    match dir.try_read(file) {
        Ok(text) => Ok(text.trim() == "1"),
        // The root of a hierarchy, a kernel before 5.2, or gone meanwhile.
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(source) => Err(Error::Read {
            path: path.join(file),
            source,
        }),
    }
}

/// The cgroup that holds all processes, and whether it is cgroup2.
pub(crate) fn place(paths: &Paths) -> Option<(&Path, bool)> {
    if paths.is_v2() {
        paths.get("").map(|path| (path, true))
    } else {
        paths.get("freezer").map(|path| (path, false))
    }
}

fn freezer_of(paths: &Paths) -> Result<(Dir, bool), Error> {
    let (path, is_v2) = place(paths).ok_or(Error::NoFreezer)?;
    let dir = Dir::open(path, &[]).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok((dir, is_v2))
}

fn freeze_v1(dir: &Dir) -> Result<(), Error> {
    let end = Instant::now() + Duration::from_millis(FREEZE_MS_MAX);
    let mut tries = 0;
    while Instant::now() < end {
        tries += 1;
        if tries % TRIES_BETWEEN_THAWS == 0 {
            dir.write("freezer.state", "THAWED")?;
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        if tries % 10 == 0 {
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
    }
    dir.write("freezer.state", "THAWED")?;
    Err(Error::FreezeTimeout {
        path: dir.path().to_owned(),
        waited_ms: FREEZE_MS_MAX,
    })
}

fn freeze_v2(dir: &Dir) -> Result<(), Error> {
    let read = |source| Error::Read {
        path: dir.path().join("cgroup.events"),
        source,
    };
    dir.write("cgroup.freeze", "1")?;
    let end = Instant::now() + Duration::from_millis(FREEZE_MS_MAX);
    loop {
        // Opened anew each time: the kernel notes per open file what was read last.
        let events = openat(
            dir,
            "cgroup.events",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(read)?;
        if read_all(&events)
            .map_err(read)?
            .lines()
            .any(|line| line == "frozen 1")
        {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            dir.write("cgroup.freeze", "0")?;
            return Err(Error::FreezeTimeout {
                path: dir.path().to_owned(),
                waited_ms: FREEZE_MS_MAX,
            });
        }
        let wait = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(read(source)),
        }
    }
}
