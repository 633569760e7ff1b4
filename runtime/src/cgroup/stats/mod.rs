//! What a container has used: the kernel's numbers in the shape of runc's
//! `events`, the same for both cgroup versions.

mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::Serialize;

use super::dir::Dir;
use super::{Error, Group, Paths};
use crate::resctrl;

/// A snapshot. Fields that runc leaves out when they are zero are left out here.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    /// By page size, such as `2MB`.
    hugetlb: BTreeMap<String, Hugetlb>,
    /// Cache and memory bandwidth, where the container has a group of its own.
    pub(crate) intel_rdt: resctrl::Stats,
    /// The runtime makes no interfaces, so it has none to tell of: `null`.
    network_interfaces: (),
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// Nanoseconds since the cgroup was made.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

/// Pressure stall information (Documentation/accounting/psi.rst of the kernel).
#[derive(Debug, Default, PartialEq, Serialize)]
struct Pressure {
    some: Stall,
    full: Stall,
}

/// Percent of the last 10, 60 and 300 seconds, and microseconds in all.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Stall {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    /// Memory and swap together, also on v2, which counts them apart.
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// Bytes, and how often the limit was met.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

/// Tasks; a limit of 0 is none.
#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct BlockEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    /// `Read`, `Write`, ..., or empty where a file has no kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Stats {
    /// Reads the numbers of a container's cgroups. What a controller that the
    /// host does not have would say is left zero.
    pub(crate) fn read(paths: &Paths) -> Result<Self, Error> {
        let mut stats = Self::default();
        for dir in &Group::open(paths)?.dirs {
            if dir.serves("") {
                v2::add(dir, &mut stats, |controller| {
                    paths.get(controller).is_none()
                })?;
            } else {
                v1::add(dir, &mut stats)?;
            }
        }
        Ok(stats)
    }
}

/// One number of a file; the word `max` is the largest, a missing file none.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>, Error> {
    use rustix::io::Errno;
    match dir.try_read(file) {
        Ok(text) if text.trim() == "max" => Ok(Some(u64::MAX)),
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
        Err(source) => Err(Error::Read {
            path: dir.path().join(file),
            source,
        }),
    }
}

/// A whole file, empty where it is missing.
fn text(dir: &Dir, file: &str) -> Result<String, Error> {
    use rustix::io::Errno;
    match dir.try_read(file) {
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(String::new()),
        result => result.map_err(|source| Error::Read {
            path: dir.path().join(file),
            source,
        }),
    }
}

/// Lines of a name and a number.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, number) = line.split_once(' ')?;
        Some((name, number.trim().parse().ok()?))
    })
}
