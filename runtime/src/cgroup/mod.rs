//! Control groups: paths, limits, devices, freezer, on v1, v2 and hybrid hosts.
//!
//! [`Layout::place`] decides where, [`Plan::new`] decides what; both before
//! anything is touched, so that the paths can be recorded and a bad limit is
//! found first. Then [`Group::create`], [`Group::apply`] and [`Group::join`]
//! act; [`Home`] does so, or lets systemd do it. What runs already is handled by
//! its recorded [`Paths`]: [`Group::open`] to join or to change it, [`procs`],
//! [`freezer`] and [`mod@remove`] for the rest.

mod common;
mod create;
mod delegation;
mod device_program;
mod devices;
mod dir;
mod exceptions;
pub(crate) mod freezer;
mod group;
mod home;
mod join;
mod layout;
mod oom;
mod owner;
mod plan;
pub(crate) mod procs;
mod remove;
mod stats;
pub(crate) mod systemd;
mod v1;
mod v2;
mod write;

use std::path::PathBuf;

use rustix::io::Errno;

pub(crate) use dir::Dir;
pub(crate) use group::Group;
pub(crate) use home::Home;
pub(crate) use join::{Doors, SubCgroup};
pub(crate) use layout::{Layout, Paths};
pub(crate) use oom::{OomWatch, kills};
pub(crate) use owner::owner;
pub(crate) use plan::Plan;
pub(crate) use remove::{remove, remove_unused};
pub(crate) use stats::Stats;

/// Removes a container's cgroups; those of a unit through systemd. What systemd
/// says is no reason to leave them behind, as with runc: a scope without
/// processes ends by itself.
pub(crate) fn destroy(unit: Option<&systemd::Unit>, paths: &Paths) -> Result<(), Error> {
    let _ = unit.map(systemd::Unit::stop);
    remove(paths)
}

/// Whether cgroups are not this process's to arrange: it is not root, or it is
/// in a user namespace.
pub(crate) fn is_unprivileged() -> Result<bool, Error> {
    Ok(!rustix::process::geteuid().is_root() || group::in_user_namespace()?)
}

