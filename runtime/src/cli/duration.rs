//! Times as Go writes them: `300ms`, `1.5h`, `1m30s`.

/// Reads a duration in nanoseconds. `None` where it is none, or longer than
/// Go's 292 years.
pub(super) fn nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&at| at > 0)?;
        let (value, tail) = rest.split_at(number);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (name, tail) = tail.split_at(unit);
        sum = sum.checked_add(scaled(value, unit_nanos(name)?)?)?;
        rest = tail;
    }
    Some(if negative { -sum } else { sum })
}

fn unit_nanos(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        // Both letters that are written for micro.
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `1.5` of a unit; what is below a nanosecond falls away.
fn scaled(value: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = match whole {
        "" => 0,
        digits => digits.parse::<i64>().ok()?,
    };
    let mut part = 0;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        part += place * i64::from(digit - b'0');
    }
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("5s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("7ns", 7),
            ("0", 0),
            ("+0", 0),
            ("-3s", -3_000_000_000),
            ("0.25us", 250),
        ] {
            assert_eq!(nanos(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "3",
            "s",
            "-",
            ".",
            "1x",
            "1s2",
            "1 s",
            "1..5s",
            ".s",
            "5 ",
            "99999999999h",
            "１s",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
