//! Limits as properties of a unit (systemd.resource-control(5)).
//!
//! systemd writes again, when it pleases, what it knows of a unit; a limit that
//! only the cgroup's files knew would be lost then. So whatever has a property
//! is told to systemd, and all is written to the files besides, since they
//! know more than systemd does.

use std::borrow::Cow;

use super::super::v2;
use super::{Error, devices, unified};
use crate::dbus::{Type, Value};
use crate::spec::resources::{Cpu, Resources};

/// A property and its value.
pub(super) type Property = (Cow<'static, str>, Value);

/// "No limit" to systemd (`CGROUP_LIMIT_MAX`, `USEC_INFINITY`).
pub(super) const UNLIMITED: u64 = u64::MAX;
/// The period of a CPU quota that names none, in microseconds (the kernel's default).
const PERIOD_USEC: u64 = 100_000;
/// systemd counts quotas in percent of a CPU: 10 ms of a second.
const PERCENT_USEC: u64 = 10_000;
/// Microseconds in a second.
const USEC_PER_SEC: u64 = 1_000_000;
/// CPUs and memory nodes that a mask may name: more than kernels are built for.
const MASK_BITS_MAX: usize = 8192;

/// Who will read the properties.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    /// systemd's version, as 252.
    pub(super) version: u32,
    /// Whether the host has cgroup2 alone.
    pub(super) is_v2: bool,
}

/// A property that is a number.
pub(super) fn number(name: &'static str, value: u64) -> Property {
    (name.into(), Value::Uint64(value))
}

/// A property that is a truth.
pub(super) fn truth(name: &'static str, value: bool) -> Property {
    (name.into(), Value::Bool(value))
}

/// A property that is a text.
pub(super) fn text(name: &'static str, value: impl Into<String>) -> Property {
    (name.into(), Value::text(value))
}

/// The properties of a new container's limits and device rules.
pub(super) fn all(resources: &mut Resources, host: Host) -> Result<Vec<Property>, Error> {
    let mut out = devices::properties(&resources.devices, host)?;
    out.extend(limits(resources, host)?);
    Ok(out)
}

/// The properties of limits. The CPU quota is brought to what systemd can say,
/// so that the files get the same.
pub(super) fn limits(resources: &mut Resources, host: Host) -> Result<Vec<Property>, Error> {
    let mut out = Vec::new();
    if host.is_v2 {
        limits_v2(resources, host, &mut out)?;
    } else {
        limits_v1(resources, &mut out);
    }
    if let Some(cpu) = &mut resources.cpu {
        let period = cpu.period.unwrap_or(0);
        cpu.quota = quota(cpu.quota.unwrap_or(0), period, host, &mut out).or(cpu.quota);
        cpuset(cpu, host, &mut out)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let tasks = match limit {
            0 => 1, // as the file: none could not hold the first process
            limit => limited(limit),
        };
        out.push(number("TasksMax", tasks));
    }
    if host.is_v2 {
        out.extend(unified::properties(&resources.unified, host)?);
    }
    Ok(out)
}

fn limits_v1(resources: &Resources, out: &mut Vec<Property>) {
    let memory = resources.memory.as_ref();
    if let Some(limit) = memory.and_then(|m| m.limit).filter(|&limit| limit != 0) {
        out.push(number("MemoryLimit", limited(limit)));
    }
    let cpu = resources.cpu.as_ref();
    if let Some(shares) = cpu.and_then(|cpu| cpu.shares).filter(|&shares| shares != 0) {
        out.push(number("CPUShares", shares));
    }
    let weight = resources.block_io.as_ref().and_then(|io| io.weight);
    if let Some(weight) = weight.filter(|&weight| weight != 0) {
        out.push(number("BlockIOWeight", weight.into()));
    }
}

