//! `features`: what this runtime supports (features.md, features-linux.md).
//! Everything listed is carried out; what is absent is not.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::process::caps;
use crate::process::execution::memory;
use crate::rootfs::options;
use crate::spec::OCI_VERSION;
use crate::spec::seccomp::{Action, Arch, Flag, Operator};

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: [&'static str; 6],
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: [&'static str; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: [&'static str; 8],
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    mount_extensions: Extensions,
    net_devices: Enabled,
    memory_policy: MemoryPolicy,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [Action],
    operators: &'static [Operator],
    archs: &'static [Arch],
    known_flags: &'static [Flag],
    supported_flags: &'static [Flag],
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: &'static [&'static str],
    flags: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct Extensions {
    idmap: Enabled,
}

/// Seccomp actions that are carried out.
const ACTIONS: [Action; 9] = [
    Action::Allow,
    Action::Errno,
    Action::Kill,
    Action::KillProcess,
    Action::KillThread,
    Action::Log,
    Action::Notify,
    Action::Trace,
    Action::Trap,
];

/// The report on this version.
pub(crate) fn features() -> Features {
    let enabled = |enabled| Enabled { enabled };
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: OCI_VERSION,
        hooks: [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        mount_options: options::known(),
        linux: Linux {
            namespaces: [
                "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
            ],
            capabilities: &caps::NAMES,
            cgroup: Cgroup {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: Seccomp {
                enabled: true,
                actions: &ACTIONS,
                operators: &Operator::ALL,
                archs: &Arch::ALL,
                known_flags: &Flag::ALL,
                supported_flags: &Flag::ALL,
            },
            apparmor: enabled(true),
            selinux: enabled(true),
            intel_rdt: IntelRdt {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            mount_extensions: Extensions {
                idmap: enabled(true),
            },
            net_devices: enabled(true),
            memory_policy: MemoryPolicy {
                modes: &memory::MODES,
                flags: &memory::FLAGS,
            },
        },
        annotations: BTreeMap::from([
            ("io.github.teu.runtime.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]),
        potentially_unsafe_config_annotations: ["org.criu.config"],
    }
}
