//! The life of one process as a pure state machine: events in, actions out.
//!
//! ```text
//!            StartAsked           Started             Exited        output drained
//!  Created ─────────────> Starting ──────> Running ──────────> Draining ──> Recording ──> Gone
//!     │                      │ StartFailed: killed, its message kept
//!     └──────────────────────┴──── Exited (ended before its program ran) ──^
//! ```
//!
//! The order at the end is the promise to everyone who waits: the output is in
//! the log, then the exit record is on disk, then the runtime has deleted the
//! container, then those who asked hear the status, then a container that is
//! to be removed is removed, then the supervisor leaves.
//!
//! Nothing here touches the system: whatever drives the machine (`teu`'s own
//! sockets here, later an orchestrator's protocol) turns its own requests into
//! events and carries the actions out.

use crate::container::Exit;
use crate::container::exit::SIGNAL_STATUS_BASE;

/// Who asked, so that the answer finds the way back. Chosen by the driver.
pub type Asker = u32;

/// How a process ended, as `waitid(2)` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It left with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// It is gone, and nobody could see how.
    Unknown,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Someone wants the program started.
    StartAsked(Asker),
    /// The runtime started it.
    Started {
        /// When.
        at: String,
    },
    /// The runtime could not start it, and said why.
    StartFailed {
        /// The runtime's words.
        message: String,
    },
    /// Someone wants it to get a signal.
    SignalAsked(Asker, i32),
    /// Someone wants to hear how it ends.
    WaitAsked(Asker),
    /// Someone who asked has left.
    AskerGone(Asker),
    /// It ended.
    Exited {
        /// How.
        wait: Wait,
        /// Whether the OOM killer struck in its cgroup.
        oom: bool,
        /// When this was seen.
        at: String,
        /// Whether output may still be on its way.
        output_open: bool,
    },
    /// All its output was read and logged.
    OutputClosed {
        /// Output that could not be logged, in bytes.
        dropped_bytes: u64,
    },
    /// Output did not end within the time it has after the process.
    DrainExpired,
    /// The exit record is on disk, or cannot be put there.
    Recorded,
    /// The runtime has deleted the container.
    Deleted,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have the runtime start the program; then report Started or StartFailed.
    Start,
    /// Send a signal to the process.
    Signal(i32),
    /// Answer a request.
    Answer(Asker, Answer),
    /// Its standard input has no reader any more.
    CloseInput,
    /// Report DrainExpired after a while, unless OutputClosed came first.
    ArmDrain,
    /// Stop reading output, log what was read; then report OutputClosed.
    CloseOutput,
    /// Put the record on disk; then report Recorded.
    Record(Exit),
    /// Have the runtime delete the container; then report Deleted.
    Delete,
    /// Remove the container with all that is its own.
    Remove,
    /// Nothing more will happen.
    Leave,
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was not done.
    Refused(String),
    /// This is how it ended.
    Ended(Exit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Starting,
    Running,
    Draining,
    Recording,
    Gone,
}

/// One supervised process.
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    /// Whether the container is removed at its end.
    remove: bool,
    /// Who asked for the start and has no answer yet.
    starter: Option<Asker>,
    waiters: Vec<Asker>,
    exit: Exit,
}

impl Machine {
    /// A process that was created and waits to be started.
    #[must_use]
    pub fn new(remove: bool) -> Self {
        Self {
            phase: Phase::Created,
            remove,
            starter: None,
            waiters: Vec::new(),
            exit: Exit::default(),
        }
    }

