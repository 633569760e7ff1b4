//! Limits as the files of cgroup v1 (Documentation/admin-guide/cgroup-v1 of the kernel).
//!
//! As in runc, 0 stands for a limit that is not set.

use super::Error;
use super::common::{self, Throttle};
use super::write::Write;
use crate::spec::resources::{BlockIo, Cpu, Memory, Network, Resources};

/// Smallest and largest `cpu.shares` (`MIN_SHARES`, `MAX_SHARES` of kernel/sched).
/// The kernel takes others and silently uses these.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The writes for the limits that are set, devices apart, in order.
pub(crate) fn writes(resources: &Resources) -> Result<Vec<Write>, Error> {
    if !resources.unified.is_empty() {
        return Err(Error::Invalid(
            "invalid configuration: cannot use unified on cgroup v1".to_owned(),
        ));
    }
    let mut out = Vec::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, &mut out)?;
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, &mut out)?;
    }
    common::pids(resources, &mut out);
    if let Some(block_io) = &resources.block_io {
        self::block_io(block_io, &mut out);
    }
    common::hugepages(resources, "limit_in_bytes", &mut out)?;
    common::rdma(resources, &mut out);
    if let Some(network) = &resources.network {
        self::network(network, &mut out);
    }
    Ok(out)
}

fn cpu(cpu: &Cpu, out: &mut Vec<Write>) -> Result<(), Error> {
    common::cpuset(cpu, out);
    let set = |value: Option<u64>| value.filter(|&v| v != 0);
    let set_signed = |value: Option<i64>| value.filter(|&v| v != 0);
    let shares = set(cpu.shares).map(shares).transpose()?;
    common::weight_and_idle(shares, cpu.idle, out);
    // A period is refused where the old quota over it exceeds the parent's, a
    // burst where it exceeds the old quota (kernel/sched/core.c, tg_set_cfs_bandwidth).
    if let Some(period) = set(cpu.period) {
        out.push(Write::new("cpu", "cpu.cfs_period_us", period).paired());
    }
    if let Some(burst) = cpu.burst {
        out.push(
            Write::new("cpu", "cpu.cfs_burst_us", burst)
                .paired()
                .if_there(),
        ); // kernel 5.14
    }
    if let Some(quota) = set_signed(cpu.quota) {
        out.push(Write::new("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(period) = set(cpu.realtime_period) {
        out.push(Write::new("cpu", "cpu.rt_period_us", period).paired());
    }
    if let Some(runtime) = set_signed(cpu.realtime_runtime) {
        out.push(Write::new("cpu", "cpu.rt_runtime_us", runtime).paired());
    }
    Ok(())
}

fn shares(shares: u64) -> Result<Write, Error> {
    let out_of_range = |which: &str, bound: &u64| {
        Err(Error::Invalid(format!(
            "the {which} allowed cpu-shares is {bound}"
        )))
    };
    if shares < *CPU_SHARES.start() {
        return out_of_range("minimum", CPU_SHARES.start());
    }
    if shares > *CPU_SHARES.end() {
        return out_of_range("maximum", CPU_SHARES.end());
    }
    Ok(Write::new("cpu", "cpu.shares", shares))
}

fn memory(memory: &Memory, out: &mut Vec<Write>) -> Result<(), Error> {
    let set = |value: Option<i64>| value.filter(|&v| v != 0);
    // memory.memsw must not be below memory.limit at any moment, so which comes
    // first depends on whether the limit grows (kernel: mm/memcontrol-v1.c, mem_cgroup_resize_max).
    if let Some(limit) = set(memory.limit) {
        out.push(Write::new("memory", "memory.limit_in_bytes", limit).paired());
    }
    match (set(memory.limit), set(memory.swap)) {
        (_, Some(swap)) => {
            out.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap).paired())
        }
        (Some(-1), None) => {
            out.push(
                Write::new("memory", "memory.memsw.limit_in_bytes", -1)
                    .paired()
                    .if_there(),
            );
        }
        (_, None) => {}
    }
    if let Some(reservation) = set(memory.reservation) {
        out.push(Write::new(
            "memory",
            "memory.soft_limit_in_bytes",
            reservation,
        ));
    }
    if let Some(tcp) = set(memory.kernel_tcp) {
        out.push(Write::new("memory", "memory.kmem.tcp.limit_in_bytes", tcp));
    }
    if memory.disable_oom_killer == Some(true) {
        out.push(Write::new("memory", "memory.oom_control", 1));
    }
    match memory.swappiness {
        None => {}
        Some(swappiness @ 0..=100) => {
            out.push(Write::new("memory", "memory.swappiness", swappiness))
        }
        Some(other) => {
            return Err(Error::Invalid(format!(
                "invalid memory swappiness value: {other} (valid range is 0-100)"
            )));
        }
    }
    Ok(())
}

/// Weights go to CFQ's files where a kernel still has them, else to BFQ's.
fn block_io(io: &BlockIo, out: &mut Vec<Write>) {
    let weight = |file: &'static str, bfq: &'static str, value: String| {
        Write::new("blkio", file, &value).or(Write::new("blkio", bfq, &value))
    };
    let set = |value: Option<u16>| value.filter(|&v| v != 0);
    if let Some(value) = set(io.weight) {
        out.push(weight(
            "blkio.weight",
            "blkio.bfq.weight",
            value.to_string(),
        ));
    }
    if let Some(value) = set(io.leaf_weight) {
        out.push(Write::new("blkio", "blkio.leaf_weight", value));
    }
    for device in &io.weight_device {
        let line = |value: u16| format!("{}:{} {value}", device.major, device.minor);
        if let Some(value) = set(device.weight) {
            out.push(weight(
                "blkio.weight_device",
                "blkio.bfq.weight_device",
                line(value),
            ));
        }
        if let Some(value) = set(device.leaf_weight) {
            out.push(Write::new("blkio", "blkio.leaf_weight_device", line(value)));
        }
    }
    out.extend(common::throttles(io, |kind, device| {
        let file = match kind {
            Throttle::ReadBytes => "blkio.throttle.read_bps_device",
            Throttle::WriteBytes => "blkio.throttle.write_bps_device",
            Throttle::ReadOperations => "blkio.throttle.read_iops_device",
            Throttle::WriteOperations => "blkio.throttle.write_iops_device",
        };
        let line = format!("{}:{} {}", device.major, device.minor, device.rate);
        Write::new("blkio", file, line)
    }));
}