fn limits_v2(resources: &Resources, host: Host, out: &mut Vec<Property>) -> Result<(), Error> {
    if let Some(memory) = &resources.memory {
        let set = |value: Option<i64>| value.filter(|&value| value != 0);
        let limit = set(memory.limit);
        out.extend(limit.map(|limit| number("MemoryMax", limited(limit))));
        let reservation = set(memory.reservation);
        out.extend(reservation.map(|low| number("MemoryLow", limited(low))));
        let swap = v2::swap_max(limit, set(memory.swap))
            .map_err(|error| Error::Limit(error.to_string()))?;
        out.extend(swap.map(|swap| number("MemorySwapMax", limited(swap))));
    }
    if let Some(cpu) = &resources.cpu {
        let shares = cpu.shares.filter(|&shares| shares != 0);
        if cpu.idle == Some(1) && host.has_idle() {
            // This is how systemd says cpu.idle; it excludes a weight.
            out.push(number("CPUWeight", 0));
        } else if let Some(shares) = shares {
            out.push(number("CPUWeight", v2::cpu_weight(shares)));
        }
    }
    let weight = resources.block_io.as_ref().and_then(|io| io.weight);
    if let Some(weight) = weight.filter(|&weight| weight != 0) {
        out.push(number("IOWeight", v2::io_weight(weight)));
    }
    Ok(())
}

impl Host {
    /// Whether `CPUWeight=0` means idle.
    pub(super) fn has_idle(self) -> bool {
        self.version >= 252
    }

    /// Whether there are `AllowedCPUs` and `AllowedMemoryNodes`.
    fn has_cpuset(self) -> bool {
        self.version >= 244
    }
}

/// -1, or any negative number, is no limit.
fn limited(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(UNLIMITED)
}

/// The properties of a quota; the quota that they come to if it is another.
/// 0 stands for one that is not set.
pub(super) fn quota(quota: i64, period: u64, host: Host, out: &mut Vec<Property>) -> Option<i64> {
    if period != 0 && host.version >= 242 {
        out.push(number("CPUQuotaPeriodUSec", period));
    }
    if quota == 0 && period == 0 {
        return None;
    }
    let Some(quota) = u64::try_from(quota).ok().filter(|&quota| quota != 0) else {
        out.push(number("CPUQuotaPerSecUSec", UNLIMITED));
        return None;
    };
    let period = u128::from(if period == 0 { PERIOD_USEC } else { period });
    let exact = u128::from(quota) * u128::from(USEC_PER_SEC) / period;
    // Up, so that a child can have what was asked for.
    let rounded = exact.next_multiple_of(PERCENT_USEC.into());
    let per_second = u64::try_from(rounded).unwrap_or(UNLIMITED - 1);
    out.push(number("CPUQuotaPerSecUSec", per_second));
    (rounded != exact)
        .then(|| i64::try_from(rounded * period / u128::from(USEC_PER_SEC)).ok())
        .flatten()
}

fn cpuset(cpu: &Cpu, host: Host, out: &mut Vec<Property>) -> Result<(), Error> {
    let lists = [
        ("AllowedCPUs", "CPU.Cpus", &cpu.cpus),
        ("AllowedMemoryNodes", "CPU.Mems", &cpu.mems),
    ];
    for (name, field, list) in lists {
        if let Some(list) = list
            .as_ref()
            .filter(|list| !list.is_empty() && host.has_cpuset())
        {
            let mask = mask(list).ok_or_else(|| {
                Error::Limit(format!("resources.{field}={list:?} conversion error"))
            })?;
            out.push((name.into(), mask));
        }
    }
    Ok(())
}

