//! Leaving who started the supervisor.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::io::FdFlags;
use rustix::process::{Pid, set_child_subreaper, setsid};

use super::parent::{Parent, Protocol};
use crate::Error;
use crate::error::At as _;

/// How ready the kernel is to kill this process when memory runs out. `proc_pid_oom_score_adj(5)`.
pub(super) const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// Never: who watches a container must outlive it.
const OOM_SCORE_NEVER: &str = "-1000";

/// What the caller left open.
#[derive(Debug)]
pub struct Inherited {
    /// The pipes that it named.
    pub parent: Parent,
    /// All else: podman's listening sockets, which keep published ports taken
    /// while the container lives. The runtime inherits them too.
    pub others: Vec<OwnedFd>,
}

/// Finds the caller's pipes by their variables, in what it left `open`.
///
/// # Errors
/// A variable that names no open descriptor.
pub fn inherited(protocol: Protocol, open: Vec<OwnedFd>) -> Result<Inherited, Error> {
    let mut others = open;
    let mut take = |variable: &'static str| -> Result<Option<OwnedFd>, Error> {
        let Some(text) = std::env::var_os(variable) else {
            return Ok(None);
        };
        let number = text.to_str().and_then(|text| text.parse::<i32>().ok());
        let place = others.iter().position(|fd| Some(fd.as_raw_fd()) == number);
        let place = place.ok_or_else(|| Error::Invalid(format!("unable to parse {variable}")))?;
        let fd = others.swap_remove(place);
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).call("fcntl")?;
        Ok(Some(fd))
    };
    let parent = Parent {
        protocol,
        start: take("_OCI_STARTPIPE")?,
        sync: take("_OCI_SYNCPIPE")?,
        attach: take("_OCI_ATTACHPIPE")?,
    };
    Ok(Inherited { parent, others })
}

/// Asks the kernel to spare this process when memory runs out. Returns what
/// the runtime must set for itself and the container: the old value, but none
/// that spares them. Best effort: it needs a privilege.
#[must_use]
pub fn outlive_memory() -> Option<String> {
    let old = std::fs::read_to_string(OOM_SCORE).ok()?;
    std::fs::write(OOM_SCORE, OOM_SCORE_NEVER).ok()?;
    let old: i32 = old.trim().parse().ok()?;
    Some(old.max(0).to_string())
}

/// Goes on as a child, whose pid is in `pid_file` before the parent leaves.
/// `true`: this is the parent.
///
/// # Errors
/// What the kernel says.
pub fn fork(pid_file: Option<&Path>) -> Result<bool, Error> {
    let Some(child) = crate::sys::fork().call("Failed to fork the create command")? else {
        return Ok(false);
    };
    if let Some(path) = pid_file {
        write_pid(path, child)?;
    }
    Ok(true)
}

fn write_pid(path: &Path, pid: Pid) -> Result<(), Error> {
    super::ending::replace(path, pid.as_raw_nonzero().to_string().as_bytes())
}

/// Becomes the leader of a session of its own, and the parent of the
/// container's process once the runtime has left it.
///
/// # Errors
/// What the kernel says.
pub fn settle() -> Result<(), Error> {
    // Fails only where it already leads one.
    let _: rustix::io::Result<Pid> = setsid();
    set_child_subreaper(Some(rustix::process::getpid())).call("prctl")
}

/// Leaves the caller's standard streams: it may wait for their end.
///
/// # Errors
/// What the kernel says.
pub fn leave_streams() -> Result<(), Error> {
    let null = Path::new("/dev/null");
    let null = File::options()
        .read(true)
        .write(true)
        .open(null)
        .at("open", null)?;
    rustix::stdio::dup2_stdin(&null).call("dup2")?;
    rustix::stdio::dup2_stdout(&null).call("dup2")?;
    rustix::stdio::dup2_stderr(&null).call("dup2")
}
