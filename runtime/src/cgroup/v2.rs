//! Limits as the files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst of the kernel).
//!
//! The specification speaks v1; what has an equivalent is converted as runc
//! does, what has none (swappiness, the OOM switch, kernel TCP memory, network
//! classes, real-time budgets) is left out as runc does. As there, 0 stands for
//! a limit that is not set.

use super::Error;
use super::common::{self, Throttle};
use super::write::{Write, max_or};
use crate::spec::resources::{BlockIo, Cpu, Memory, Resources};

/// The writes for the limits that are set, devices apart, in order. The
/// unified map comes last: it is the more exact wish.
pub(crate) fn writes(resources: &Resources) -> Result<Vec<Write>, Error> {
    let mut out = Vec::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, &mut out);
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, &mut out)?;
    }
    common::pids(resources, &mut out);
    if let Some(io) = &resources.block_io {
        block_io(io, &mut out);
    }
    common::hugepages(resources, "max", &mut out)?;
    common::rdma(resources, &mut out);
    unified(resources, &mut out)?;
    Ok(out)
}

fn cpu(cpu: &Cpu, out: &mut Vec<Write>) {
    let shares = cpu.shares.filter(|&shares| shares != 0);
    let weight = shares.map(|shares| Write::new("cpu", "cpu.weight", cpu_weight(shares)));
    common::weight_and_idle(weight, cpu.idle, out);
    if let Some(burst) = cpu.burst {
        out.push(Write::new("cpu", "cpu.max.burst", burst).paired()); // kernel 5.14
    }
    let quota = cpu.quota.filter(|&quota| quota != 0);
    let period = cpu.period.filter(|&period| period != 0);
    match (quota, period) {
        (None, None) => {}
        // Alone the quota leaves the period as it is.
        (Some(quota), None) => out.push(Write::new("cpu", "cpu.max", max_or(quota))),
        (quota, Some(period)) => {
            let value = format!("{} {period}", max_or(quota.unwrap_or(-1)));
            out.push(Write::new("cpu", "cpu.max", value));
        }
    }
    common::cpuset(cpu, out);
}

/// `cpu.shares` (2, 1024, 262144) as `cpu.weight` (1, 100, 10000): the curve
/// through the smallest, the usual and the largest value of both that runc has
/// used since 1.3.2.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            {
                10f64.powf(exponent).ceil() as u64
            }
        }
    }
}

fn memory(memory: &Memory, out: &mut Vec<Write>) -> Result<(), Error> {
    let set = |value: Option<i64>| value.filter(|&v| v != 0);
    let limit = set(memory.limit);
    if let Some(swap) = swap_max(limit, set(memory.swap))? {
        let write = Write::new("memory", "memory.swap.max", max_or(swap));
        // Without swap in the kernel there is nothing to forbid or to allow.
        out.push(if swap <= 0 { write.if_there() } else { write });
    }
    if let Some(limit) = limit {
        out.push(Write::new("memory", "memory.max", max_or(limit)));
    }
    if let Some(reservation) = set(memory.reservation) {
        out.push(Write::new("memory", "memory.low", max_or(reservation)));
    }
    Ok(())
}

/// v1 limits memory and swap together, v2 swap alone.
pub(super) fn swap_max(limit: Option<i64>, both: Option<i64>) -> Result<Option<i64>, Error> {
    let invalid = |why: &str| Err(Error::Invalid(why.to_owned()));
    match (limit, both) {
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (Some(-1), Some(both)) => Ok(Some(both)),
        (None, Some(_)) => invalid("unable to set swap limit without memory limit"),
        (Some(limit), Some(_)) if limit < 0 => invalid(&format!("invalid memory value: {limit}")),
        (Some(limit), Some(both)) if both < limit => {
            invalid("memory+swap limit should be >= memory limit")
        }
        (Some(limit), Some(both)) => Ok(Some(both - limit)),
    }
}

fn block_io(io: &BlockIo, out: &mut Vec<Write>) {
    if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
        out.push(Write::new("io", "io.bfq.weight", weight).or(Write::new(
            "io",
            "io.weight",
            io_weight(weight),
        )));
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|&weight| weight != 0) {
            let on = |weight: u64| format!("{}:{} {weight}", device.major, device.minor);
            let other = Write::new("io", "io.weight", on(io_weight(weight)));
            out.push(Write::new("io", "io.bfq.weight", on(weight.into())).or(other));
        }
    }
    out.extend(common::throttles(io, |kind, device| {
        let key = match kind {
            Throttle::ReadBytes => "rbps",
            Throttle::WriteBytes => "wbps",
            Throttle::ReadOperations => "riops",
            Throttle::WriteOperations => "wiops",
        };
        // 0 lifts a v1 limit; v2 calls that `max` and refuses 0.
        let rate = match device.rate {
            0 => "max".to_owned(),
            rate => rate.to_string(),
        };
        let line = format!("{}:{} {key}={rate}", device.major, device.minor);
        Write::new("io", "io.max", line)
    }));
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000), on the straight line.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