fn network(network: &Network, out: &mut Vec<Write>) {
    if let Some(class) = network.class_id.filter(|&class| class != 0) {
        out.push(Write::new("net_cls", "net_cls.classid", class));
    }
    for entry in &network.priorities {
        out.push(Write::new(
            "net_prio",
            "net_prio.ifpriomap",
            format!("{} {}", entry.name, entry.priority),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::Absent;
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        writes(&resources)
            .unwrap()
            .into_iter()
            .map(|w| (w.file.into_owned(), w.value))
            .collect()
    }

    #[test]
    fn each_limit_has_its_file() {
        for (json, file, value) in [
            (r#"{"pids": {"limit": 100}}"#, "pids.max", "100"),
            (r#"{"pids": {"limit": 0}}"#, "pids.max", "1"),
            (r#"{"pids": {"limit": -1}}"#, "pids.max", "max"),
            (r#"{"cpu": {"shares": 512}}"#, "cpu.shares", "512"),
            (r#"{"cpu": {"quota": -1}}"#, "cpu.cfs_quota_us", "-1"),
            (r#"{"cpu": {"burst": 0}}"#, "cpu.cfs_burst_us", "0"),
            (r#"{"cpu": {"idle": 1}}"#, "cpu.idle", "1"),
            (r#"{"cpu": {"cpus": "0-1"}}"#, "cpuset.cpus", "0-1"),
            (
                r#"{"memory": {"swap": 100}}"#,
                "memory.memsw.limit_in_bytes",
                "100",
            ),
            (
                r#"{"memory": {"reservation": 5}}"#,
                "memory.soft_limit_in_bytes",
                "5",
            ),
            (
                r#"{"memory": {"disableOOMKiller": true}}"#,
                "memory.oom_control",
                "1",
            ),
            (r#"{"memory": {"swappiness": 0}}"#, "memory.swappiness", "0"),
            (r#"{"network": {"classID": 7}}"#, "net_cls.classid", "7"),
            (
                r#"{"network": {"priorities": [{"name": "lo", "priority": 3}]}}"#,
                "net_prio.ifpriomap",
                "lo 3",
            ),
            (
                r#"{"rdma": {"m0": {"hcaHandles": 3, "hcaObjects": 4}}}"#,
                "rdma.max",
                "m0 hca_handle=3 hca_object=4",
            ),
            (
                r#"{"blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 9}]}}"#,
                "blkio.throttle.read_iops_device",
                "8:1 9",
            ),
        ] {
            assert_eq!(
                written(json),
                [(file.to_owned(), value.to_owned())],
                "{json}"
            );
        }
    }

    #[test]
    fn nothing_set_writes_nothing() {
        assert_eq!(written("{}"), []);
        let zero = r#"{"memory": {"limit": 0, "swap": 0, "disableOOMKiller": false}, "cpu": {"shares": 0, "quota": 0,
            "cpus": ""}, "blockIO": {"weight": 0}}"#;
        assert_eq!(written(zero), []);
    }

    #[test]
    fn memory_and_swap_bound_each_other() {
        let resources = serde_json::from_str(r#"{"memory": {"limit": 10, "swap": 20}}"#).unwrap();
        assert!(
            writes(&resources)
                .unwrap()
                .iter()
                .all(|w| w.paired && w.absent == Absent::Error)
        );
        let unlimited = serde_json::from_str(r#"{"memory": {"limit": -1}}"#).unwrap();
        let unlimited = writes(&unlimited).unwrap();
        assert_eq!(
            (unlimited[1].value.as_str(), &unlimited[1].absent),
            ("-1", &Absent::Skip)
        );
    }

    #[test]
    fn weights_fall_back_to_bfq() {
        let resources = serde_json::from_str(r#"{"blockIO": {"weight": 300}}"#).unwrap();
        let Absent::Instead(other) = &writes(&resources).unwrap()[0].absent else {
            panic!("no fall-back")
        };
        assert_eq!(
            (other.file.as_ref(), other.value.as_str()),
            ("blkio.bfq.weight", "300")
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_value() {
        for (json, words) in [
            (
                r#"{"unified": {"memory.max": "1"}}"#,
                "unified on cgroup v1",
            ),
            (
                r#"{"cpu": {"shares": 1}}"#,
                "minimum allowed cpu-shares is 2",
            ),
            (
                r#"{"cpu": {"shares": 262145}}"#,
                "maximum allowed cpu-shares is 262144",
            ),
            (r#"{"memory": {"swappiness": 101}}"#, "101"),
            (
                r#"{"hugepageLimits": [{"pageSize": "2MB/../../x", "limit": 1}]}"#,
                "2MB/../../x",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "MB", "limit": 1}]}"#,
                "MB",
            ),
        ] {
            let error = writes(&serde_json::from_str(json).unwrap())
                .expect_err(json)
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
