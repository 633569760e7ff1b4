//! Which namespaces are made, which are joined, and by whom.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::Error;
use crate::init::{Failure, Step};
use crate::proc;
use crate::spec::{IdMapping, Linux, NamespaceType, TimeOffset, invalid};

/// What happens to each namespace.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Flags of the one `clone3(2)`.
    pub clone_flags: i32,
    /// Whether init leaves the cgroup namespace: only after it was moved.
    pub unshare_cgroup: bool,
    /// Whether init leaves the time namespace; after `clone3(2)` its offsets
    /// could no longer be written.
    pub unshare_time: bool,
    /// Whether init leaves the IPC namespace: the file system of its message
    /// queues belongs to who made it, so in a new user namespace that must be
    /// the mapped root.
    pub unshare_ipc: bool,
    /// Text for `/proc/PID/timens_offsets`, or empty.
    pub time_offsets: String,
    /// Namespaces to join.
    pub join: Vec<(NamespaceType, PathBuf)>,
    /// Whether a helper must join on behalf of init: a joined pid namespace
    /// takes effect on children only, and what the host owns must be joined
    /// before the privileges over the host are left behind.
    pub helper: bool,
    /// Texts for `/proc/PID/uid_map` and `gid_map` of a new user namespace.
    pub maps: Option<(String, String)>,
    /// Whether init takes the ids 0 of its user namespace.
    pub root_mapped: bool,
}

impl Plan {
    /// Plans from a checked specification.
    pub(crate) fn new(linux: &Linux) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        for namespace in &linux.namespaces {
            if !namespace.path.as_os_str().is_empty() {
                plan.join.push((namespace.kind, namespace.path.clone()));
                continue;
            }
            match namespace.kind {
                NamespaceType::Cgroup => plan.unshare_cgroup = true,
                NamespaceType::Time => plan.unshare_time = true,
                kind => plan.clone_flags |= flag(kind),
            }
        }
        let new_user = plan.clone_flags & libc::CLONE_NEWUSER != 0;
        if new_user && plan.clone_flags & libc::CLONE_NEWIPC != 0 {
            plan.clone_flags &= !libc::CLONE_NEWIPC;
            plan.unshare_ipc = true;
        }
        let joins = |kind| plan.join.iter().any(|(joined, _)| *joined == kind);
        let joined_user = joins(NamespaceType::User);
        plan.helper =
            joins(NamespaceType::Pid) || joined_user || (new_user && !plan.join.is_empty());
        // A user namespace is entered first, whatever the file's order.
        plan.join
            .sort_by_key(|(kind, _)| *kind != NamespaceType::User);
        if new_user {
            plan.maps = Some((map_text(&linux.uid_mappings), map_text(&linux.gid_mappings)));
        }
        let maps_zero =
            |maps: &[IdMapping]| maps.iter().any(|map| map.container == 0 && map.size > 0);
        plan.root_mapped = joined_user
            || (new_user && maps_zero(&linux.uid_mappings) && maps_zero(&linux.gid_mappings));
        if plan.unshare_time {
            plan.time_offsets = offsets_text(linux.time_offsets.iter())?;
        }
        Ok(plan)
    }
}

/// The flag of a kind, for clone3(2), unshare(2) and setns(2).
pub(crate) fn flag(kind: NamespaceType) -> i32 {
    match kind {
        NamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceType::Ipc => libc::CLONE_NEWIPC,
        NamespaceType::Mount => libc::CLONE_NEWNS,
        NamespaceType::Network => libc::CLONE_NEWNET,
        NamespaceType::Pid => libc::CLONE_NEWPID,
        NamespaceType::Time => libc::CLONE_NEWTIME,
        NamespaceType::User => libc::CLONE_NEWUSER,
        NamespaceType::Uts => libc::CLONE_NEWUTS,
    }
}

/// The name below `/proc/PID/ns`.
pub(crate) fn proc_name(kind: NamespaceType) -> &'static str {
    match kind {
        NamespaceType::Cgroup => "cgroup",
        NamespaceType::Ipc => "ipc",
        NamespaceType::Mount => "mnt",
        NamespaceType::Network => "net",
        NamespaceType::Pid => "pid",
        NamespaceType::Time => "time",
        NamespaceType::User => "user",
        NamespaceType::Uts => "uts",
    }
}

fn link_type(kind: NamespaceType) -> LinkNameSpaceType {
    match kind {
        NamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceType::Mount => LinkNameSpaceType::Mount,
        NamespaceType::Network => LinkNameSpaceType::Network,
        NamespaceType::Pid => LinkNameSpaceType::ProcessID,
        NamespaceType::Time => LinkNameSpaceType::Time,
        NamespaceType::User => LinkNameSpaceType::User,
        NamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
    }
}

/// The text of an id map, a line each (`user_namespaces(7)`).
pub(crate) fn map_text(maps: &[IdMapping]) -> String {
    maps.iter()
        .map(|map| format!("{} {} {}\n", map.container, map.host, map.size))
        .collect()
}

fn offsets_text<'a>(
    offsets: impl Iterator<Item = (&'a String, &'a TimeOffset)>,
) -> Result<String, Error> {
    let mut text = String::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(invalid(
                "linux.timeOffsets",
                &format!("{clock:?} is not a clock with an offset"),
            ));
        }
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(text)
}

