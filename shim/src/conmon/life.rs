//! The life of a supervised process as a pure state machine: events in, actions out.
//!
//! ```text
//!            StartAllowed         RuntimeEnded          ProcessEnded       Drained
//!  Waiting ───────────────> Making ──────────> Running ─────────────> Draining ──> Gone
//!                             │ Refused: why is told, the exit command runs         ^
//!                             └─────────────────────────────────────────────────────┘
//! ```
//!
//! The order at the end is what callers rely on: the output is in the log,
//! then the exit files are there, then an exec session's caller is told, then
//! the exit command runs.

use crate::container::exit::SIGNAL_STATUS_BASE;
use crate::supervisor::machine::Wait;

/// What a caller hears of a process that was killed for its time limit.
pub const TIMED_OUT: &str = "command timed out";
/// The status of a process when nobody could see how it ended, or that was killed for its time limit.
const STATUS_UNKNOWN: i32 = -1;
/// The supervisor's own status when there never was a process.
const STATUS_REFUSED: i32 = 1;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The caller lets the runtime be executed.
    StartAllowed,
    /// The runtime has made the process.
    Made(i32),
    /// The runtime has not, and this is why.
    Refused(String),
    /// The process ended.
    Ended(Wait),
    /// What it had written is in the log.
    Drained,
    /// The log did not take it in time.
    DrainExpired,
    /// The time limit of `--timeout` is over.
    TimeUp,
    /// A signal came that is meant for the process.
    Signal(i32),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Execute the runtime; then report Made or Refused.
    Make,
    /// Tell the caller the pid, and watch the process.
    TellMade(i32),
    /// Tell the caller why there is no process.
    TellRefused(String),
    /// Send a signal to the runtime.
    SignalRuntime(i32),
    /// Send a signal to the process.
    Signal(i32),
    /// Kill the process with its process group.
    Kill,
    /// Report DrainExpired after a while, unless Drained came first.
    ArmDrain,
    /// Nothing goes in any more; take what the process left, then report Drained.
    Drain,
    /// Put this status where callers look for it, and tell an exec session's caller.
    Record(i32, Option<&'static str>),
    /// Run the exit command, then leave with this status.
    Leave(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Making,
    Running,
    Draining,
    Gone,
}

/// One supervised process.
#[derive(Debug)]
pub struct Life {
    phase: Phase,
    timed_out: bool,
    status: i32,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            phase: Phase::Waiting,
            timed_out: false,
            status: STATUS_UNKNOWN,
        }
    }
}

impl Life {
    /// Takes an event, returns what to do about it.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match (self.phase, event) {
            (Phase::Waiting, Event::StartAllowed) => {
                self.phase = Phase::Making;
                vec![Action::Make]
            }
            (Phase::Making, Event::Made(pid)) => {
                self.phase = Phase::Running;
                vec![Action::TellMade(pid)]
            }
            (Phase::Waiting | Phase::Making, Event::Refused(words)) => {
                self.phase = Phase::Gone;
                vec![Action::TellRefused(words), Action::Leave(STATUS_REFUSED)]
            }
            (Phase::Running, Event::Ended(wait)) => {
                self.phase = Phase::Draining;
                self.status = status(wait);
                vec![Action::ArmDrain, Action::Drain]
            }
            // Whatever keeps it from dying (it may be frozen) must not keep its caller waiting.
            (Phase::Running, Event::TimeUp) => {
                self.timed_out = true;
                vec![Action::Kill, Action::ArmDrain]
            }
            (Phase::Running, Event::DrainExpired) if self.timed_out => self.finish(),
            (Phase::Draining, Event::Drained | Event::DrainExpired) => self.finish(),
            (Phase::Waiting, Event::Signal(_)) => {
                self.phase = Phase::Gone;
                vec![Action::Leave(STATUS_REFUSED)]
            }
            (Phase::Making, Event::Signal(signal)) => vec![Action::SignalRuntime(signal)],
            (Phase::Running, Event::Signal(signal)) => vec![Action::Signal(signal)],
            _ => Vec::new(),
        }
    }

    fn finish(&mut self) -> Vec<Action> {
        self.phase = Phase::Gone;
        let (status, message) = if self.timed_out {
            (STATUS_UNKNOWN, Some(TIMED_OUT))
        } else {
            (self.status, None)
        };
        vec![Action::Record(status, message), Action::Leave(status)]
    }
}

/// 0 to 255; 128+n after signal n; -1 where nobody saw how it ended.
fn status(wait: Wait) -> i32 {
    match wait {
        Wait::Exited(status) => status,
        Wait::Signaled(signal) => SIGNAL_STATUS_BASE + signal,
        Wait::Unknown => STATUS_UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Life {
        let mut life = Life::default();
        assert_eq!(life.step(Event::StartAllowed), [Action::Make]);
        assert_eq!(life.step(Event::Made(7)), [Action::TellMade(7)]);
        life
    }

    #[test]
    fn the_whole_life_in_order() {
        let mut life = running();
        assert_eq!(life.step(Event::Signal(15)), [Action::Signal(15)]);
        assert_eq!(
            life.step(Event::Ended(Wait::Signaled(15))),
            [Action::ArmDrain, Action::Drain]
        );
        assert_eq!(
            life.step(Event::Drained),
            [Action::Record(143, None), Action::Leave(143)]
        );
        assert_eq!(life.step(Event::DrainExpired), []);
        assert_eq!(life.step(Event::Signal(15)), []);
    }

    #[test]
    fn a_log_that_does_not_take_the_rest_is_not_waited_for_for_ever() {
        let mut life = running();
        life.step(Event::Ended(Wait::Exited(3)));
        assert_eq!(
            life.step(Event::DrainExpired),
            [Action::Record(3, None), Action::Leave(3)]
        );
    }

    #[test]
    fn what_was_never_made_is_told_and_left() {
        let mut life = Life::default();
        life.step(Event::StartAllowed);
        assert_eq!(life.step(Event::Signal(2)), [Action::SignalRuntime(2)]);
        assert_eq!(
            life.step(Event::Refused("no".into())),
            [Action::TellRefused("no".into()), Action::Leave(1)]
        );
    }

    #[test]
    fn who_waits_for_a_caller_can_be_ended() {
        let mut life = Life::default();
        assert_eq!(life.step(Event::Signal(15)), [Action::Leave(1)]);
        assert_eq!(life.step(Event::StartAllowed), []);
    }

    #[test]
    fn what_takes_too_long_is_killed_and_its_status_is_no_status() {
        let mut life = running();
        assert_eq!(life.step(Event::TimeUp), [Action::Kill, Action::ArmDrain]);
        life.step(Event::Ended(Wait::Signaled(9)));
        let end = [Action::Record(-1, Some(TIMED_OUT)), Action::Leave(-1)];
        assert_eq!(life.step(Event::Drained), end);
        let mut frozen = running();
        frozen.step(Event::TimeUp);
        assert_eq!(frozen.step(Event::DrainExpired), end);
    }

    #[test]
    fn a_time_limit_after_the_end_is_none() {
        let mut life = running();
        life.step(Event::Ended(Wait::Exited(0)));
        assert_eq!(life.step(Event::TimeUp), []);
        assert_eq!(
            life.step(Event::Drained),
            [Action::Record(0, None), Action::Leave(0)]
        );
    }

    #[test]
    fn a_status_that_nobody_saw_is_not_invented() {
        let mut life = running();
        life.step(Event::Ended(Wait::Unknown));
        assert_eq!(
            life.step(Event::Drained),
            [Action::Record(-1, None), Action::Leave(-1)]
        );
    }
}
