//! One line of `schemata`, compared as the kernel understands it
//! (Documentation/filesystems/resctrl.rst, "Schemata files").

/// A resource with its value for each domain: `L3:0=7f0;1=ff`.
struct Line<'a> {
    resource: &'a str,
    domains: Vec<(u64, &'a str)>,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (resource, domains) = line.split_once(':')?;
    let domain = |text: &'_ str| -> Option<(u64, usize)> {
        let (id, value) = text.split_once('=')?;
        Some((id.trim().parse().ok()?, text.len() - value.len()))
    };
    let domains = domains
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| domain(text).map(|(id, at)| (id, text[at..].trim())));
    Some(Line {
        resource: resource.trim(),
        domains: domains.collect::<Option<_>>()?,
    })
}

/// Whether what a group has, all lines of its `schemata`, is what one line asks
/// for. A domain that the line leaves out may have any value.
///
/// The kernel reads masks as hexadecimal numbers and bandwidths as decimal ones,
/// which it rounds up to a multiple of `granularity`; it writes its own way.
pub(super) fn has(schemata: &str, asked: &str, granularity: u64) -> bool {
    let Some(asked) = parse(asked) else {
        return false;
    };
    let mut lines = schemata.lines().filter_map(parse);
    let Some(have) = lines.find(|line| line.resource == asked.resource) else {
        return false;
    };
    let is_mask = !asked.resource.ends_with("MB") && asked.resource != "SMBA";
    let number = |text: &str| match is_mask {
        true => u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok(),
        false => text.parse().ok(),
    };
    asked.domains.iter().all(|(id, value)| {
        let there = have.domains.iter().find(|(known, _)| known == id);
        let (wanted, there) = (number(value), there.and_then(|(_, value)| number(value)));
        match (wanted, there) {
            (Some(wanted), Some(there)) if is_mask => wanted == there,
            (Some(wanted), Some(there)) => {
                let rounded = wanted.checked_next_multiple_of(granularity.max(1));
                wanted == there || rounded == Some(there)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAVE: &str = "    L3:0=7ff;1=00f\n    MB:0= 30;1=100\n";

    #[test]
    fn spelling_does_not_matter() {
        for asked in [
            "L3:0=7ff;1=f",
            "L3: 1=0x0f ; 0=7FF",
            "L3:1=F",
            "L3:01=f;",
            "MB:0=30",
            "MB:0=25;1=95",
        ] {
            assert!(has(HAVE, asked, 10), "{asked}");
        }
    }

    #[test]
    fn another_value_domain_or_resource_does() {
        for asked in [
            "L3:0=7fe", "L3:2=7ff", "L2:0=7ff", "MB:0=20", "MB:0=40", "MB:0=x", "L3:0", "",
        ] {
            assert!(!has(HAVE, asked, 10), "{asked}");
        }
        assert!(!has(HAVE, "MB:0=25", 1) && has(HAVE, "MB:0=30", 0));
        assert!(!has(HAVE, "MB:0=18446744073709551615", 10));
    }
}
