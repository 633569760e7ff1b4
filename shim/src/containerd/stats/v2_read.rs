//! From the files of cgroup v2 to containerd's message.

use std::path::Path;

use super::text::{self, Record, Table, value};
use super::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData,
    PsiStats, RdmaEntry, RdmaStat,
};
use crate::supervisor::cgroups;

/// This message says the largest number where there is no limit.
const UNLIMITED: u64 = u64::MAX;

/// All figures; what a controller that is not there would count is 0.
pub(super) fn metrics(folder: &Path) -> Metrics {
    let one = |name| value(folder, name, UNLIMITED);
    let stat = Table::read(folder, "cpu.stat");
    let events = Table::read(folder, "memory.events");
    Metrics {
        pids: Some(PidsStat {
            current: one("pids.current"),
            limit: one("pids.max"),
        }),
        cpu: Some(CpuStat {
            usage_usec: stat.get("usage_usec"),
            user_usec: stat.get("user_usec"),
            system_usec: stat.get("system_usec"),
            nr_periods: stat.get("nr_periods"),
            nr_throttled: stat.get("nr_throttled"),
            throttled_usec: stat.get("throttled_usec"),
            psi: pressure(folder, "cpu.pressure"),
            nr_bursts: stat.get("nr_bursts"),
            burst_usec: stat.get("burst_usec"),
        }),
        memory: Some(MemoryStat {
            usage: one("memory.current"),
            usage_limit: one("memory.max"),
            swap_usage: one("memory.swap.current"),
            swap_limit: one("memory.swap.max"),
            max_usage: one("memory.peak"),
            swap_max_usage: one("memory.swap.peak"),
            psi: pressure(folder, "memory.pressure"),
            ..memory_stat(&Table::read(folder, "memory.stat"))
        }),
        rdma: Some(rdma(folder)),
        io: Some(IoStat {
            usage: io(&cgroups::read(&folder.join("io.stat")).unwrap_or_default()),
            psi: pressure(folder, "io.pressure"),
        }),
        hugetlb: hugetlb(folder),
        memory_events: (!events.is_empty()).then(|| MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
        }),
    }
}

fn memory_stat(stat: &Table) -> MemoryStat {
    MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` in the same way.
fn pressure(folder: &Path, file: &str) -> Option<PsiStats> {
    let text = cgroups::read(&folder.join(file))?;
    let data = |name| {
        let record = text.lines().filter_map(Record::parse);
        let record = record.into_iter().find(|record| record.name == name)?;
        let average = |key| record.text(key).and_then(|text| text.parse().ok());
        Some(PsiData {
            avg10: average("avg10").unwrap_or_default(),
            avg60: average("avg60").unwrap_or_default(),
            avg300: average("avg300").unwrap_or_default(),
            total: record.number("total"),
        })
    };
    Some(PsiStats {
        some: data("some"),
        full: data("full"),
    })
}

/// Lines `MAJOR:MINOR rbytes=.. wbytes=.. rios=.. wios=..`; a device without figures is left out.
fn io(text: &str) -> Vec<IoEntry> {
    let entry = |line| {
        let record = Record::parse(line)?;
        let (major, minor) = text::device(record.name)?;
        Some(IoEntry {
            major,
            minor,
            rbytes: record.number("rbytes"),
            wbytes: record.number("wbytes"),
            rios: record.number("rios"),
            wios: record.number("wios"),
        })
    };
    text.lines().filter_map(entry).collect()
}

fn rdma(folder: &Path) -> RdmaStat {
    let entries = |file| {
        let entry = |(device, hca_handles, hca_objects)| RdmaEntry {
            device,
            hca_handles,
            hca_objects,
        };
        let lines = text::rdma(folder, file).into_iter();
        lines.map(entry).collect()
    };
    RdmaStat {
        current: entries("rdma.current"),
        limit: entries("rdma.max"),
    }
}

fn hugetlb(folder: &Path) -> Vec<HugeTlbStat> {
    let figures = |pagesize: String| HugeTlbStat {
        current: value(folder, &format!("hugetlb.{pagesize}.current"), UNLIMITED),
        max: value(folder, &format!("hugetlb.{pagesize}.max"), UNLIMITED),
        pagesize,
    };
    text::huge_page_sizes(folder, ".current")
        .into_iter()
        .map(figures)
        .collect()
}