/// A key of the unified map is a file of the cgroup, never a path; a value of
/// several lines is one write a line, since the kernel reads one at a time.
fn unified(resources: &Resources, out: &mut Vec<Write>) -> Result<(), Error> {
    for (file, value) in &resources.unified {
        if file.contains('/') {
            return Err(Error::Invalid(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        let Some((controller, _)) = file
            .split_once('.')
            .filter(|(controller, _)| !controller.is_empty())
        else {
            let why = format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
            return Err(Error::Invalid(why));
        };
        for line in value.lines().filter(|line| !line.is_empty()) {
            out.push(Write::new(controller.to_owned(), file.clone(), line));
        }
    }
    Ok(())
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
            (r#"{"pids": {"limit": 0}}"#, "pids.max", "1"),
            (r#"{"pids": {"limit": -1}}"#, "pids.max", "max"),
            (r#"{"cpu": {"shares": 1024}}"#, "cpu.weight", "100"),
            (r#"{"cpu": {"quota": 50000}}"#, "cpu.max", "50000"),
            (r#"{"cpu": {"period": 50000}}"#, "cpu.max", "max 50000"),
            (
                r#"{"cpu": {"quota": -1, "period": 7000}}"#,
                "cpu.max",
                "max 7000",
            ),
            (r#"{"cpu": {"burst": 500}}"#, "cpu.max.burst", "500"),
            (r#"{"cpu": {"mems": "0"}}"#, "cpuset.mems", "0"),
            (r#"{"memory": {"limit": 5}}"#, "memory.max", "5"),
            (r#"{"memory": {"reservation": -1}}"#, "memory.low", "max"),
            (r#"{"memory": {"swap": -1}}"#, "memory.swap.max", "max"),
            (
                r#"{"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]}}"#,
                "io.max",
                "8:0 wbps=max",
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
    fn shares_keep_their_ends_and_their_middle() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (1 << 40, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert!((2..262_144).step_by(7).is_sorted_by_key(cpu_weight));
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        for (limit, both, swap) in [
            (Some(100), Some(150), Some(50)),
            (Some(100), Some(100), Some(0)),
            (Some(100), Some(-1), Some(-1)),
            (Some(-1), None, Some(-1)),
            (Some(-1), Some(7), Some(7)),
            (Some(100), None, None),
            (None, None, None),
        ] {
            assert_eq!(swap_max(limit, both).unwrap(), swap, "{limit:?} {both:?}");
        }
        assert!(swap_max(None, Some(5)).is_err());
        assert!(swap_max(Some(10), Some(5)).is_err());
        assert!(swap_max(Some(-2), Some(5)).is_err());
    }

    #[test]
    fn no_swap_needs_no_swap_file() {
        let resources = serde_json::from_str(r#"{"memory": {"limit": 9, "swap": 9}}"#).unwrap();
        let writes = writes(&resources).unwrap();
        assert_eq!(
            (writes[0].value.as_str(), &writes[0].absent),
            ("0", &Absent::Skip)
        );
    }

    #[test]
    fn weights_are_converted_where_bfq_is_not() {
        let json = r#"{"blockIO": {"weight": 1000, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}}"#;
        let writes = writes(&serde_json::from_str(json).unwrap()).unwrap();
        let other = |write: &Write| match &write.absent {
            Absent::Instead(other) => other.value.clone(),
            _ => panic!("no fall-back"),
        };
        assert_eq!(
            (writes[0].value.as_str(), other(&writes[0])),
            ("1000", "10000".to_owned())
        );
        assert_eq!(
            (writes[1].value.as_str(), other(&writes[1])),
            ("8:0 10", "8:0 1".to_owned())
        );
    }

    #[test]
    fn unified_is_written_line_by_line_and_never_elsewhere() {
        let json =
            r#"{"unified": {"io.max": "259:0 rbps=1\n253:0 wiops=2", "misc.max": "res_a 1"}}"#;
        let lines = ["259:0 rbps=1", "253:0 wiops=2", "res_a 1"];
        assert!(
            written(json)
                .iter()
                .map(|(_, value)| value.as_str())
                .eq(lines)
        );
        for bad in ["../memory.max", "a/b.c", "memory", ".max"] {
            let mut resources = Resources::default();
            resources.unified.insert(bad.to_owned(), "1".to_owned());
            assert!(
                writes(&resources).unwrap_err().to_string().contains(bad),
                "{bad}"
            );
        }
    }
}
