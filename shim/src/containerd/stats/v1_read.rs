//! From the files of cgroup v1 to containerd's message.

use std::path::Path;

use super::text::{self, Table, value};
use super::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use crate::supervisor::cgroups::{self, Cgroups};

/// What a tick of `cpuacct.stat` lasts. USER_HZ is 100 on every processor that
/// Rust compiles for, whatever the kernel's own clock is. `times(2)`.
const TICK_NANOSECONDS: u64 = 1_000_000_000 / 100;
/// This message says 0 where there is no limit.
const UNLIMITED: u64 = 0;

/// All figures; a controller that is not there leaves its part out.
pub(super) fn metrics(cgroups: &Cgroups) -> Metrics {
    let memory = cgroups.dir("memory");
    Metrics {
        hugetlb: cgroups.dir("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: cgroups.dir("pids").map(pids),
        cpu: Some(CpuStat {
            usage: Some(cgroups.dir("cpuacct").map(usage).unwrap_or_default()),
            throttling: Some(cgroups.dir("cpu").map(throttling).unwrap_or_default()),
        }),
        memory: memory.map(|folder| MemoryStat {
            usage: Some(entry(folder, "memory")),
            swap: Some(entry(folder, "memory.memsw")),
            kernel: Some(entry(folder, "memory.kmem")),
            kernel_tcp: Some(entry(folder, "memory.kmem.tcp")),
            ..memory_stat(&Table::read(folder, "memory.stat"))
        }),
        blkio: cgroups.dir("blkio").map(blkio),
        rdma: cgroups.dir("rdma").map(rdma),
        memory_oom_control: memory.map(oom_control),
    }
}

fn hugetlb(folder: &Path) -> Vec<HugetlbStat> {
    let figures = |pagesize: String| {
        let figure = |name| value(folder, &format!("hugetlb.{pagesize}.{name}"), UNLIMITED);
        HugetlbStat {
            usage: figure("usage_in_bytes"),
            max: figure("max_usage_in_bytes"),
            failcnt: figure("failcnt"),
            pagesize,
        }
    };
    text::huge_page_sizes(folder, ".usage_in_bytes")
        .into_iter()
        .map(figures)
        .collect()
}

fn pids(folder: &Path) -> PidsStat {
    PidsStat {
        current: value(folder, "pids.current", UNLIMITED),
        limit: value(folder, "pids.max", UNLIMITED),
    }
}

fn usage(folder: &Path) -> CpuUsage {
    let ticks = Table::read(folder, "cpuacct.stat");
    let time = |name| ticks.get(name).saturating_mul(TICK_NANOSECONDS);
    let per_cpu = cgroups::read(&folder.join("cpuacct.usage_percpu")).unwrap_or_default();
    CpuUsage {
        total: value(folder, "cpuacct.usage", UNLIMITED),
        kernel: time("system"),
        user: time("user"),
        per_cpu: per_cpu
            .split_ascii_whitespace()
            .filter_map(text::number)
            .collect(),
    }
}

fn throttling(folder: &Path) -> Throttle {
    let stat = Table::read(folder, "cpu.stat");
    Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
    }
}

fn memory_stat(stat: &Table) -> MemoryStat {
    MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        ..MemoryStat::default()
    }
}

fn entry(folder: &Path, prefix: &str) -> MemoryEntry {
    let figure = |name| value(folder, &format!("{prefix}.{name}"), UNLIMITED);
    MemoryEntry {
        limit: figure("limit_in_bytes"),
        usage: figure("usage_in_bytes"),
        max: figure("max_usage_in_bytes"),
        failcnt: figure("failcnt"),
    }
}

fn oom_control(folder: &Path) -> MemoryOomControl {
    let control = Table::read(folder, "memory.oom_control");
    MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
    }
}

/// Figures of the scheduler where it keeps any (CFQ, up to Linux 4.20), else
/// those of the throttling layer, which every kernel has.
fn blkio(folder: &Path) -> BlkIoStat {
    let partitions = cgroups::read(Path::new(text::PARTITIONS)).unwrap_or_default();
    let figures = |name: &str| {
        let text = cgroups::read(&folder.join(format!("blkio.{name}"))).unwrap_or_default();
        block_entries(&text, &partitions)
    };
    let scheduler = BlkIoStat {
        io_service_bytes_recursive: figures("io_service_bytes_recursive"),
        io_serviced_recursive: figures("io_serviced_recursive"),
        io_queued_recursive: figures("io_queued_recursive"),
        io_service_time_recursive: figures("io_service_time_recursive"),
        io_wait_time_recursive: figures("io_wait_time_recursive"),
        io_merged_recursive: figures("io_merged_recursive"),
        io_time_recursive: figures("time_recursive"),
        sectors_recursive: figures("sectors_recursive"),
    };
    if scheduler != BlkIoStat::default() {
        return scheduler;
    }
    BlkIoStat {
        io_service_bytes_recursive: figures("throttle.io_service_bytes_recursive"),
        io_serviced_recursive: figures("throttle.io_serviced_recursive"),
        ..BlkIoStat::default()
    }
}

/// Lines `MAJOR:MINOR [OPERATION] VALUE`; the last one, a total, is left out.
fn block_entries(text: &str, partitions: &str) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = text::device(words.next()?)?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkIoEntry {
            op: op.to_owned(),
            device: text::device_node(partitions, (major, minor)),
            major,
            minor,
            value: text::number(value)?,
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
