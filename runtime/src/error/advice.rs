//! What to do about an error, where it can be known from the error alone.

use super::Error;
use crate::container::agent;
use crate::init::{Failure, Step};

/// What may help against an error, in a few words.
pub(super) fn against(error: &Error) -> Option<&'static str> {
    match error {
        Error::State(words) => state(words),
        Error::Init(failure) | Error::Exec(failure) | Error::Mounts(failure) => step(failure),
        Error::System { source, .. } if crate::file::is_damage(source) => {
            Some("delete --force removes the container")
        }
        Error::System {
            action,
            object,
            source,
        } => {
            let errno = source.raw_os_error()?;
            system(action, object, errno).or_else(|| privilege(errno))
        }
        Error::Json { path, .. } if path.ends_with(crate::state::STATE) => {
            Some("delete --force removes the container")
        }
        Error::Cgroup(cgroup) => match cgroup {
            crate::cgroup::Error::NotEmpty { .. } => {
                Some("end those processes, or name another linux.cgroupsPath")
            }
            crate::cgroup::Error::Frozen { .. } => {
                Some("thaw it, or name another linux.cgroupsPath")
            }
            crate::cgroup::Error::Create { source, .. }
                if matches!(source.raw_os_error(), libc::EACCES | libc::EPERM) =>
            {
                undelegated(rustix::process::geteuid().is_root())
            }
            _ => None,
        },
        _ => None,
    }
}

/// A cgroup that an ordinary user may not make.
fn undelegated(is_root: bool) -> Option<&'static str> {
    (!is_root).then_some(
        "its parent is not delegated to this user: let root give this user a cgroup for \
         linux.cgroupsPath, use --systemd-cgroup, or leave linux.cgroupsPath and the limits out",
    )
}

/// By the words of runc that callers know.
fn state(words: &str) -> Option<&'static str> {
    const ADVICE: &[(&str, &str)] = &[
        (
            "container does not exist",
            "teu-runtime list shows those that do; is --root the one it was created with?",
        ),
        (
            "container with given ID already exists",
            "choose another id, or delete that one",
        ),
        (
            "cannot start a container that has stopped",
            "delete it and create it again",
        ),
        (
            "cannot start an already running container",
            "exec adds a process to it",
        ),
    ];
    let found = ADVICE.iter().find(|(start, _)| words == *start);
    found.map(|(_, advice)| *advice)
}

fn system(action: &str, object: &str, errno: i32) -> Option<&'static str> {
    match (action, errno) {
        ("open", libc::ENOENT | libc::ENOTDIR) if object.ends_with("/config.json\"") => Some(
            "a bundle is a folder with config.json: name it with --bundle; \
             teu-runtime spec writes a first config.json",
        ),
        ("open namespace", libc::ENOENT) => {
            Some("the process or the file that kept the namespace is gone")
        }
        ("connect to" | agent::UNREACHED, libc::ENOENT) => Some("nobody has made this socket"),
        ("connect to" | agent::UNREACHED, libc::ECONNREFUSED) => {
            Some("nobody listens on this socket")
        }
        ("write pid file" | "open log file" | "open trace file", libc::ENOENT) => {
            Some("its folder is not there")
        }
        ("open", libc::ENXIO) => Some("run needs a terminal of its own, or --detach"),
        _ => None,
    }
}

fn privilege(errno: i32) -> Option<&'static str> {
    let refused = matches!(errno, libc::EPERM | libc::EACCES);
    (refused && !rustix::process::geteuid().is_root()).then_some(
        "an ordinary user may do little, and nothing without a user namespace: see teu-runtime spec --rootless",
    )
}

fn step(failure: &Failure) -> Option<&'static str> {
    if !failure.advice.is_empty() {
        return None;
    }
    match (failure.step, failure.errno) {
        (Step::Mount, libc::ENODEV) => {
            Some("this kernel has no such file system: /proc/filesystems lists those it has")
        }
        (Step::MountPoint, libc::ENOTDIR) => Some("a file stands in its way"),
        (Step::MountPoint, libc::EROFS) => {
            Some("the rootfs is read-only: make the mount point in it beforehand")
        }
        (Step::Cwd, libc::EACCES) => Some("the user of the process may not enter it"),
        (Step::Cwd, libc::ENOTDIR) => Some("a file stands in its place"),
        (Step::Sysctl, libc::ENOENT) => Some("this kernel has no such parameter"),
        (Step::Sysctl, libc::EINVAL) => Some("the kernel does not take this value"),
        (Step::Join, libc::EINVAL) => Some("it is a namespace of another kind"),
        (Step::Rlimit, libc::EPERM) => Some(
            "a hard limit above the runtime's own needs CAP_SYS_RESOURCE: ulimit -H shows those",
        ),
        (_, errno) => privilege(errno),
    }
}
