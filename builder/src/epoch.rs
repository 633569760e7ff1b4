//! The one time that a build writes: the same context gives the same image on any day.

use crate::tree::Time;

/// What stands for "now" when nobody says otherwise: 1980-01-01, the first day that zip files know.
const DEFAULT_SECONDS: i64 = 315_532_800;

/// Later than any time that a file has, and still one that an archive can write: the year 9999.
const KEEP_SECONDS: i64 = 253_402_207_200;

/// The variable and build argument that says otherwise; reproducible-builds.org.
pub const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Its value that means the time of the context; BuildKit's `docs/build-repro.md`.
pub const OF_CONTEXT: &str = "context";

/// The latest time that anything in the image carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub Time);

/// A SOURCE_DATE_EPOCH that is no count of seconds.
#[derive(Debug, thiserror::Error)]
#[error("SOURCE_DATE_EPOCH is {0:?}, neither a number of seconds since 1970 nor the word context")]
pub struct BadEpoch(String);

impl Epoch {
    /// Reads the value of `SOURCE_DATE_EPOCH` (reproducible-builds.org), seconds since 1970; without one the fixed date.
    ///
    /// # Errors
    /// It is no number, or no time that RFC 3339 can write.
    pub fn parse(value: Option<&str>) -> Result<Self, BadEpoch> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Ok(Self::at(DEFAULT_SECONDS));
        };
        let seconds = value
            .parse()
            .ok()
            .filter(|seconds| *seconds < KEEP_SECONDS)
            .filter(|seconds| jiff::Timestamp::from_second(*seconds).is_ok());
        seconds
            .map(Self::at)
            .ok_or_else(|| BadEpoch(value.to_owned()))
    }

    /// Times stay as they are, and what has none gets the present one: images as BuildKit makes
    /// them, which differ with every build.
    pub fn keep() -> Self {
        Self::at(KEEP_SECONDS)
    }

    /// The time of what is made now.
    pub fn now(self) -> Time {
        if self.0.seconds < KEEP_SECONDS {
            return self.0;
        }
        let now = jiff::Timestamp::now();
        Time {
            seconds: now.as_second(),
            nanoseconds: 0,
        }
    }

    fn at(seconds: i64) -> Self {
        Self(Time {
            seconds,
            nanoseconds: 0,
        })
    }

    /// As image configurations write it.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_second(self.now().seconds)
            .unwrap_or_default()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_or_the_fixed_date() {
        assert_eq!(
            Epoch::parse(None).unwrap().rfc3339(),
            "1980-01-01T00:00:00Z"
        );
        assert_eq!(
            Epoch::parse(Some("1700000000")).unwrap().rfc3339(),
            "2023-11-14T22:13:20Z"
        );
        assert!(Epoch::keep().now() < Epoch::keep().0);
        assert!(Epoch::keep().rfc3339().as_str() > "2024");
        assert!(Epoch::parse(Some("yesterday")).is_err());
        assert!(Epoch::parse(Some("99999999999999999")).is_err());
    }
}
