//! Lists of CPUs and memory nodes such as `0-3,7` (config.md, "execCPUAffinity").

/// One above the highest id: the most CPUs of a `cpu_set_t`, and of NUMA nodes
/// that any kernel is built for (`MAX_NUMNODES`).
pub(super) const IDS_MAX: usize = 1024;

/// Reads a list. Blanks around entries and empty entries are allowed, as the
/// specification's schema does; a list of nothing gives no ids.
pub(super) fn parse(text: &str) -> Result<Vec<usize>, String> {
    let mut ids = Vec::new();
    for entry in text.split(',').map(str::trim) {
        if entry.is_empty() {
            continue;
        }
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let (first, last) = (number(first, entry)?, number(last, entry)?);
        if first > last {
            return Err(format!(
                "has the range {entry:?} that ends before it begins"
            ));
        }
        ids.extend(first..=last);
        // Overlapping ranges must not make a short text a long list.
        ids.sort_unstable();
        ids.dedup();
    }
    Ok(ids)
}

fn number(text: &str, entry: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(format!(
            "has {entry:?}, which is neither a number nor a range"
        ));
    }
    match text.parse() {
        Ok(number) if number < IDS_MAX => Ok(number),
        _ => Err(format!("has {entry:?}, but {} is the highest", IDS_MAX - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_blanks_and_empty_entries_are_read() {
        assert_eq!(parse("0-3,7").unwrap(), [0, 1, 2, 3, 7]);
        assert_eq!(parse(" 5 , 1 - 2,, 2-2").unwrap(), [1, 2, 5]);
        assert_eq!(parse("1023").unwrap(), [1023]);
        assert_eq!(parse(" , ").unwrap(), [0usize; 0]);
    }

    #[test]
    fn mistakes_are_shown() {
        for bad in [
            "a",
            "-",
            "1-",
            "-1",
            "3-1",
            "1024",
            "0-1-2",
            "+1",
            "99999999999999999999",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("0,3-1").unwrap_err().contains("\"3-1\""));
    }
}
