//! The process above a pod's shim, for the case that the shim is killed.
//!
//! Containers whose shim died become its children, and so their statuses stay
//! in the process table until `delete` has asked for them: otherwise process 1
//! would reap a container that exits in just that moment, and how it ended would be
//! unknown. It does nothing else, writes nothing, and leaves with its last child.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use super::flags::Flags;
use super::record::{Record, Seen};
use super::{bundle, start};
use crate::Error;
use crate::error::At as _;
use crate::supervisor::event_loop::SIGNALS;

/// How often it is looked, after the death of the shim, who may go.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Starts the shim, with the socket that is standard input, and keeps what it leaves.
///
/// # Errors
/// That the shim cannot be executed.
pub fn keep(flags: &Flags) -> Result<(), Error> {
    // Only SIGKILL ends it, as the shim. Held to the end: signals stay blocked without it too.
    let _signals: OwnedFd = crate::sys::signalfd(&SIGNALS).call("signalfd")?;
    set_child_subreaper(Some(getpid())).call("prctl")?;
    let bundle = std::env::current_dir().call("getcwd")?;
    let shim = start::command(flags)?
        .stdin(Stdio::inherit())
        .spawn()
        .call("execute the shim")?;
    let shim = i32::try_from(shim.id()).ok().and_then(Pid::from_raw);
    // The socket is the shim's: nobody shall be kept waiting at it when the shim is gone.
    let path = Path::new("/dev/null");
    let null = File::open(path).at("open", path)?;
    rustix::stdio::dup2_stdin(&null).call("dup2")?;
    drop(null);
    crate::sys::rest();
    while let Err(Errno::INTR) = waitpid(shim, WaitOptions::empty()) {}
    let bundles = bundle.parent().unwrap_or(Path::new("/"));
    while let Some(children) = children().filter(|children| !children.is_empty()) {
        for pid in children {
            if !is_wanted(bundles, pid) {
                let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// The pids of this process's children. `proc_tid_children(5)`
fn children() -> Option<Vec<i32>> {
    let text = bundle::read_text(Path::new("/proc/thread-self/children")).ok()?;
    let pids = text.split_whitespace();
    Some(pids.filter_map(|pid| pid.parse().ok()).collect())
}

/// Whether the status of process `pid` is still to be asked for: a bundle names
/// it, and does not know how it ended.
fn is_wanted(bundles: &Path, pid: i32) -> bool {
    let folders = std::fs::read_dir(bundles).into_iter().flatten().flatten();
    let mut records = folders.filter_map(|folder| Record::read(&folder.path()));
    records.any(|record| {
        let is_asked = record.process.pid == pid && record.exit.is_none();
        is_asked && matches!(record.look(), Some(Seen::Alive | Seen::Ended(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_what_a_bundle_asks_for_is_kept() {
        let bundles = tempfile::tempdir().unwrap();
        let bundle = bundles.path().join("c1");
        std::fs::create_dir(&bundle).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_wanted(bundles.path(), pid), "no record");
        let mut record = Record::of(pid);
        record.write(&bundle).unwrap();
        assert!(is_wanted(bundles.path(), pid));
        assert!(!is_wanted(bundles.path(), pid + 1));
        child.kill().unwrap();
        while record.look() == Some(Seen::Alive) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_wanted(bundles.path(), pid), "it ended and was not asked");
        record.exit = Some(super::super::record::Ended {
            status: 137,
            seconds: 1,
            nanos: 0,
        });
        record.write(&bundle).unwrap();
        assert!(!is_wanted(bundles.path(), pid), "the status is known");
        child.wait().unwrap();
    }
}
