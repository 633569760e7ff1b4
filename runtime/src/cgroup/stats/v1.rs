//! The numbers of cgroup v1.

use super::super::Error;
use super::super::dir::Dir;
use super::{BlockEntry, BlockIo, Hugetlb, MemoryEntry, Stats, number, pairs, text};

/// Nanoseconds of one tick of `cpuacct.stat`: `USER_HZ` is 100 on every
/// architecture of Linux that containers run on (`asm-generic/param.h`).
const TICK_NANOS: u64 = 10_000_000;

/// Adds what the controllers of one hierarchy say.
pub(super) fn add(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    if dir.serves("cpuacct") {
        cpuacct(dir, stats)?;
    }
    if dir.serves("cpu") {
        cpu(dir, stats)?;
    }
    if dir.serves("cpuset") {
        cpuset(dir, stats)?;
    }
    if dir.serves("memory") {
        memory(dir, stats)?;
    }
    if dir.serves("pids") {
        stats.pids.current = number(dir, "pids.current")?.unwrap_or(0);
        stats.pids.limit = limit_or_none(number(dir, "pids.max")?);
    }
    if dir.serves("blkio") {
        block_io(dir, &mut stats.blkio)?;
    }
    if dir.serves("hugetlb") {
        hugetlb(dir, stats)?;
    }
    Ok(())
}

/// No limit is told as 0.
pub(super) fn limit_or_none(limit: Option<u64>) -> u64 {
    limit.filter(|&limit| limit != u64::MAX).unwrap_or(0)
}

