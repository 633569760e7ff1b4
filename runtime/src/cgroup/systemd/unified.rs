//! The `unified` map as properties: files of cgroup2 that systemd has a word for.

use std::collections::BTreeMap;

use super::Error;
use super::properties::{self, Host, Property, UNLIMITED, number, text};

/// Files with a number or `max`, and their properties.
const NUMBERS: [(&str, &str); 6] = [
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
];
/// The period that `cpu.max` has where its second word lacks, in microseconds.
const PERIOD_USEC: u64 = 100_000;

/// The properties of those files that have one. The others, and what is no
/// file at all, the files themselves answer for.
pub(super) fn properties(
    files: &BTreeMap<String, String>,
    host: Host,
) -> Result<Vec<Property>, Error> {
    let mut out = Vec::new();
    let idle = |value: &str| value.trim() == "1" && host.has_idle();
    let is_idle = files.get("cpu.idle").is_some_and(|value| idle(value));
    for (file, value) in files {
        let value = value.trim();
        let bad = || {
            Error::Limit(format!(
                "unified resource {file:?} value invalid: {value:?}"
            ))
        };
        match file.as_str() {
            "cpu.idle" if is_idle => out.push(number("CPUWeight", 0)),
            // A weight and idleness exclude each other.
            "cpu.weight" if !is_idle => {
                out.push(number("CPUWeight", value.parse().map_err(|_| bad())?));
            }
            "cpu.max" => {
                let (quota, period) = cpu_max(value).ok_or_else(bad)?;
                properties::quota(quota, period, host, &mut out);
            }
            "cpuset.cpus" | "cpuset.mems" if host.version >= 244 => {
                let mask = properties::mask(value).ok_or_else(bad)?;
                let name = if file == "cpuset.cpus" {
                    "AllowedCPUs"
                } else {
                    "AllowedMemoryNodes"
                };
                out.push((name.into(), mask));
            }
            // Of scopes since version 253.
            "memory.oom.group" if host.version >= 253 => match value {
                "0" => out.push(text("OOMPolicy", "continue")),
                "1" => out.push(text("OOMPolicy", "kill")),
                _ => return Err(bad()),
            },
            _ => {
                if let Some((_, name)) = NUMBERS.iter().find(|(known, _)| known == file) {
                    let limit = if value == "max" {
                        Some(UNLIMITED)
                    } else {
                        value.parse().ok()
                    };
                    out.push(number(name, limit.ok_or_else(bad)?));
                }
            }
        }
    }
    Ok(out)
}

/// Quota, -1 for none, and period.
fn cpu_max(value: &str) -> Option<(i64, u64)> {
    let mut words = value.split_whitespace();
    let quota = match words.next()? {
        "max" => -1,
        quota => quota.parse().ok()?,
    };
    let period = match words.next() {
        Some(period) => period.parse().ok()?,
        None => PERIOD_USEC,
    };
    words.next().is_none().then_some((quota, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::Value;

    fn of(files: &[(&str, &str)], version: u32) -> Result<Vec<(String, Value)>, Error> {
        let files = files
            .iter()
            .map(|&(file, value)| (file.to_owned(), value.to_owned()))
            .collect();
        let host = Host {
            version,
            is_v2: true,
        };
        let properties = properties(&files, host)?.into_iter();
        Ok(properties
            .map(|(name, value)| (name.into_owned(), value))
            .collect())
    }

    #[test]
    fn files_have_their_properties() {
        for (file, value, name, wanted) in [
            ("memory.min", "131072", "MemoryMin", 131_072),
            ("memory.max", "max", "MemoryMax", UNLIMITED),
            ("memory.swap.max", " 5\n", "MemorySwapMax", 5),
            ("pids.max", "99", "TasksMax", 99),
            ("cpu.weight", "42", "CPUWeight", 42),
            ("cpu.idle", "1", "CPUWeight", 0),
        ] {
            let got = of(&[(file, value)], 252).unwrap();
            assert_eq!(
                got,
                [(name.to_owned(), Value::Uint64(wanted))],
                "{file}={value}"
            );
        }
        let quota = of(&[("cpu.max", "5000 50000")], 252).unwrap();
        assert_eq!(
            quota[0],
            ("CPUQuotaPeriodUSec".to_owned(), Value::Uint64(50_000))
        );
        assert_eq!(
            quota[1],
            ("CPUQuotaPerSecUSec".to_owned(), Value::Uint64(100_000))
        );
        let oom = of(&[("memory.oom.group", "1")], 253).unwrap();
        assert_eq!(oom, [("OOMPolicy".to_owned(), Value::text("kill"))]);
    }

    #[test]
    fn what_systemd_has_no_word_for_is_left_to_the_files() {
        let files = [
            ("misc.max", "a 1"),
            ("memory.oom.group", "1"),
            ("cpu.idle", "0"),
            ("../x", "y"),
        ];
        assert_eq!(of(&files, 252).unwrap(), []);
        let both = [("cpu.weight", "42"), ("cpu.idle", "1")];
        assert_eq!(of(&both, 252).unwrap().len(), 1);
    }

    #[test]
    fn values_that_are_none_are_refused() {
        for (file, value) in [
            ("memory.max", "-1"),
            ("memory.max", ""),
            ("cpu.max", ""),
            ("cpu.max", "1 2 3"),
            ("cpu.max", "x"),
            ("cpuset.cpus", "x"),
            ("cpu.weight", "max"),
            ("pids.max", "1.5"),
        ] {
            assert!(of(&[(file, value)], 252).is_err(), "{file}={value}");
        }
    }
}