/// Writes the id maps of a child in a new user namespace. An ordinary user may
/// map only itself, and no groups may be dropped then (`user_namespaces(7)`);
/// further ids are mapped by newuidmap(1) and newgidmap(1), who know which
/// ones the user owns.
pub(crate) fn write_maps(pid: i32, uids: &str, gids: &str) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() && uids.lines().count() == 1 {
        proc::write_child(pid, "setgroups", "deny")
            .map_err(Error::on("deny setgroups of pid", pid))?;
    }
    for (file, text, helper) in [
        ("uid_map", uids, "newuidmap"),
        ("gid_map", gids, "newgidmap"),
    ] {
        match proc::write_child(pid, file, text) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                map_with_helper(helper, pid, text)?;
            }
            result => result.map_err(Error::on(
                "write id map",
                format!("{file}: {}", text.trim_end()),
            ))?,
        }
    }
    Ok(())
}

fn map_with_helper(helper: &'static str, pid: i32, text: &str) -> Result<(), Error> {
    let mut command = std::process::Command::new(helper);
    command.arg(pid.to_string()).args(text.split_whitespace());
    let output = command.output().map_err(Error::on("run", helper))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr)
        .trim_end()
        .to_owned();
    Err(Error::State(format!(
        "{helper} {pid} {}: {said}",
        text.trim_end()
    )))
}

/// An opened namespace that will be joined.
pub(crate) type Opened = (NamespaceType, PathBuf, OwnedFd);

/// Opens all that will be joined, while the paths still mean the host's.
pub(crate) fn open(join: &[(NamespaceType, PathBuf)]) -> Result<Vec<Opened>, Error> {
    let open = |(kind, path): &(NamespaceType, PathBuf)| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(Error::on("open namespace", path))?;
        Ok((*kind, path.clone(), fd))
    };
    join.iter().map(open).collect()
}

/// Joins them all. What cannot be joined with the privileges at hand is tried
/// again after the user namespace: that one may own it. `setns(2)`.
pub(crate) fn join(opened: &[Opened]) -> Result<(), Failure> {
    let enter = |(kind, path, fd): &Opened| {
        move_into_link_name_space(fd.as_fd(), Some(link_type(*kind))).map_err(|errno| {
            (
                errno,
                Step::Join.on(format!("{} namespace {path:?}", proc_name(*kind)))(errno),
            )
        })
    };
    let (user, others): (Vec<_>, Vec<_>) = opened
        .iter()
        .partition(|(kind, ..)| *kind == NamespaceType::User);
    let mut later = Vec::new();
    for namespace in others {
        match enter(namespace) {
            Ok(()) => (),
            Err((Errno::PERM, _)) if !user.is_empty() => later.push(namespace),
            Err((_, failure)) => return Err(failure),
        }
    }
    for namespace in user.into_iter().chain(later) {
        enter(namespace).map_err(|(_, failure)| failure)?;
    }
    Ok(())
}

/// Leaves the cgroup namespace.
pub(crate) fn unshare_cgroup() -> Result<(), Failure> {
    crate::sys::unshare(UnshareFlags::NEWCGROUP).map_err(Step::Unshare.on("cgroup namespace"))
}

/// Leaves the IPC namespace.
pub(crate) fn unshare_ipc() -> Result<(), Failure> {
    crate::sys::unshare(UnshareFlags::NEWIPC).map_err(Step::Unshare.on("ipc namespace"))
}

/// Leaves the time namespace for its children and for what is executed.
pub(crate) fn unshare_time() -> Result<(), Failure> {
    let newtime = UnshareFlags::from_bits_retain(libc::CLONE_NEWTIME as u32);
    crate::sys::unshare(newtime).map_err(Step::Unshare.on("time namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(linux: &str) -> Plan {
        Plan::new(&serde_json::from_str(linux).unwrap()).unwrap()
    }

    #[test]
    fn cgroup_and_time_are_left_for_later() {
        let plan = plan(r#"{"namespaces":[{"type":"pid"},{"type":"cgroup"},{"type":"time"}]}"#);
        assert_eq!(plan.clone_flags, libc::CLONE_NEWPID);
        assert!(plan.unshare_cgroup && plan.unshare_time && !plan.helper);
    }

    #[test]
    fn a_joined_network_needs_no_helper() {
        let plan =
            plan(r#"{"namespaces":[{"type":"network","path":"/proc/1/ns/net"},{"type":"pid"}]}"#);
        assert!(!plan.helper);
        assert_eq!(plan.join.len(), 1);
    }

    #[test]
    fn a_joined_pid_namespace_needs_a_helper_and_the_user_comes_first() {
        let plan =
            plan(r#"{"namespaces":[{"type":"pid","path":"/a"},{"type":"user","path":"/b"}]}"#);
        assert!(plan.helper);
        assert_eq!(plan.join[0].0, NamespaceType::User);
    }

    #[test]
    fn maps_become_lines() {
        let plan = plan(
            r#"{"namespaces":[{"type":"user"}],
                "uidMappings":[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65536}],
                "gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#,
        );
        let (uids, gids) = plan.maps.unwrap();
        assert_eq!(uids, "0 1000 1\n1 100000 65536\n");
        assert_eq!(gids, "0 1000 1\n");
        assert!(plan.root_mapped);
    }
}
