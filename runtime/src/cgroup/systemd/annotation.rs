//! Properties that annotations ask for: `org.systemd.property.NAME: VALUE`.
//!
//! runc hands every property on, and what an annotation may then do was used to
//! take over hosts: annotations often come from whoever may describe a pod.
//! Here only properties are taken whose effect ends with the container's own
//! unit; one that would start, stop or run anything else, move the unit,
//! gather foreign processes or open devices is refused by its name.

use std::collections::BTreeMap;

use super::Error;
use super::gvariant;
use super::properties::Property;
use crate::dbus::Value;

/// What these annotations begin with.
const PREFIX: &str = "org.systemd.property.";
/// The shortest name of a property, as in runc.
const NAME_BYTES_MIN: usize = 3;
/// Microseconds in a second.
const USEC_PER_SEC: u64 = 1_000_000;

/// Properties that concern the container's own unit alone
/// (systemd.scope(5), systemd.kill(5), systemd.resource-control(5) and, of
/// systemd.unit(5), what orders it among others without starting them).
const OWN: [&str; 39] = [
    "After",
    "Before",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUShares",
    "CPUWeight",
    "CoredumpReceive",
    "DefaultDependencies",
    "Description",
    "Documentation",
    "FinalKillSignal",
    "IOWeight",
    "JobRunningTimeoutUSec",
    "JobTimeoutUSec",
    "KillMode",
    "KillSignal",
    "ManagedOOMMemoryPressure",
    "ManagedOOMMemoryPressureLimit",
    "ManagedOOMPreference",
    "ManagedOOMSwap",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "MemoryZSwapMax",
    "OOMPolicy",
    "RestartKillSignal",
    "RuntimeMaxUSec",
    "RuntimeRandomizedExtraUSec",
    "SendSIGHUP",
    "SendSIGKILL",
    "StartupCPUShares",
    "StartupCPUWeight",
    "StartupIOWeight",
    "TasksMax",
    "TimeoutStopUSec",
    "WatchdogSignal",
    "CollectMode",
];

/// The properties that the annotations ask for, in the order of their names.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Error> {
    let wished = annotations.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(PREFIX)?;
        Some(property(name, value).map_err(|why| Error::Annotation {
            key: key.clone(),
            why,
        }))
    });
    wished.collect()
}

fn property(name: &str, text: &str) -> Result<Property, String> {
    if name.len() < NAME_BYTES_MIN {
        return Err("name incorrect: too short".into());
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("name incorrect: contains non-alphabetic character".into());
    }
    let failed = |why: String| format!("value {text:?} parse error: {why}");
    let value = gvariant::parse(text).map_err(failed)?;
    // Documented as `TimeoutStopSec`, called `TimeoutStopUSec` on the bus.
    let seconds = name
        .strip_suffix("Sec")
        .filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
    let (name, value) = match seconds {
        Some(stem) => (format!("{stem}USec"), microseconds(&value).map_err(failed)?),
        None => (name.to_owned(), value),
    };
    if !OWN.contains(&name.as_str()) {
        return Err(format!(
            "the property {name} is refused: it is not among those that concern the container's own unit alone"
        ));
    }
    Ok((name.into(), value))
}

fn microseconds(value: &Value) -> Result<Value, String> {
    let whole = match *value {
        Value::Byte(v) => Some(v.into()),
        Value::Int16(v) => v.try_into().ok(),
        Value::Uint16(v) => Some(v.into()),
        Value::Int32(v) => v.try_into().ok(),
        Value::Uint32(v) => Some(v.into()),
        Value::Int64(v) => v.try_into().ok(),
        Value::Uint64(v) => Some(v),
        Value::Double(seconds) => {
            let usec = seconds * USEC_PER_SEC as f64;
            // Below 2^63 a double is a whole number of microseconds without doubt.
            return if (0.0..9.2e18).contains(&usec) {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "its range was just checked; parts of a microsecond are dropped"
                )]
                Ok(Value::Uint64(usec as u64))
            } else {
                Err("not a time".into())
            };
        }
        _ => return Err("not a number".into()),
    };
    whole
        .and_then(|seconds: u64| seconds.checked_mul(USEC_PER_SEC))
        .map(Value::Uint64)
        .ok_or_else(|| "not a time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Vec<Property>, Error> {
        let annotations = [(format!("{PREFIX}{name}"), value.to_owned())];
        properties(&annotations.into())
    }

    #[test]
    fn properties_of_the_own_unit_are_taken() {
        for (name, text, property, value) in [
            (
                "TimeoutStopUSec",
                "uint64 123456789",
                "TimeoutStopUSec",
                Value::Uint64(123_456_789),
            ),
            (
                "TimeoutStopSec",
                "1",
                "TimeoutStopUSec",
                Value::Uint64(1_000_000),
            ),
            (
                "RuntimeMaxSec",
                "0.5",
                "RuntimeMaxUSec",
                Value::Uint64(500_000),
            ),
            (
                "CollectMode",
                "'inactive-or-failed'",
                "CollectMode",
                Value::text("inactive-or-failed"),
            ),
            (
                "DefaultDependencies",
                "true",
                "DefaultDependencies",
                Value::Bool(true),
            ),
        ] {
            let read = read(name, text).unwrap();
            assert_eq!(read, [(property.into(), value)], "{name}={text}");
        }
    }

    #[test]
    fn others_annotations_are_not_ours() {
        let others = [("org.systemd.propertyX".to_owned(), "'".to_owned())];
        assert_eq!(properties(&others.into()).unwrap(), []);
    }

    #[test]
    fn what_reaches_beyond_the_unit_is_refused() {
        for name in [
            "ExecStart",
            "ExecStopPost",
            "ExecStop",
            "OnFailure",
            "OnSuccess",
            "Wants",
            "Requires",
            "BindsTo",
            "PartOf",
            "Upholds",
            "Conflicts",
            "SuccessAction",
            "FailureAction",
            "JobTimeoutAction",
            "RebootArgument",
            "StartLimitAction",
            "PIDs",
            "PIDFDs",
            "Slice",
            "Delegate",
            "DeviceAllow",
            "DevicePolicy",
            "BPFProgram",
            "Controller",
            "User",
            "PropagatesStopTo",
            "JoinsNamespaceOf",
            "IPIngressFilterPath",
            "DisableControllers",
            "AddRef",
            "Markers",
            "Foo",
        ] {
            let error = read(name, "'x'").unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("is refused"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for (name, text) in [
            ("", "5"),
            ("Ab", "5"),
            ("Tasks Max", "5"),
            ("Tasks_Max", "5"),
            ("TasksMax\u{e4}", "5"),
            ("TasksMax\n", "5"),
            ("../TasksMax", "5"),
            ("TasksMax", ""),
            ("TasksMax", "infinity"),
            ("TimeoutStopSec", "'5'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
            ("TimeoutStopSec", "1e300"),
            ("TimeoutStopSec", "nan"),
        ] {
            assert!(read(name, text).is_err(), "{name}={text}");
        }
    }
}