    /// Whether all is done.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether the process has ended, so that its last output must not wait for slow readers.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Recording | Phase::Gone)
    }

    /// Takes an event, returns what to do about it.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::StartAsked(asker) => self.start_asked(asker),
            Event::Started { at } => self.started(at),
            Event::StartFailed { message } => self.start_failed(message),
            Event::SignalAsked(asker, signal) => self.signal_asked(asker, signal),
            Event::WaitAsked(asker) => self.wait_asked(asker),
            Event::AskerGone(asker) => {
                self.waiters.retain(|waiter| *waiter != asker);
                self.starter.take_if(|starter| *starter == asker);
                Vec::new()
            }
            Event::Exited {
                wait,
                oom,
                at,
                output_open,
            } => self.exited(wait, oom, at, output_open),
            Event::OutputClosed { dropped_bytes } => self.output_closed(dropped_bytes),
            Event::DrainExpired if self.phase == Phase::Draining => vec![Action::CloseOutput],
            Event::DrainExpired => Vec::new(),
            Event::Recorded => vec![Action::Delete],
            Event::Deleted => self.deleted(),
        }
    }

    fn start_asked(&mut self, asker: Asker) -> Vec<Action> {
        if self.phase == Phase::Created {
            self.phase = Phase::Starting;
            self.starter = Some(asker);
            return vec![Action::Start];
        }
        let reason = if self.has_ended() {
            "it has ended"
        } else {
            "it is already started"
        };
        vec![Action::Answer(asker, Answer::Refused(reason.to_owned()))]
    }

    fn started(&mut self, at: String) -> Vec<Action> {
        self.exit.started = Some(at);
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
        self.starter
            .take()
            .map(|asker| Action::Answer(asker, Answer::Done))
            .into_iter()
            .collect()
    }

    /// What was created but cannot run is of no use: it is ended, so that nothing stays behind.
    fn start_failed(&mut self, message: String) -> Vec<Action> {
        self.exit.error = Some(message.clone());
        let answer = self
            .starter
            .take()
            .map(|asker| Action::Answer(asker, Answer::Refused(message)));
        answer
            .into_iter()
            .chain((!self.has_ended()).then_some(Action::Signal(libc::SIGKILL)))
            .collect()
    }

    fn signal_asked(&self, asker: Asker, signal: i32) -> Vec<Action> {
        if self.has_ended() {
            return vec![Action::Answer(
                asker,
                Answer::Refused("it has ended".to_owned()),
            )];
        }
        vec![Action::Signal(signal), Action::Answer(asker, Answer::Done)]
    }

    fn wait_asked(&mut self, asker: Asker) -> Vec<Action> {
        if self.phase == Phase::Gone {
            return vec![Action::Answer(asker, Answer::Ended(self.exit.clone()))];
        }
        self.waiters.push(asker);
        Vec::new()
    }

    fn exited(&mut self, wait: Wait, oom: bool, at: String, output_open: bool) -> Vec<Action> {
        if self.has_ended() {
            return Vec::new();
        }
        self.phase = Phase::Draining;
        (self.exit.status, self.exit.signal) = match wait {
            Wait::Exited(status) => (Some(status), None),
            Wait::Signaled(signal) => (Some(SIGNAL_STATUS_BASE + signal), Some(signal)),
            Wait::Unknown => (None, None),
        };
        self.exit.oom = oom;
        self.exit.finished = at;
        let mut actions = vec![Action::CloseInput];
        if let Some(asker) = self.starter.take() {
            actions.push(Action::Answer(
                asker,
                Answer::Refused("it ended before it was started".to_owned()),
            ));
        }
        actions.push(if output_open {
            Action::ArmDrain
        } else {
            Action::CloseOutput
        });
        actions
    }

    fn output_closed(&mut self, dropped_bytes: u64) -> Vec<Action> {
        if self.phase != Phase::Draining {
            return Vec::new(); // the process closed its output and goes on
        }
        self.phase = Phase::Recording;
        self.exit.log_dropped_bytes = dropped_bytes;
        vec![Action::Record(self.exit.clone())]
    }

    fn deleted(&mut self) -> Vec<Action> {
        self.phase = Phase::Gone;
        let exit = &self.exit;
        let mut actions: Vec<Action> = self
            .waiters
            .drain(..)
            .map(|asker| Action::Answer(asker, Answer::Ended(exit.clone())))
            .collect();
        if self.remove {
            actions.push(Action::Remove);
        }
        actions.push(Action::Leave);
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(wait: Wait) -> Event {
        Event::Exited {
            wait,
            oom: false,
            at: "end".into(),
            output_open: true,
        }
    }

    fn ended(actions: &[Action]) -> &Exit {
        actions
            .iter()
            .find_map(|action| match action {
                Action::Record(exit) => Some(exit),
                _ => None,
            })
            .unwrap()
    }

    fn running() -> Machine {
        let mut machine = Machine::new(false);
        assert_eq!(machine.step(Event::StartAsked(1)), [Action::Start]);
        assert_eq!(
            machine.step(Event::Started { at: "begin".into() }),
            [Action::Answer(1, Answer::Done)]
        );
        machine
    }

    #[test]
    fn the_whole_life_in_order() {
        let mut machine = running();
        assert_eq!(machine.step(Event::WaitAsked(2)), []);
        assert_eq!(
            machine.step(exited(Wait::Exited(7))),
            [Action::CloseInput, Action::ArmDrain]
        );
        let recording = machine.step(Event::OutputClosed { dropped_bytes: 0 });
        let exit = ended(&recording).clone();
        assert_eq!(
            (exit.status, exit.started.as_deref()),
            (Some(7), Some("begin"))
        );
        assert_eq!(machine.step(Event::Recorded), [Action::Delete]);
        assert_eq!(
            machine.step(Event::Deleted),
            [
                Action::Answer(2, Answer::Ended(exit.clone())),
                Action::Leave
            ]
        );
        assert!(machine.is_gone());
        assert_eq!(
            machine.step(Event::WaitAsked(3)),
            [Action::Answer(3, Answer::Ended(exit))]
        );
    }

    #[test]
    fn removal_comes_after_the_answers_and_before_the_end() {
        let mut machine = Machine::new(true);
        machine.step(Event::WaitAsked(1));
        machine.step(exited(Wait::Signaled(9)));
        machine.step(Event::OutputClosed { dropped_bytes: 0 });
        machine.step(Event::Recorded);
        let last = machine.step(Event::Deleted);
        assert!(matches!(
            last[..],
            [
                Action::Answer(1, Answer::Ended(_)),
                Action::Remove,
                Action::Leave
            ]
        ));
    }

    #[test]
    fn statuses_are_those_of_a_shell_and_never_invented() {
        for (wait, status) in [
            (Wait::Exited(0), Some(0)),
            (Wait::Signaled(15), Some(143)),
            (Wait::Signaled(9), Some(137)),
            (Wait::Unknown, None),
        ] {
            let mut machine = running();
            machine.step(exited(wait));
            assert_eq!(
                ended(&machine.step(Event::OutputClosed { dropped_bytes: 3 })).status,
                status
            );
        }
    }

    #[test]
    fn output_that_ends_early_does_not_end_the_process() {
        let mut machine = running();
        assert_eq!(machine.step(Event::OutputClosed { dropped_bytes: 0 }), []);
        let last = machine.step(Event::Exited {
            wait: Wait::Exited(0),
            oom: true,
            at: "end".into(),
            output_open: false,
        });
        assert_eq!(last, [Action::CloseInput, Action::CloseOutput]);
        assert!(ended(&machine.step(Event::OutputClosed { dropped_bytes: 0 })).oom);
    }

    #[test]
    fn output_that_never_ends_is_cut_off() {
        let mut machine = running();
        assert_eq!(machine.step(Event::DrainExpired), []);
        machine.step(exited(Wait::Exited(0)));
        assert_eq!(machine.step(Event::DrainExpired), [Action::CloseOutput]);
    }

    #[test]
    fn a_program_that_cannot_start_is_ended_and_its_reason_kept() {
        let mut machine = Machine::new(false);
        machine.step(Event::StartAsked(4));
        let actions = machine.step(Event::StartFailed {
            message: "no".into(),
        });
        assert_eq!(
            actions,
            [
                Action::Answer(4, Answer::Refused("no".into())),
                Action::Signal(9)
            ]
        );
        machine.step(exited(Wait::Signaled(9)));
        assert_eq!(
            ended(&machine.step(Event::OutputClosed { dropped_bytes: 0 }))
                .error
                .as_deref(),
            Some("no")
        );
    }

    #[test]
    fn ended_before_its_start() {
        let mut machine = Machine::new(false);
        let actions = machine.step(exited(Wait::Signaled(9)));
        assert_eq!(actions, [Action::CloseInput, Action::ArmDrain]);
        assert!(matches!(
            machine.step(Event::StartAsked(1))[..],
            [Action::Answer(1, Answer::Refused(_))]
        ));
        assert!(matches!(
            machine.step(Event::SignalAsked(1, 15))[..],
            [Action::Answer(1, Answer::Refused(_))]
        ));
        assert_eq!(
            ended(&machine.step(Event::OutputClosed { dropped_bytes: 0 })).started,
            None
        );
    }

    #[test]
    fn who_left_is_not_answered() {
        let mut machine = running();
        machine.step(Event::WaitAsked(5));
        machine.step(Event::AskerGone(5));
        machine.step(exited(Wait::Exited(0)));
        machine.step(Event::OutputClosed { dropped_bytes: 0 });
        machine.step(Event::Recorded);
        assert_eq!(machine.step(Event::Deleted), [Action::Leave]);
    }

    #[test]
    fn an_end_is_told_once() {
        let mut machine = running();
        machine.step(exited(Wait::Exited(1)));
        assert_eq!(machine.step(exited(Wait::Unknown)), []);
    }
}
