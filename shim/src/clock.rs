//! Times as our files hold them: RFC 3339, UTC, nanoseconds, always 30 bytes,
//! so that their order is the order of their bytes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Length of a formatted time, in bytes: `2026-01-31T23:59:59.123456789Z`.
pub const BYTES: usize = 30;

/// Formats `time`. Times before 1970 show as 1970.
#[must_use]
pub fn format(time: SystemTime) -> [u8; BYTES] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], seconds / 3_600 % 24);
    digits(&mut out[14..16], seconds / 60 % 60);
    digits(&mut out[17..19], seconds % 60);
    digits(&mut out[20..29], u64::from(since.subsec_nanos()));
    out
}

/// Length of a time of [`format_local`], in bytes: `2026-01-31T23:59:59.123456789+01:00`.
pub const LOCAL_BYTES: usize = 35;

/// Formats `time` in the host's time zone, which is named by its distance from UTC.
#[must_use]
pub fn format_local(time: SystemTime) -> [u8; LOCAL_BYTES] {
    let offset = crate::sys::utc_offset_seconds(time);
    let shift = std::time::Duration::from_secs(offset.unsigned_abs().into());
    let shifted = if offset < 0 {
        time.checked_sub(shift)
    } else {
        time.checked_add(shift)
    };
    let (sign, minutes) = match shifted {
        Some(_) if offset < 0 => (b'-', u64::from(offset.unsigned_abs()) / 60),
        Some(_) => (b'+', u64::from(offset.unsigned_abs()) / 60),
        None => (b'+', 0),
    };
    let mut out = *b"0000-00-00T00:00:00.000000000+00:00";
    out[..BYTES - 1].copy_from_slice(&format(shifted.unwrap_or(time))[..BYTES - 1]);
    out[BYTES - 1] = sign;
    digits(&mut out[30..32], minutes / 60);
    digits(&mut out[33..35], minutes % 60);
    out
}

/// The present as text.
#[must_use]
pub fn now() -> String {
    String::from_utf8_lossy(&format(SystemTime::now())).into_owned()
}

/// Fills `out` with the lowest decimal digits of `value`.
fn digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian
/// calendar. Counts in years that begin on 1 March, so that the leap day is
/// the last day of its year, in eras of 400 years (146,097 days).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (
        era * 400 + year + u64::from(calendar_month <= 2),
        calendar_month,
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn text(seconds: u64, nanos: u32) -> String {
        String::from_utf8(format(UNIX_EPOCH + Duration::new(seconds, nanos)).to_vec()).unwrap()
    }

    #[test]
    fn the_calendar_agrees_with_known_days() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(
            text(1_709_251_199, 999_999_999),
            "2024-02-29T23:59:59.999999999Z"
        );
        assert_eq!(text(4_102_444_800, 0), "2100-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn local_times_name_the_same_instant() {
        let time = UNIX_EPOCH + Duration::new(1_709_251_199, 999_999_999);
        let text = String::from_utf8(format_local(time).to_vec()).unwrap();
        let theirs: jiff::Timestamp = text.parse().unwrap();
        assert_eq!(theirs, jiff::Timestamp::try_from(time).unwrap(), "{text}");
    }

    #[test]
    fn agrees_with_jiff_over_four_centuries() {
        for day in (0..150_000u64).step_by(13) {
            let seconds = day * 86_400 + day % 86_400;
            let theirs = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
            assert_eq!(text(seconds, 0)[..19], theirs.to_string()[..19]);
        }
    }
}