fn cpuacct(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?.unwrap_or(0);
    for (name, ticks) in pairs(&text(dir, "cpuacct.stat")?) {
        match name {
            "user" => usage.user = ticks.saturating_mul(TICK_NANOS),
            "system" => usage.kernel = ticks.saturating_mul(TICK_NANOS),
            _ => {}
        }
    }
    usage.percpu = numbers(&text(dir, "cpuacct.usage_percpu")?);
    // A head line, then `cpu user system` for each CPU.
    for line in text(dir, "cpuacct.usage_all")?.lines().skip(1) {
        if let [_, user, kernel] = numbers(line)[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
    Ok(())
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn cpu(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    for (name, value) in pairs(&text(dir, "cpu.stat")?) {
        match name {
            "nr_periods" => stats.cpu.throttling.periods = value,
            "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
            "throttled_time" => stats.cpu.throttling.throttled_time = value,
            _ => {}
        }
    }
    Ok(())
}

fn cpuset(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    let set = &mut stats.cpuset;
    set.cpus = list(&text(dir, "cpuset.cpus")?);
    set.mems = list(&text(dir, "cpuset.mems")?);
    for (file, into) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *into = number(dir, file)?.unwrap_or(0);
    }
    // The one number here that can be negative.
    let level = text(dir, "cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level.trim().parse().unwrap_or(0);
    Ok(())
}

/// `0-3,7` as its numbers (cpuset(7), "List format").
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    let memory = &mut stats.memory;
    memory.raw = pairs(&text(dir, "memory.stat")?)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    memory.swap = entry(dir, "memory.memsw")?;
    memory.kernel = entry(dir, "memory.kmem")?;
    memory.kernel_tcp = entry(dir, "memory.kmem.tcp")?;
    Ok(())
}

/// The four files of one counter; all zero where the kernel does not have it.
fn entry(dir: &Dir, name: &str) -> Result<MemoryEntry, Error> {
    let Some(usage) = number(dir, &format!("{name}.usage_in_bytes"))? else {
        return Ok(MemoryEntry::default());
    };
    let other = |what: &str| number(dir, &format!("{name}.{what}"));
    Ok(MemoryEntry {
        usage,
        limit: other("limit_in_bytes")?.unwrap_or(0),
        max: other("max_usage_in_bytes")?.unwrap_or(0),
        failcnt: other("failcnt")?.unwrap_or(0),
    })
}

/// A table of [`BlockIo`].
type Table = fn(&mut BlockIo) -> &mut Vec<BlockEntry>;

/// The files of one scheduler, without their prefix, and where they belong.
const DETAILED: [(&str, Table); 8] = [
    ("sectors_recursive", |io| &mut io.sectors_recursive),
    ("io_service_time_recursive", |io| {
        &mut io.io_service_time_recursive
    }),
    ("io_wait_time_recursive", |io| {
        &mut io.io_wait_time_recursive
    }),
    ("io_merged_recursive", |io| &mut io.io_merged_recursive),
    ("io_queued_recursive", |io| &mut io.io_queue_recursive),
    ("time_recursive", |io| &mut io.io_time_recursive),
    ("io_serviced_recursive", |io| &mut io.io_serviced_recursive),
    ("io_service_bytes_recursive", |io| {
        &mut io.io_service_bytes_recursive
    }),
];
const PLAIN: [(&str, Table); 2] = [
    ("io_serviced", |io| &mut io.io_serviced_recursive),
    ("io_service_bytes", |io| &mut io.io_service_bytes_recursive),
];

/// Which scheduler counts differs between kernels and devices; the first set of
/// files that holds anything is taken, the most detailed first (runc's order:
/// BFQ with debugging, BFQ, CFQ, then what the throttling layer counts).
fn block_io(dir: &Dir, io: &mut BlockIo) -> Result<(), Error> {
    let sets: [(&str, &[(&str, Table)]); 5] = [
        ("blkio.bfq.", &DETAILED),
        ("blkio.bfq.", &DETAILED[6..]),
        ("blkio.", &DETAILED),
        ("blkio.throttle.", &DETAILED[6..]),
        ("blkio.throttle.", &PLAIN),
    ];
    for (prefix, files) in sets {
        let read = |name: &str| Ok(entries(&text(dir, &format!("{prefix}{name}"))?));
        if read(files[0].0)?.is_empty() {
            continue;
        }
        for (name, table) in files {
            *table(io) = read(name)?;
        }
        return Ok(());
    }
    Ok(())
}

/// Lines `8:0 Read 100` or `8:0 100`; the sum over all devices is left out.
fn entries(text: &str) -> Vec<BlockEntry> {
    let entry = |line: &str| {
        let mut words = line.split([' ', ':']);
        let major = words.next()?.parse().ok()?;
        let minor = words.next()?.parse().ok()?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlockEntry {
            major,
            minor,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    for size in page_sizes(dir, ".limit_in_bytes")? {
        let other = |what: &str| number(dir, &format!("hugetlb.{size}.{what}"));
        // What is reserved counts too where the kernel tells it (5.7).
        let kind = |what: &str| {
            Ok(match other(&format!("rsvd.{what}"))? {
                Some(value) => value,
                None => other(what)?.unwrap_or(0),
            })
        };
        let entry = Hugetlb {
            usage: kind("usage_in_bytes")?,
            max: kind("max_usage_in_bytes")?,
            failcnt: kind("failcnt")?,
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

/// The page sizes that the cgroup has files for, by the ending of one of them.
pub(super) fn page_sizes(dir: &Dir, ending: &str) -> Result<Vec<String>, Error> {
    let read = |source| Error::Read {
        path: dir.path().to_owned(),
        source,
    };
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, ".", flags, rustix::fs::Mode::empty()).map_err(read)?;
    let mut sizes = Vec::new();
    for entry in rustix::fs::Dir::new(fd).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name().to_string_lossy();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(ending));
        sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_expanded() {
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list("\n").is_empty());
    }

    #[test]
    fn the_sum_of_all_devices_is_no_device() {
        let text = "8:0 Read 100\n8:0 Write 0\nTotal 100\n";
        let read = BlockEntry {
            major: 8,
            minor: 0,
            op: "Read".into(),
            value: 100,
        };
        let write = BlockEntry {
            op: "Write".into(),
            value: 0,
            ..read.clone()
        };
        assert_eq!(entries(text), [read, write]);
        assert_eq!(entries("8:16 42\n")[0].value, 42);
    }
}
