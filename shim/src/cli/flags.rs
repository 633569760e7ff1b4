//! What the values of flags mean. Pure.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::container::Name;
use crate::container::record::Port;
use crate::sys::SIGNAL_MAX;

/// Largest environment file, in bytes; an environment itself is limited by the kernel to a quarter of the stack.
pub(super) const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

fn invalid<T>(message: String) -> Result<T, Error> {
    Err(Error::Invalid(message))
}

/// Names of signals by number, from 1. `signal(7)`.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that glibc and musl leave to programs.
const SIGRTMIN: i32 = 34;

/// A signal: `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`.
pub(super) fn signal(text: &str) -> Result<i32, Error> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(number) => number.parse::<i32>().ok(),
        None => rest.is_empty().then_some(0),
    };
    let number = if let Ok(number) = name.parse::<i32>() {
        Some(number)
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|n| SIGRTMIN.saturating_add(n))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|n| SIGNAL_MAX.saturating_sub(n))
    } else {
        SIGNALS
            .iter()
            .position(|signal| *signal == name)
            .and_then(|at| i32::try_from(at + 1).ok())
    };
    match number {
        Some(number) if (1..=SIGNAL_MAX).contains(&number) => Ok(number),
        _ => invalid(format!(
            "{text:?} is not a signal: a name such as TERM, or a number from 1 to {SIGNAL_MAX}"
        )),
    }
}

/// A size in bytes: a number with an optional unit `b`, `k`, `m`, `g` or `t` of 1024.
pub(super) fn bytes(text: &str) -> Result<i64, Error> {
    let lower = text.to_ascii_lowercase();
    let (number, unit) = match lower.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => lower.split_at(at),
        None => (lower.as_str(), ""),
    };
    let shift = match unit {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let size = shift
        .and_then(|shift| number.parse::<i64>().ok()?.checked_mul(1 << shift))
        .filter(|size| *size > 0);
    size.map_or_else(
        || {
            invalid(format!(
                "{text:?} is not a size: a number with b, k, m or g, such as 64m"
            ))
        },
        Ok,
    )
}

/// CPUs as a quota in microseconds per [`CPU_PERIOD`].
pub(super) fn cpu_quota(text: &str) -> Result<i64, Error> {
    let cpus: f64 = text.parse().unwrap_or(f64::NAN);
    if cpus.is_finite() && (0.01..=10_000.0).contains(&cpus) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 1e9")]
        return Ok((cpus * CPU_PERIOD as f64).round() as i64);
    }
    invalid(format!("{text:?} is not a number of CPUs, such as 1.5"))
}

/// The kernel's default period, in microseconds.
pub(super) const CPU_PERIOD: u32 = 100_000;

/// An environment variable: `NAME=VALUE` as it is, `NAME` with the caller's value or not at all.
pub(super) fn variable(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, Error> {
    match text.split_once('=') {
        Some(("", _)) => invalid(format!(
            "{text:?} sets no variable: give NAME=VALUE or NAME"
        )),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => invalid("an environment variable needs a name".to_owned()),
        None => Ok(lookup(text).map(|value| format!("{text}={value}"))),
    }
}

/// The variables of an environment file: one a line, `#` begins a comment line.
pub(super) fn variables_of_file(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| variable(line, lookup).transpose())
        .collect()
}

/// What a `--volume` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A path of the host.
    Host(PathBuf),
    /// A volume of ours.
    Named(Name),
    /// A new volume of this container's own.
    Anonymous,
}

/// A `--volume` flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeFlag {
    pub(super) source: Source,
    /// Absolute, without `.` and `..`.
    pub(super) target: String,
    /// Mount options besides `rbind`.
    pub(super) options: Vec<String>,
    /// Fill a new volume with the image's content.
    pub(super) copy: bool,
}

/// `[SOURCE:]TARGET[:OPTION,...]`.
pub(super) fn volume(text: &str, cwd: &Path) -> Result<VolumeFlag, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => {
            return invalid(format!(
                "volume {text:?} has too many colons: SOURCE:TARGET[:OPTIONS]"
            ));
        }
    };
    let source = match source {
        "" if parts.len() > 1 => return invalid(format!("volume {text:?} has an empty source")),
        "" => Source::Anonymous,
        path if path.starts_with('/') => Source::Host(PathBuf::from(path)),
        path if path == "."
            || path == ".."
            || path.starts_with("./")
            || path.starts_with("../") =>
        {
            Source::Host(cwd.join(path))
        }
        name => Source::Named(name.parse()?),
    };
    let mut flag = VolumeFlag {
        source,
        target: container_path(target)?,
        options: Vec::new(),
        copy: true,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "nocopy" => flag.copy = false,
            "ro" | "rw" | "rprivate" | "private" | "rslave" | "slave" | "rshared" | "shared"
            | "nosuid" | "nodev" | "noexec" => flag.options.push(option.to_owned()),
            _ => {
                return invalid(format!(
                    "volume {text:?}: option {option:?} is not one of ro, rw, nocopy, nosuid, nodev, noexec, [r]private, [r]slave, [r]shared"
                ));
            }
        }
    }
    if !flag.options.iter().any(|option| {
        ["private", "slave", "shared"]
            .iter()
            .any(|kind| option.ends_with(kind))
    }) {
        flag.options.push("rprivate".to_owned());
    }
    Ok(flag)
}

