//! Checksums of what is stored: a damaged record must not come to mean another
//! process, or other cgroups.

/// What [`super::Locked::name_init`] stores.
pub(super) fn format_init(pid: i32, start_ticks: u64) -> String {
    let fact = format!("{pid}:{start_ticks}");
    let check = crate::file::checksum(fact.as_bytes());
    format!("{fact}:{check:016x}")
}

/// Reads that back; a damaged one must not come to mean another process.
pub(super) fn parse_init(link: &str) -> Option<(i32, u64)> {
    let (pid, rest) = link.split_once(':')?;
    let (ticks, _) = rest.split_once(':')?;
    let (pid, ticks) = (
        pid.parse().ok().filter(|&pid| pid > 0)?,
        ticks.parse().ok()?,
    );
    (format_init(pid, ticks) == link).then_some((pid, ticks))
}

/// The checksum as the first member of the state's JSON object.
fn first_member(rest: &[u8]) -> String {
    format!("{{\"check\":\"{:016x}\",", crate::file::checksum(rest))
}

/// The state's JSON with its checksum in front.
pub(super) fn sealed(json: &[u8]) -> Vec<u8> {
    // What stands behind the opening brace: a state has members.
    let rest = json.get(1..).unwrap_or_default();
    [first_member(rest).as_bytes(), rest].concat()
}

/// Whether the text is as [`sealed`] has made it.
pub(super) fn is_whole(text: &[u8]) -> bool {
    let length = first_member(&[]).len();
    text.split_at_checked(length)
        .is_some_and(|(first, rest)| first == first_member(rest).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_link_names_nobody() {
        for link in ["", "7", "0:1", "-1:1", "x:1", "7:", "7:x"] {
            assert_eq!(parse_init(link), None, "{link:?}");
        }
    }

    #[test]
    fn a_damaged_record_is_never_believed() {
        let whole = sealed(br#"{"version":1,"id":"c"}"#);
        assert!(serde_json::from_slice::<serde_json::Value>(&whole).is_ok());
        assert!(is_whole(&whole));
        assert!((0..whole.len()).all(|length| !is_whole(&whole[..length])));
        let link = format_init(123, 456);
        assert_eq!(parse_init(&link), Some((123, 456)));
        let flipped = |text: &[u8], bit: usize| {
            let mut text = text.to_vec();
            text[bit / 8] ^= 1 << (bit % 8);
            text
        };
        assert!((0..8 * whole.len()).all(|bit| !is_whole(&flipped(&whole, bit))));
        for bit in 0..8 * link.len() {
            let link = flipped(link.as_bytes(), bit);
            assert_eq!(std::str::from_utf8(&link).ok().and_then(parse_init), None);
        }
    }
}
