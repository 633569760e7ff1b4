//! Giving memory back when there is nothing to do.

use std::time::Duration;

/// How long nothing must happen before it is done. What comes every few seconds pays
/// with some faults each time, and leaves the process as small as one that never woke.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Whether it was done since something happened.
#[derive(Debug, Default)]
pub struct Rest {
    rested: bool,
}

impl Rest {
    /// How long to wait for something to happen, if it is to be done then.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        (!self.rested).then_some(REST_AFTER)
    }

    /// Takes note of whether something has happened, within that time or another; does it
    /// if nothing has.
    pub fn waited(&mut self, happened: bool) {
        if happened {
            self.rested = false;
        } else if !self.rested {
            self.rested = true;
            crate::sys::rest();
        }
    }
}
