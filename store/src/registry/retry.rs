//! When a request is made again, and how long to wait before.

use super::Error;
use super::limits::Limits;
use std::time::Duration;

/// Longest wait of our own choosing.
const DELAY_MAX: Duration = Duration::from_secs(20);

/// Longest wait that a registry may ask for. Docker Hub's pull limit asks for
/// hours: that is an error to show, not a wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Whether a status may be another one a moment later: request timeout, too
/// many requests, and what servers and balancers answer when they are in trouble.
#[must_use]
pub(super) fn is_passing(status: u16) -> bool {
    matches!(
        status,
        408 | 425 | 429 | 500 | 502 | 503 | 504 | 509 | 520..=524
    )
}

/// How long to wait before attempt `attempt` (the second is 2), or none when
/// there is no further one. `asked` is the registry's `Retry-After`; `random`
/// spreads clients that failed together: the wait is between half and all of
/// its doubling time.
#[must_use]
pub(super) fn delay(
    limits: &Limits,
    attempt: u32,
    asked: Option<Duration>,
    random: u32,
) -> Option<Duration> {
    if attempt > limits.attempts {
        return None;
    }
    let doubled = limits.first_delay * 2_u32.saturating_pow(attempt.saturating_sub(2).min(16));
    let whole = doubled.min(DELAY_MAX);
    let jittered = whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX));
    match asked {
        Some(asked) if asked > RETRY_AFTER_MAX => None,
        // The jitter is added: who was told the same second should not come back together.
        Some(asked) => Some(asked + jittered.min(limits.first_delay)),
        None => Some(jittered),
    }
}

/// Parses `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date that is
/// compared with `now_unix` (seconds since 1970).
#[must_use]
pub(super) fn retry_after(value: &str, now_unix: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let seconds = date.timestamp().as_second().saturating_sub(now_unix);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A random number for [`delay`]; 0 where the kernel has none to give.
#[must_use]
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

/// Does `once` until it succeeds, fails for good, or has been tried often enough.
///
/// # Errors
/// The last failure.
pub(super) fn run<T>(
    limits: &Limits,
    mut once: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        let error = match once() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        attempt += 1;
        let wait = error
            .passing()
            .and_then(|asked| delay(limits, attempt, asked, random()));
        match wait {
            Some(wait) => std::thread::sleep(wait),
            None => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        attempts: 6,
        first_delay: Duration::from_millis(500),
        stall: Duration::from_secs(60),
        rate_min: 1024,
    };

    #[test]
    fn waits_double_and_stay_within_bounds() {
        let longest: Vec<u64> = (2..=6)
            .filter_map(|attempt| delay(&LIMITS, attempt, None, u32::MAX))
            .map(|wait| wait.as_millis() as u64)
            .collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000]);
        assert_eq!(delay(&LIMITS, 2, None, 0), Some(Duration::from_millis(250)));
        assert_eq!(delay(&LIMITS, 7, None, 0), None);
    }

    #[test]
    fn the_registry_may_ask_for_a_wait_but_not_for_hours() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(
            delay(&LIMITS, 2, asked, 0),
            Some(Duration::from_millis(7250))
        );
        assert_eq!(delay(&LIMITS, 2, Some(Duration::from_secs(21600)), 0), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 30 ", 0), Some(Duration::from_secs(30)));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(
            retry_after(date, 1_445_412_470),
            Some(Duration::from_secs(10))
        );
        assert_eq!(retry_after(date, 1_545_412_470), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", 0), None);
        assert_eq!(retry_after("-5", 0), None);
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_passing(status), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 405, 413, 416, 501] {
            assert!(!is_passing(status), "{status}");
        }
    }
}
