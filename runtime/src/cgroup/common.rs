//! Limits that both versions write, into files of the same or of a like name.

use super::Error;
use super::write::{Write, max_or};
use crate::spec::resources::{BlockIo, Cpu, Resources, ThrottleDevice};

/// CPUs and memory nodes.
pub(super) fn cpuset(cpu: &Cpu, out: &mut Vec<Write>) {
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            out.push(Write::new("cpuset", file, list));
        }
    }
}

/// The weight, in the version's own file, and whether the cgroup is idle (kernel
/// 5.15). An idle one takes no weight (kernel/sched/fair.c,
/// sched_group_set_shares), so it is the last to begin and the first to end.
pub(super) fn weight_and_idle(weight: Option<Write>, idle: Option<i64>, out: &mut Vec<Write>) {
    let idle = idle.map(|idle| Write::new("cpu", "cpu.idle", idle));
    if idle.as_ref().is_some_and(|idle| idle.value == "0") {
        out.extend(idle.into_iter().chain(weight));
    } else {
        out.extend(weight.into_iter().chain(idle));
    }
}

/// Most tasks; 0 could not hold the container's own first process.
pub(super) fn pids(resources: &Resources, out: &mut Vec<Write>) {
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let limit = if limit == 0 { 1 } else { limit };
        out.push(Write::new("pids", "pids.max", max_or(limit)));
    }
}

/// Huge pages in use, and where the kernel counts them (5.7) those reserved;
/// `name` is what the version calls a limit.
pub(super) fn hugepages(
    resources: &Resources,
    name: &str,
    out: &mut Vec<Write>,
) -> Result<(), Error> {
    for hugepage in &resources.hugepage_limits {
        let size = page_size(&hugepage.page_size)?;
        let write = |kind: &str| {
            let file = format!("hugetlb.{size}{kind}.{name}");
            Write::new("hugetlb", file, hugepage.limit)
        };
        out.extend([write(""), write(".rsvd").if_there()]);
    }
    Ok(())
}

/// A page size becomes part of a file's name, so it must be no more than one.
fn page_size(text: &str) -> Result<&str, Error> {
    let number = text
        .strip_suffix("KB")
        .or(text.strip_suffix("MB"))
        .or(text.strip_suffix("GB"));
    match number {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(text)
        }
        _ => Err(Error::Invalid(format!(
            "invalid huge page size {text:?}: not of the form 64KB, 2MB or 1GB"
        ))),
    }
}

/// One line a device.
pub(super) fn rdma(resources: &Resources, out: &mut Vec<Write>) {
    for (device, limit) in &resources.rdma {
        let mut value = device.clone();
        for (key, number) in [
            ("hca_handle", limit.hca_handles),
            ("hca_object", limit.hca_objects),
        ] {
            if let Some(number) = number {
                value += &format!(" {key}={number}");
            }
        }
        out.push(Write::new("rdma", "rdma.max", value));
    }
}

/// What a device is throttled in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Throttle {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

/// One write for each device and what it is throttled in, as `write` has it.
pub(super) fn throttles<'a>(
    io: &'a BlockIo,
    write: impl Fn(Throttle, &'a ThrottleDevice) -> Write,
) -> Vec<Write> {
    [
        (Throttle::ReadBytes, &io.throttle_read_bps_device),
        (Throttle::WriteBytes, &io.throttle_write_bps_device),
        (Throttle::ReadOperations, &io.throttle_read_iops_device),
        (Throttle::WriteOperations, &io.throttle_write_iops_device),
    ]
    .into_iter()
    .flat_map(|(kind, devices)| devices.iter().map(move |device| (kind, device)))
    .map(|(kind, device)| write(kind, device))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weight: bool, idle: Option<i64>) -> Vec<String> {
        let mut out = Vec::new();
        let weight = weight.then(|| Write::new("cpu", "cpu.weight", 5));
        weight_and_idle(weight, idle, &mut out);
        out.into_iter().map(|write| write.value).collect()
    }

    #[test]
    fn a_weight_is_written_while_the_cgroup_is_not_idle() {
        assert_eq!(order(true, Some(1)), ["5", "1"]);
        assert_eq!(order(true, Some(0)), ["0", "5"]);
        assert_eq!(order(false, Some(1)), ["1"]);
        assert_eq!(order(true, None), ["5"]);
    }

    #[test]
    fn a_page_size_is_no_path() {
        for bad in ["2MB/../../x", "MB", "2", "2mb", ""] {
            assert!(page_size(bad).is_err(), "{bad}");
        }
        assert_eq!(page_size("64KB").unwrap(), "64KB");
    }
}
