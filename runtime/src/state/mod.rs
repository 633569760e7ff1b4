//! What is remembered about containers.
//!
//! ```text
//! ROOT/                       0700; --root
//! └── <id>/                   0700; its flock(2) is the container's lock
//!     ├── state.json          the intent, before any side effect; whole by rename,
//!     │                       its first member the checksum of all behind it
//!     ├── init -> PID:TICKS:CHECKSUM
//!     │                       a symbolic link as a fact: init's pid and start time
//!     ├── created             an empty file as a fact: init waits for its start
//!     ├── running             an empty file as a fact: it was started
//!     ├── start               the gate's socket, where init waits
//!     ├── criu-root/          where CRIU mounts the root, while `restore` runs
//!     ├── notify/             only for a service: its socket to the manager
//!     ├── seccomp             the compiled filter, for `exec`; only with a profile
//!     └── failure             one page shared with init, for a failure under the filter
//! ```
//!
//! What changes is not rewritten but added, a fact a file: each appears in one
//! system call, whole or not at all, and costs a tenth of replacing a file.

mod dir;
mod root;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::container::agent::Agent;
use crate::error::Error;
use crate::id::ContainerId;
use crate::resctrl;
use crate::spec::{Hook, MemoryPolicy, NamespaceType, Personality};

pub(crate) use dir::{Locked, StateDir};
pub(crate) use root::Root;

/// Name of the state file.
pub(crate) const STATE: &str = "state.json";

/// Largest state file that is read, in bytes: it holds annotations and hooks,
/// which the configuration's own limit bounds.
const STATE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Version of the state file's form; another one is not read.
const VERSION: u32 = 1;

/// How far a container has come. Whether it still lives is asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Being made; what is there may be incomplete.
    #[default]
    Creating,
    /// Waiting for `start`.
    Created,
    /// Started.
    Running,
}

/// A container's state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The container.
    pub id: String,
    /// `ociVersion` of its configuration.
    pub oci_version: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Who created it: a user id of the host.
    pub owner: u32,
    /// How far it has come; not in the file.
    #[serde(skip)]
    pub phase: Phase,
    /// Pid of init, 0 before there is one; not in the file.
    #[serde(skip)]
    pub pid: i32,
    /// Start time of init in clock ticks since boot: a reused pid differs in
    /// it. Not in the file.
    #[serde(skip)]
    pub start_ticks: u64,
    /// Its cgroups, known before they exist.
    pub cgroups: cgroup::Paths,
    /// Its group in resctrl, known before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// Its unit of systemd's, where the cgroups are one's; known before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<cgroup::systemd::Unit>,
    /// Whether so little memory is allowed that init may not reach its program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tiny_memory: bool,
    /// Whether its processes keep the session keyring of who starts them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub callers_keyring: bool,
    /// Namespaces that are not the host's.
    pub namespaces: Vec<NamespaceType>,
    /// Who decides on system calls that the filter does not settle.
    pub agent: Option<Agent>,
    /// Execution domain of its processes.
    #[serde(default)]
    pub personality: Option<Personality>,
    /// NUMA policy of its processes.
    #[serde(default)]
    pub memory_policy: Option<MemoryPolicy>,
    /// Hooks that are still to be run.
    pub hooks: LaterHooks,
    /// Annotations of the configuration.
    pub annotations: BTreeMap<String, String>,
}

/// Hooks of `start` and `delete`: the bundle may be gone by then.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LaterHooks {
    /// After the program has started.
    pub poststart: Vec<Hook>,
    /// After the container is deleted.
    pub poststop: Vec<Hook>,
}

/// Below this limit of memory, in bytes, init is looked after when it starts:
/// with 64 KiB it is killed before its program, with 512 KiB it is not.
const TINY_MEMORY_BYTES: i64 = 4 * 1024 * 1024;

fn has_tiny_memory(spec: &crate::spec::Spec) -> bool {
    let resources = spec.linux.resources.as_ref();
    let memory = resources.and_then(|resources| resources.memory.as_ref());
    memory
        .and_then(|memory| memory.limit)
        .is_some_and(|limit| (1..TINY_MEMORY_BYTES).contains(&limit))
}

impl State {
    /// The state of a container of which nothing exists yet.
    pub(crate) fn intent(
        id: &ContainerId,
        spec: &crate::spec::Spec,
        bundle: &Path,
        rootfs: &Path,
        cgroups: cgroup::Paths,
    ) -> State {
        State {
            version: VERSION,
            id: id.to_string(),
            oci_version: spec.oci_version.clone(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: crate::time::rfc3339_nanos(crate::time::now()),
            owner: rustix::process::geteuid().as_raw(),
            phase: Phase::Creating,
            pid: 0,
            start_ticks: 0,
            cgroups,
            resctrl: None,
            unit: None,
            tiny_memory: has_tiny_memory(spec),
            callers_keyring: false,
            namespaces: spec
                .linux
                .namespaces
                .iter()
                .map(|namespace| namespace.kind)
                .collect(),
            agent: Agent::of(spec.linux.seccomp.as_ref()),
            personality: spec.linux.personality.clone(),
            memory_policy: spec.linux.memory_policy.clone(),
            hooks: LaterHooks {
                poststart: spec.hooks.poststart.clone(),
                poststop: spec.hooks.poststop.clone(),
            },
            annotations: spec.annotations.clone(),
        }
    }

    /// Whether init is alive: neither ended nor another process with its pid.
    pub(crate) fn alive(&self) -> Result<bool, Error> {
        if self.pid <= 0 {
            return Ok(false);
        }
        crate::proc::lives(self.pid, self.start_ticks)
    }
}

impl Phase {
    /// Name of the file whose presence is the fact.
    fn fact(self) -> Option<&'static str> {
        match self {
            Phase::Creating => None,
            Phase::Created => Some("created"),
            Phase::Running => Some("running"),
        }
    }
}
