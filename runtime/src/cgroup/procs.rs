//! The processes of a cgroup and of those below it.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir as Entries, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::dir::Dir;
use super::{Error, Paths, dir, freezer};

/// How deep cgroups may nest below a container's; the kernel's own usual bound
/// is far above, path lengths end it near 2000.
const DEPTH_MAX: usize = 1024;
/// How often the processes are read again where there is no freezer to hold
/// them still: each round meets only what was born during the one before.
const ROUNDS_MAX: usize = 64;

/// Every process of the container, in ascending order. A cgroup that is gone has none.
pub(crate) fn all(paths: &Paths) -> Result<Vec<Pid>, Error> {
    match home(paths) {
        Some(path) => all_in(path),
        None => Ok(Vec::new()),
    }
}

/// Every process of the cgroup at `path` and below.
pub(super) fn all_in(path: &Path) -> Result<Vec<Pid>, Error> {
    let mut pids = Vec::new();
    walk(path, &mut |dir| {
        match dir::read_path(&dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .filter_map(Pid::from_raw),
            ),
            // Removed meanwhile, or threaded (EOPNOTSUPP): its processes are its domain's.
            Err(Error::Read {
                source: Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP,
                ..
            }) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    })?;
    pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    pids.dedup();
    Ok(pids)
}

/// Sends `signal` to every process of the container, those included that are
/// born meanwhile. KILL also ends frozen ones: they are thawed to die.
///
/// Not an error: a process that ends by itself meanwhile, or none at all.
pub(crate) fn signal_all(paths: &Paths, signal: Signal) -> Result<(), Error> {
    if signal == Signal::KILL {
        return kill_all(paths);
    }
    let frozen_before = freezer::is_frozen(paths).unwrap_or(false);
    // Held still, none can be born between reading and signalling, and no number is reused.
    let held = !frozen_before && freezer::freeze(paths).is_ok();
    let sent = all(paths).and_then(|pids| pids.into_iter().try_for_each(|pid| send(pid, signal)));
    if held {
        freezer::thaw(paths)?;
    }
    sent
}

fn kill_all(paths: &Paths) -> Result<(), Error> {
    // Kernel 5.14: all at once, those born meanwhile and those frozen by v2 included.
    let at_once = paths
        .get("")
        .and_then(|path| Dir::open(path, &[""]).ok())
        .is_some_and(|dir| dir.try_write("cgroup.kill", "1").is_ok());
    if at_once && paths.is_v2() {
        return Ok(());
    }
    // What v1 holds frozen takes the signal only when it thaws.
    freezer::thaw_tree(paths)?;
    let mut told = Vec::new();
    for _ in 0..ROUNDS_MAX {
        // Where there is no freezer, or it cannot hold them, rounds must do.
        let held = !at_once && freezer::freeze(paths).is_ok();
        let pids = all(paths)?;
        let killed = pids.iter().try_for_each(|&pid| send(pid, Signal::KILL));
        if held {
            freezer::thaw(paths)?;
        }
        killed?;
        if pids.iter().all(|pid| told.contains(pid)) {
            break; // none was born: all that is left is dying
        }
        told = pids;
    }
    Ok(())
}

fn send(pid: Pid, signal: Signal) -> Result<(), Error> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(Error::Signal {
            pid: pid.as_raw_nonzero().get(),
            source,
        }),
    }
}

/// The hierarchy whose processes are taken for the container's: one that the
/// container cannot leave by itself, and every host has.
fn home(paths: &Paths) -> Option<&Path> {
    let names = if paths.is_v2() {
        &[""][..]
    } else {
        &["devices", "freezer", "pids", ""][..]
    };
    names
        .iter()
        .find_map(|name| paths.get(name))
        .or_else(|| paths.directories().first().map(|(path, _)| *path))
}

/// Calls `visit` for the cgroup at `path` and all below, parents first. What
/// vanishes meanwhile is passed over.
pub(super) fn walk(
    path: &Path,
    visit: &mut dyn FnMut(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left: Vec<(PathBuf, usize)> = vec![(path.to_owned(), 0)];
    while let Some((dir, depth)) = left.pop() {
        visit(&dir)?;
        if depth < DEPTH_MAX {
            left.extend(children(&dir)?.into_iter().map(|child| (child, depth + 1)));
        }
    }
    Ok(())
}

/// The cgroups directly below.
pub(super) fn children(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let entries = match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => Entries::new(fd).map_err(read)?,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(source) => return Err(read(source)),
    };
    // A directory has two links and one more for each child, so most are known to have none.
    if rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2)
    {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(source) => return Err(read(source)),
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            found.push(path.join(std::ffi::OsStr::new(&*name.to_string_lossy())));
        }
    }
    Ok(found)
}
