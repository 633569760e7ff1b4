//! The numbers of cgroup v2.

use super::super::Error;
use super::super::dir::Dir;
use super::v1::{limit_or_none, page_sizes};
use super::{BlockEntry, BlockIo, Hugetlb, MemoryEntry, Pressure, Stats, number, pairs, text};

/// Adds what the cgroup says of the controllers that are `here`, and not in a
/// v1 hierarchy beside it.
pub(super) fn add(dir: &Dir, stats: &mut Stats, here: impl Fn(&str) -> bool) -> Result<(), Error> {
    if here("cpu") && here("cpuacct") {
        cpu(dir, stats)?;
    }
    if here("memory") {
        memory(dir, stats)?;
    }
    if here("pids") {
        pids(dir, stats)?;
    }
    if here("blkio") {
        devices(&text(dir, "io.stat")?, &mut stats.blkio);
        stats.blkio.psi = pressure(dir, "io.pressure")?;
    }
    if here("hugetlb") {
        hugetlb(dir, stats)?;
    }
    Ok(())
}

fn cpu(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    let (usage, throttling) = (&mut stats.cpu.usage, &mut stats.cpu.throttling);
    for (name, value) in pairs(&text(dir, "cpu.stat")?) {
        let nanos = value.saturating_mul(1000);
        match name {
            "usage_usec" => usage.total = nanos,
            "user_usec" => usage.user = nanos,
            "system_usec" => usage.kernel = nanos,
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_usec" => throttling.throttled_time = nanos,
            _ => {}
        }
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    let memory = &mut stats.memory;
    memory.raw = pairs(&text(dir, "memory.stat")?)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    memory.swap = with_memory(memory.usage, entry(dir, "memory.swap")?);
    memory.psi = pressure(dir, "memory.pressure")?;
    Ok(())
}

fn entry(dir: &Dir, name: &str) -> Result<MemoryEntry, Error> {
    let other = |what: &str| Ok(number(dir, &format!("{name}.{what}"))?.unwrap_or(0));
    Ok(MemoryEntry {
        usage: other("current")?,
        limit: other("max")?,
        max: other("peak")?, // kernel 5.19, of swap 6.5
        failcnt: 0,
    })
}

/// v1 counts memory and swap together, and so does everyone who reads this.
/// The peaks need not fall together, so there is none of both.
fn with_memory(memory: MemoryEntry, swap: MemoryEntry) -> MemoryEntry {
    MemoryEntry {
        usage: swap.usage.saturating_add(memory.usage),
        limit: swap.limit.saturating_add(memory.limit),
        max: 0,
        failcnt: 0,
    }
}

fn pids(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    stats.pids.current = match number(dir, "pids.current")? {
        Some(current) => current,
        // Without the controller the processes can still be counted.
        None => text(dir, "cgroup.procs")?.lines().count() as u64,
    };
    stats.pids.limit = limit_or_none(number(dir, "pids.max")?);
    Ok(())
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`, as the tables of v1.
fn devices(text: &str, io: &mut BlockIo) {
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((major, minor)) = device.split_once(':') else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in rest.split(' ').filter_map(|item| item.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                // v1 has no table for discarded blocks.
                _ => continue,
            };
            table.push(BlockEntry {
                major,
                minor,
                op: op.to_owned(),
                value: value.parse().unwrap_or(0),
            });
        }
    }
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<(), Error> {
    for size in page_sizes(dir, ".max")? {
        let usage = match number(dir, &format!("hugetlb.{size}.rsvd.current"))? {
            Some(reserved) => reserved,
            None => number(dir, &format!("hugetlb.{size}.current"))?.unwrap_or(0),
        };
        let events = text(dir, &format!("hugetlb.{size}.events"))?;
        let failcnt = pairs(&events).find(|(name, _)| *name == "max");
        let entry = Hugetlb {
            usage,
            max: 0,
            failcnt: failcnt.map_or(0, |(_, count)| count),
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

/// A pressure file; `None` where the kernel does not measure it.
fn pressure(dir: &Dir, file: &str) -> Result<Option<Pressure>, Error> {
    Ok(stalls(&text(dir, file)?))
}

/// Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full ...`.
fn stalls(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut any = false;
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let stall = match kind {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        any = true;
        for (key, value) in rest.split(' ').filter_map(|item| item.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    any.then_some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_in_both_its_lines() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = stalls(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.total), (1.5, 77));
        assert_eq!(pressure.full.total, 7);
        assert_eq!(stalls(""), None);
    }

    #[test]
    fn devices_are_told_in_the_tables_of_v1() {
        let mut io = BlockIo::default();
        devices(
            "8:0 rbytes=9 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n259:1 \n",
            &mut io,
        );
        assert_eq!(io.io_service_bytes_recursive[0].value, 9);
        assert_eq!(io.io_service_bytes_recursive[1].op, "Write");
        assert_eq!(io.io_serviced_recursive.len(), 2);
    }

    #[test]
    fn memory_and_swap_are_told_together() {
        let memory = MemoryEntry {
            usage: 5,
            limit: 100,
            ..MemoryEntry::default()
        };
        let swap = MemoryEntry {
            usage: 2,
            limit: u64::MAX,
            ..MemoryEntry::default()
        };
        let both = with_memory(memory, swap);
        assert_eq!((both.usage, both.limit), (7, u64::MAX));
    }
}