/// A list as `0-3,7` as systemd's mask: the first byte holds 0 to 7, the lowest bit 0.
pub(super) fn mask(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    let parts = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    for part in parts {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MASK_BITS_MAX {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0_u8);
        (first..=last).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    let bytes: Vec<Value> = bytes.into_iter().map(Value::Byte).collect();
    (!bytes.is_empty()).then_some(Value::Array(Type::Byte, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: Host = Host {
        version: 252,
        is_v2: true,
    };
    const V1: Host = Host {
        version: 252,
        is_v2: false,
    };

    fn limits_of(json: &str, host: Host) -> Vec<(String, Value)> {
        let mut resources = serde_json::from_str(json).unwrap();
        let properties = limits(&mut resources, host).unwrap();
        properties
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value))
            .collect()
    }

    #[test]
    fn each_limit_has_its_property() {
        for (json, host, name, value) in [
            (r#"{"memory": {"limit": 5}}"#, V2, "MemoryMax", 5),
            (r#"{"memory": {"limit": 5}}"#, V1, "MemoryLimit", 5),
            (
                r#"{"memory": {"reservation": -1}}"#,
                V2,
                "MemoryLow",
                UNLIMITED,
            ),
            (
                r#"{"memory": {"swap": -1}}"#,
                V2,
                "MemorySwapMax",
                UNLIMITED,
            ),
            (r#"{"cpu": {"shares": 1024}}"#, V2, "CPUWeight", 100),
            (r#"{"cpu": {"shares": 1024}}"#, V1, "CPUShares", 1024),
            (
                r#"{"cpu": {"shares": 1024, "idle": 1}}"#,
                V2,
                "CPUWeight",
                0,
            ),
            (
                r#"{"cpu": {"quota": -1}}"#,
                V2,
                "CPUQuotaPerSecUSec",
                UNLIMITED,
            ),
            (
                r#"{"cpu": {"quota": 50000}}"#,
                V1,
                "CPUQuotaPerSecUSec",
                500_000,
            ),
            (r#"{"pids": {"limit": 0}}"#, V2, "TasksMax", 1),
            (r#"{"pids": {"limit": -1}}"#, V1, "TasksMax", UNLIMITED),
            (r#"{"blockIO": {"weight": 1000}}"#, V2, "IOWeight", 10_000),
            (r#"{"blockIO": {"weight": 750}}"#, V1, "BlockIOWeight", 750),
        ] {
            assert_eq!(
                limits_of(json, host),
                [(name.to_owned(), Value::Uint64(value))],
                "{json}"
            );
        }
        assert_eq!(limits_of("{}", V2), []);
        assert_eq!(
            limits_of(r#"{"memory": {"reservation": 5, "swap": 7}}"#, V1),
            []
        );
    }

    #[test]
    fn a_quota_is_rounded_to_percents_and_the_files_get_the_same() {
        let mut resources: Resources =
            serde_json::from_str(r#"{"cpu": {"quota": 3333, "period": 50000}}"#).unwrap();
        let properties = limits(&mut resources, V2).unwrap();
        let wanted = [
            number("CPUQuotaPeriodUSec", 50_000),
            number("CPUQuotaPerSecUSec", 70_000),
        ];
        assert_eq!(properties, wanted);
        assert_eq!(resources.cpu.unwrap().quota, Some(3500));
        let mut out = Vec::new();
        assert_eq!(quota(i64::MAX, 1, V2, &mut out), None);
    }

    #[test]
    fn a_period_alone_lifts_the_quota() {
        let wanted = [
            ("CPUQuotaPeriodUSec".to_owned(), Value::Uint64(9000)),
            ("CPUQuotaPerSecUSec".to_owned(), Value::Uint64(UNLIMITED)),
        ];
        assert_eq!(limits_of(r#"{"cpu": {"period": 9000}}"#, V2), wanted);
    }

    #[test]
    fn an_older_systemd_is_not_told_what_it_does_not_know() {
        let json = r#"{"cpu": {"period": 9000, "cpus": "0", "idle": 1, "shares": 2}}"#;
        let old = Host {
            version: 241,
            is_v2: true,
        };
        let names: Vec<String> = limits_of(json, old)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["CPUWeight", "CPUQuotaPerSecUSec"]);
    }

    #[test]
    fn lists_become_masks() {
        let bytes = |bytes: &[u8]| {
            let bytes = bytes.iter().map(|&byte| Value::Byte(byte));
            Some(Value::Array(Type::Byte, bytes.collect()))
        };
        for (list, wanted) in [
            ("0", bytes(&[1])),
            ("0-3,7", bytes(&[0x8f])),
            ("5-8", bytes(&[0xe0, 1])),
            (" 1 , ,16,", bytes(&[2, 0, 1])),
            ("", None),
            ("3-1", None),
            ("-1", None),
            ("1-", None),
            ("x", None),
            ("0-99999999999", None),
            ("8192", None),
        ] {
            assert_eq!(mask(list), wanted, "{list:?}");
        }
    }
}
