//! Which processes are to be looked at: those to which something happened, and those whose time has
//! come. A pod may have thousands, and a turn of the loop is about a few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Processes by their keys. Without memory while nothing happens and nothing is timed.
#[derive(Debug, Default)]
pub struct Attention {
    /// To be looked at.
    touched: BTreeSet<u32>,
    /// Looked at; the poller has not been told yet.
    seen: BTreeSet<u32>,
    /// Those with a deadline, the next one first.
    timers: BTreeSet<(Instant, u32)>,
    /// The same by key.
    deadlines: BTreeMap<u32, Instant>,
}

impl Attention {
    /// Something happened to this one.
    pub fn touch(&mut self, key: u32) {
        self.touched.insert(key);
    }

    /// Those whose time has come. Each is looked at, and has no deadline until it gets another.
    pub fn expire(&mut self, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.set_deadline(key, None);
            self.touch(key);
            due.push(key);
        }
        due
    }

    /// The next to be looked at.
    pub fn look(&mut self) -> Option<u32> {
        let key = self.touched.pop_first()?;
        self.seen.insert(key);
        Some(key)
    }

    /// Those of which the poller is to be told what is waited for, each once. Who was touched in the
    /// meantime is among them, and is looked at all the same.
    pub fn settle(&mut self) -> BTreeSet<u32> {
        let mut keys = std::mem::take(&mut self.seen);
        keys.extend(&self.touched);
        keys
    }

    /// When it is to be looked at even if nothing happens.
    pub fn set_deadline(&mut self, key: u32, at: Option<Instant>) {
        if let Some(old) = self.deadlines.remove(&key) {
            self.timers.remove(&(old, key));
        }
        if let Some(at) = at {
            self.deadlines.insert(key, at);
            self.timers.insert((at, key));
        }
    }

    /// It is gone.
    pub fn forget(&mut self, key: u32) {
        self.set_deadline(key, None);
        self.touched.remove(&key);
        self.seen.remove(&key);
    }

    /// When somebody is to be looked at next.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.touched.is_empty() {
            return Some(now);
        }
        self.timers.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_is_looked_at_once_and_settled_once() {
        let mut attention = Attention::default();
        let now = Instant::now();
        assert_eq!((attention.deadline(now), attention.look()), (None, None));
        for key in [7, 3, 7] {
            attention.touch(key);
        }
        assert_eq!(attention.deadline(now), Some(now));
        assert_eq!(attention.look(), Some(3));
        // Touched again while another is looked at.
        attention.touch(3);
        assert_eq!(attention.settle(), BTreeSet::from([3, 7]));
        assert_eq!(
            attention.deadline(now),
            Some(now),
            "both are still to be looked at"
        );
        assert_eq!((attention.look(), attention.look()), (Some(3), Some(7)));
        assert_eq!(attention.look(), None);
        assert_eq!(attention.settle(), BTreeSet::from([3, 7]));
        assert!(attention.settle().is_empty());
    }

    #[test]
    fn the_last_deadline_counts() {
        let mut attention = Attention::default();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        attention.set_deadline(1, Some(later(5)));
        attention.set_deadline(2, Some(later(1)));
        attention.set_deadline(2, Some(later(9)));
        attention.set_deadline(3, Some(later(2)));
        attention.forget(3);
        assert_eq!(attention.deadline(now), Some(later(5)));
        assert!(attention.expire(later(4)).is_empty());
        assert_eq!(attention.expire(later(6)), [1]);
        assert_eq!(attention.look(), Some(1));
        assert_eq!(attention.deadline(now), Some(later(9)));
    }
}