impl Error {
    /// Whether the kernel denied it.
    pub(crate) fn is_denied(&self) -> bool {
        let errno = match self {
            Self::Join { source, .. } | Self::Enter { source, .. } => *source,
            _ => return false,
        };
        matches!(errno, Errno::ACCESS | Errno::PERM)
    }
}

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("look for cgroups at {path}: mount them, or cgroup2, there", path = path.display())]
    NoCgroups { path: PathBuf, source: Errno },
    #[error("cgroupsPath {path:?} is refused: {why}")]
    Path { path: String, why: &'static str },
    #[error("{0}")]
    Invalid(String),
    #[error("read {path}", path = path.display())]
    Read { path: PathBuf, source: Errno },
    #[error("write {value:?} to {path}", path = path.display())]
    Write {
        path: PathBuf,
        value: String,
        source: Errno,
    },
    /// The first words are those that tests know from runc.
    #[error("unable to apply cgroup configuration: create cgroup {path}", path = path.display())]
    Create { path: PathBuf, source: Errno },
    #[error("open cgroup {path}", path = path.display())]
    Open { path: PathBuf, source: Errno },
    #[error("give {path} to user {uid}", path = path.display())]
    Owner {
        path: PathBuf,
        uid: u32,
        source: Errno,
    },
    #[error("remove cgroup {path}", path = path.display())]
    Remove { path: PathBuf, source: Errno },
    #[error("container's cgroup is not empty: {count} process(es) found in {path}", path = path.display())]
    NotEmpty { path: PathBuf, count: usize },
    #[error("container's cgroup unexpectedly frozen: {path}", path = path.display())]
    Frozen { path: PathBuf },
    /// The words orchestrators and tests know from runc, then what to do.
    #[error("cannot set {controller} limit: container could not join or create cgroup ({advice})", advice = delegation::advice(controller, false))]
    NoCgroup { controller: String },
    #[error("rootless needs no limits + no cgrouppath when no permission is granted for cgroups")]
    NoPermission { source: Box<Error> },
    #[error("cannot set {file}: controller {controller:?} is not available in cgroup {path} ({advice})", path = path.display(), advice = delegation::advice(controller, true))]
    NoController {
        controller: String,
        file: String,
        path: PathBuf,
        source: Errno,
    },
    /// The words that tests know from runc, down to the file that it writes.
    #[error("adding pid of the process to cgroups: open {path}/cgroup.procs", path = path.display())]
    Enter { path: PathBuf, source: Errno },
    #[error("adding pid {pid} to cgroups: write {path}/cgroup.procs", path = path.display())]
    Join {
        pid: i32,
        path: PathBuf,
        source: Errno,
    },
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse {
        limit: String,
        usage: String,
        peak: String,
        source: Errno,
    },
    #[error("rejecting memory{and_swap} limit {limit} <= usage {usage}", and_swap = if *with_swap { "+swap" } else { "" })]
    BelowUsage {
        limit: i64,
        usage: i64,
        with_swap: bool,
    },
    #[error("{action} device program of cgroup {path}", path = path.display())]
    Devices {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the container has no cgroup with a freezer")]
    NoFreezer,
    #[error("unable to freeze {path}: processes kept it busy for {waited_ms} ms", path = path.display())]
    FreezeTimeout { path: PathBuf, waited_ms: u64 },
    #[error("signal process {pid}")]
    Signal { pid: i32, source: Errno },
    /// systemd, which was asked for them.
    #[error(transparent)]
    Systemd(systemd::Error),
}

impl Error {
    /// What it is about, and the field of `config.json` that asked for it as a
    /// JSON pointer; either may be empty.
    pub(crate) fn object(&self) -> (String, &'static str) {
        let whole = "/linux/cgroupsPath";
        match self {
            Error::Write { path, .. } => {
                let file = path.file_name().and_then(|name| name.to_str());
                (path.display().to_string(), field_of(file.unwrap_or("")))
            }
            Error::NoController { file, path, .. } => {
                (path.join(file).display().to_string(), field_of(file))
            }
            Error::Path { path, .. } => (path.clone(), whole),
            Error::Create { path, .. }
            | Error::Open { path, .. }
            | Error::NotEmpty { path, .. }
            | Error::Frozen { path } => (path.display().to_string(), whole),
            Error::NoCgroups { path, .. }
            | Error::Read { path, .. }
            | Error::Remove { path, .. }
            | Error::Owner { path, .. }
            | Error::Enter { path, .. }
            | Error::Join { path, .. }
            | Error::FreezeTimeout { path, .. } => (path.display().to_string(), ""),
            Error::Devices { path, .. } => (path.display().to_string(), "/linux/resources/devices"),
            Error::MemoryInUse { .. } | Error::BelowUsage { .. } => {
                ("memory limit".into(), "/linux/resources/memory/limit")
            }
            Error::NoCgroup { controller } => (controller.clone(), "/linux/resources"),
            Error::Invalid(_) => (String::new(), "/linux/resources"),
            Error::NoPermission { source } => source.object(),
            Error::NoFreezer => (String::new(), ""),
            Error::Signal { pid, .. } => (pid.to_string(), ""),
            Error::Systemd(error) => error.object(),
        }
    }
}

/// The field whose value is written to a file of a cgroup.
fn field_of(file: &str) -> &'static str {
    FIELDS
        .iter()
        .find(|(start, _)| file.starts_with(start))
        .map_or("/linux/resources", |(_, field)| field)
}

/// Beginnings of file names of both versions, longer ones first.
const FIELDS: &[(&str, &str)] = &[
    ("memory.limit", "/linux/resources/memory/limit"),
    ("memory.max", "/linux/resources/memory/limit"),
    ("memory.soft", "/linux/resources/memory/reservation"),
    ("memory.low", "/linux/resources/memory/reservation"),
    ("memory.memsw", "/linux/resources/memory/swap"),
    ("memory.swap.max", "/linux/resources/memory/swap"),
    ("memory.swappiness", "/linux/resources/memory/swappiness"),
    ("memory.", "/linux/resources/memory"),
    ("cpu.shares", "/linux/resources/cpu/shares"),
    ("cpu.weight", "/linux/resources/cpu/shares"),
    ("cpu.cfs_quota", "/linux/resources/cpu/quota"),
    ("cpu.cfs_period", "/linux/resources/cpu/period"),
    ("cpu.cfs_burst", "/linux/resources/cpu/burst"),
    ("cpu.rt_runtime", "/linux/resources/cpu/realtimeRuntime"),
    ("cpu.rt_period", "/linux/resources/cpu/realtimePeriod"),
    ("cpu.idle", "/linux/resources/cpu/idle"),
    ("cpu.max.burst", "/linux/resources/cpu/burst"),
    ("cpu.max", "/linux/resources/cpu/quota"),
    ("cpuset.cpus", "/linux/resources/cpu/cpus"),
    ("cpuset.mems", "/linux/resources/cpu/mems"),
    ("cpu", "/linux/resources/cpu"),
    ("pids.max", "/linux/resources/pids/limit"),
    ("blkio.", "/linux/resources/blockIO"),
    ("io.", "/linux/resources/blockIO"),
    ("hugetlb.", "/linux/resources/hugepageLimits"),
    ("devices.", "/linux/resources/devices"),
    ("net_", "/linux/resources/network"),
    ("rdma.", "/linux/resources/rdma"),
];