/// An absolute path in the container, cleaned of `.`, `..` and double slashes; not the root.
pub(super) fn container_path(text: &str) -> Result<String, Error> {
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match clean.to_str() {
        Some(path) if text.starts_with('/') && path != "/" => Ok(path.to_owned()),
        _ => invalid(format!(
            "{text:?} is no place in the container: an absolute path other than /"
        )),
    }
}

/// `[IP:]HOST:CONTAINER[/PROTOCOL]`.
pub(super) fn port(text: &str) -> Result<Port, Error> {
    let wrong = || {
        Error::Invalid(format!(
            "{text:?} is not a port mapping: [IP:]HOST:CONTAINER[/tcp|udp|sctp]"
        ))
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(wrong());
    }
    let (rest, container) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (ip, host) = match rest.rsplit_once(':') {
        Some((ip, host)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), host),
        None => (None, rest),
    };
    let number = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)
    };
    let host_ip = match ip {
        Some(ip) => Some(
            ip.parse::<std::net::IpAddr>()
                .map_err(|_| wrong())?
                .to_string(),
        ),
        None => None,
    };
    Ok(Port {
        host_port: number(host)?,
        container_port: number(container)?,
        protocol: protocol.to_owned(),
        host_ip,
    })
}

/// A length of time: seconds, or with units (`90`, `1m30s`, `2h`).
pub(super) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let (mut total, mut number) = (Duration::ZERO, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let seconds = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(
            number.parse::<u64>().ok()?.checked_mul(seconds)?,
        ))?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("2", 2),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SYS", 31),
            ("RTMIN", 34),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "TERMINATE", "RTMIN+99", "RTMIN-1"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_cpus() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!(bytes("1024").unwrap(), 1024);
        assert_eq!(bytes("2G").unwrap(), 2 << 30);
        for bad in ["", "m", "-1", "0", "1x", "9999999999t"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(cpu_quota("1.5").unwrap(), 150_000);
        for bad in ["", "0", "-1", "nan", "inf"] {
            assert!(cpu_quota(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_come_from_the_flag_or_the_caller() {
        let lookup = |name: &str| (name == "HERE").then(|| "yes".to_owned());
        assert_eq!(variable("A=b=c", &lookup).unwrap().unwrap(), "A=b=c");
        assert_eq!(variable("HERE", &lookup).unwrap().unwrap(), "HERE=yes");
        assert_eq!(variable("GONE", &lookup).unwrap(), None);
        assert!(variable("=x", &lookup).is_err());
        assert_eq!(
            variables_of_file("# c\n\nA=1\n  HERE\nGONE\n", &lookup).unwrap(),
            ["A=1", "HERE=yes"]
        );
    }

    #[test]
    fn volumes_of_all_kinds() {
        let parse = |text: &str| volume(text, Path::new("/cwd"));
        let host = parse("/src:/dst:ro").unwrap();
        assert_eq!(host.source, Source::Host("/src".into()));
        assert_eq!(host.options, ["ro", "rprivate"]);
        assert_eq!(
            parse("./x:/d").unwrap().source,
            Source::Host("/cwd/./x".into())
        );
        assert!(
            matches!(parse("data:/d/../e").unwrap(), VolumeFlag { source: Source::Named(_), target, .. } if target == "/e")
        );
        assert_eq!(parse("/only").unwrap().source, Source::Anonymous);
        assert!(!parse("v:/d:nocopy,rshared").unwrap().copy);
        for bad in [
            "",
            ":",
            ":/d",
            "a:b",
            "a:/",
            "a/b:/d",
            "/a:/b:zz",
            "/a:/b:ro:x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_of_all_kinds() {
        let simple = port("8080:80").unwrap();
        assert_eq!(
            (
                simple.host_port,
                simple.container_port,
                simple.protocol.as_str()
            ),
            (8080, 80, "tcp")
        );
        assert_eq!(
            port("127.0.0.1:53:53/udp").unwrap().host_ip.as_deref(),
            Some("127.0.0.1")
        );
        assert_eq!(port("[::1]:1:2").unwrap().host_ip.as_deref(), Some("::1"));
        for bad in ["", "80", "0:80", "1:2:3", "1:70000", "1:2/icmp", "host:1:2"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        for bad in ["", "m", "1x", "1m3"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
