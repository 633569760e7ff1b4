//! Sizes and times as people write them.

use std::time::Duration;

/// `10GB`, `512MiB`, `1.5T`, `4096`: bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("B", 1.0),
        ("K", 1e3),
        ("KB", 1e3),
        ("M", 1e6),
        ("MB", 1e6),
        ("G", 1e9),
        ("GB", 1e9),
        ("T", 1e12),
        ("TB", 1e12),
    ];
    const BINARY: [(&str, f64); 4] = [
        ("KIB", 1024.0),
        ("MIB", 1_048_576.0),
        ("GIB", 1_073_741_824.0),
        ("TIB", 1_099_511_627_776.0),
    ];
    let (number, unit) = split(text)?;
    let unit = unit.to_ascii_uppercase();
    let mut units = UNITS.iter().chain(&BINARY);
    let factor = units
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let factor = factor.ok_or("want a size such as 10GB, 512MiB or 4096")?;
    Ok((number * factor) as u64)
}

/// `90s`, `15m`, `12h`, `7d`, `2w`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err("want a time such as 90s, 15m, 12h, 7d or 2w".into()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|err| err.to_string())
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number = text[..end]
        .parse()
        .map_err(|_| format!("{text:?} does not start with a number"))?;
    Ok((number, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (text, value) in [
            ("4096", 4096),
            ("1.5 kB", 1500),
            ("10GB", 10_000_000_000),
            ("1GiB", 1 << 30),
            ("2m", 2_000_000),
        ] {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        for bad in ["", "GB", "10XB", "-1"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("36h").unwrap(), Duration::from_secs(129_600));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        for bad in ["", "7", "d", "7y"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
