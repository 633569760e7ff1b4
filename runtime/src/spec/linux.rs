//! `linux` (config-linux.md) but for resources and seccomp.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::resources::Resources;
use super::seccomp::Seccomp;
use super::{invalid, nullable};
use crate::error::Error;

/// All that exists only on Linux.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Linux {
    /// User ids of a new user namespace.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters, by their dotted name.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub sysctl: BTreeMap<String, String>,
    /// Where the container stands in the cgroup hierarchy.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub cgroups_path: String,
    /// Limits of the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// System calls that the container may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Namespaces to make or to join; those not named are the runtime's own.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub namespaces: Vec<Namespace>,
    /// Device nodes to make.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub devices: Vec<Device>,
    /// Propagation of the root mount.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub rootfs_propagation: String,
    /// Paths that read as empty.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub masked_paths: Vec<PathBuf>,
    /// Paths that cannot be written to.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub readonly_paths: Vec<PathBuf>,
    /// SELinux label of the mounts made here.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub mount_label: String,
    /// Offsets of the clocks in a new time namespace, by clock.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Execution domain of every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// NUMA policy of every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Network devices to move into the container, by their name on the host.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
}

/// `linux.intelRdt`: a class of service of the processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntelRdt {
    /// Name of the class; empty for one of the container's own, `/` for the default.
    #[serde(
        default,
        rename = "closID",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub clos_id: String,
    /// Ways of the last-level cache, `L3:0=7f0;1=1f`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub l3_cache_schema: String,
    /// Memory bandwidth, `MB:0=20;1=70`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub mem_bw_schema: String,
    /// Further lines of `schemata`, as they are.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub schemata: Vec<String>,
    /// Whether the container is counted by itself.
    #[serde(default, deserialize_with = "nullable")]
    pub enable_monitoring: bool,
}

/// `linux.personality`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// Flags, of which the specification defines none.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub flags: Vec<String>,
}

/// `linux.memoryPolicy`: names as in `set_mempolicy(2)`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct MemoryPolicy {
    /// Mode, such as `MPOL_BIND`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub mode: String,
    /// Nodes, such as `0-3,7`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub nodes: String,
    /// Flags, such as `MPOL_F_STATIC_NODES`.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub flags: Vec<String>,
}

/// One line of an id map (`user_namespaces(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Namespace {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: NamespaceType,
    /// The namespace to join; empty to make a new one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "is_empty_path"
    )]
    pub path: PathBuf,
}

fn is_empty_path(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// The kinds of namespaces, by their names in the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceType {
    /// Cgroup root.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mount table.
    Mount,
    /// Network stack.
    Network,
    /// Process ids.
    Pid,
    /// Boot and monotonic clocks.
    Time,
    /// User and group ids, capabilities.
    User,
    /// Host and domain name.
    Uts,
}

/// Shift of one clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct TimeOffset {
    /// Seconds.
    #[serde(default)]
    pub secs: i64,
    /// Nanoseconds.
    #[serde(default)]
    pub nanosecs: u32,
}

/// One of `linux.netDevices`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct NetDevice {
    /// Its name in the container, where it gets another one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
}

/// One of `linux.devices`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    /// `c`, `u`, `b` or `p`, as mknod(1) spells them.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where, inside the container.
    pub path: PathBuf,
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Linux {
    /// Whether, and how, a namespace of this kind is named.
    pub(crate) fn namespace(&self, kind: NamespaceType) -> Option<&Namespace> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.kind == kind)
    }

    /// Checks what no type can express.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            if self.namespaces[..index]
                .iter()
                .any(|earlier| earlier.kind == namespace.kind)
            {
                return Err(invalid(
                    &field,
                    &format!("{:?} is named twice", namespace.kind).to_lowercase(),
                ));
            }
            if !is_empty_path(&namespace.path) && !namespace.path.is_absolute() {
                return Err(invalid(&format!("{field}.path"), "is not an absolute path"));
            }
        }
        let new_user = self
            .namespace(NamespaceType::User)
            .is_some_and(|n| is_empty_path(&n.path));
        let mapped = !self.uid_mappings.is_empty() || !self.gid_mappings.is_empty();
        if mapped && self.namespace(NamespaceType::User).is_none() {
            return Err(invalid(
                "linux.uidMappings",
                "needs a user namespace in linux.namespaces",
            ));
        }
        if new_user && (self.uid_mappings.is_empty() || self.gid_mappings.is_empty()) {
            return Err(invalid(
                "linux.uidMappings",
                "and linux.gidMappings are needed for a new user namespace",
            ));
        }
        if !self.time_offsets.is_empty() && self.namespace(NamespaceType::Time).is_none() {
            return Err(invalid(
                "linux.timeOffsets",
                "needs a time namespace in linux.namespaces",
            ));
        }
        Ok(())
    }
}
