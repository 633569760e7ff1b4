//! Handing a container's cgroup over to the user that its processes are.
//!
//! runtime-spec config-linux.md, "Cgroup ownership": on cgroup v2 alone, with a
//! cgroup namespace of its own and a writable mount of cgroups, root in the
//! container may make cgroups below its own. Its limits stay the runtime's.

use std::path::{Component, Path};

use rustix::fs::{AtFlags, Uid, chownat};
use rustix::io::Errno;

use super::{Error, Group, dir};
use crate::spec::{IdMapping, NO_ID, NamespaceType, Spec};

/// The files that a kernel lets a delegate write (cgroups(7)).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// The same for a kernel before 4.15, which has no such list.
const DELEGATE_USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The user of the host that should own the container's cgroup, if any.
pub(crate) fn owner(spec: &Spec) -> Option<u32> {
    let namespace = spec.linux.namespace(NamespaceType::Cgroup)?;
    if !namespace.path.as_os_str().is_empty() {
        return None;
    }
    let writable = spec.mounts.iter().any(|mount| {
        mount.source == "cgroup"
            && is_cgroup_root(&mount.destination)
            && !mount.options.iter().any(|option| option == "ro")
    });
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    if writable {
        host_id(&spec.linux.uid_mappings, uid)
    } else {
        None
    }
}

/// `/sys/fs/cgroup`, however it is spelled.
fn is_cgroup_root(path: &Path) -> bool {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.eq(Path::new("/sys/fs/cgroup").components())
}

/// What an id of the container is outside. Unmapped, or without a user
/// namespace, it is nobody's cgroup to be given.
fn host_id(maps: &[IdMapping], id: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let offset = id.checked_sub(map.container)?;
        let host = (offset < map.size).then(|| map.host.checked_add(offset))?;
        host.filter(|&host| host != NO_ID)
    })
}

impl Group {
    /// Makes `uid` the owner of the cgroup and of the files in it that are meant
    /// for delegates. One that this cgroup does not have is passed over.
    pub(crate) fn hand_over(&self, uid: u32) -> Result<(), Error> {
        let Some(cgroup) = self.unified().filter(|_| self.is_v2) else {
            return Ok(());
        };
        let list = dir::read_path(Path::new(DELEGATE)).unwrap_or(DELEGATE_USUAL.to_owned());
        let files = list.lines().filter(|file| !file.contains('/'));
        for file in std::iter::once(".").chain(files) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            match chownat(cgroup, file, Some(Uid::from_raw(uid)), None, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => {
                    return Err(Error::Owner {
                        path: cgroup.path().join(file),
                        uid,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner_of(change: &str) -> Option<u32> {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "mounts": [{"destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup",
                        "options": [if change == "ro" { "ro" } else { "nosuid" }]}],
            "process": {"user": {"uid": if change == "user" { 7 } else { 0 }, "gid": 0}, "args": ["x"], "cwd": "/"},
            "linux": {
                "namespaces": if change == "host" { serde_json::json!([]) } else { serde_json::json!([{"type": "cgroup"}]) },
                "uidMappings": [{"containerID": 0, "hostID": if change == "high" { u32::MAX } else { 100_000 }, "size": 5}]
            }
        });
        owner(&Spec::parse(spec.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn only_a_writable_mount_in_an_own_namespace_is_handed_over() {
        assert_eq!(owner_of(""), Some(100_000));
        assert_eq!(owner_of("ro"), None);
        assert_eq!(owner_of("host"), None);
        assert_eq!(owner_of("user"), None, "7 is not mapped");
    }

    #[test]
    fn ids_are_mapped_by_the_line_that_holds_them() {
        let maps = [(0, 1000, 1), (1, 100_000, 10)].map(|(container, host, size)| IdMapping {
            container,
            host,
            size,
        });
        assert_eq!(host_id(&maps, 0), Some(1000));
        assert_eq!(host_id(&maps, 10), Some(100_009));
        assert_eq!(host_id(&maps, 11), None);
        assert_eq!(host_id(&[], 0), None);
    }
}
