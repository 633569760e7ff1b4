//! The lives of a container's processes, as a value: what may be asked of them
//! when, what is published and in which order. Knows no system call.
//!
//! ```text
//! first process   Creating ─► Created ─► Starting ─► Running ◄─► Paused
//!                     │          └───────────┴───────────┴─────────┴──► Stopped
//! exec                └ gone  Created ─► Starting ─► Running ─► Stopped
//!                                            └─► Failed
//! ```
//!
//! What containerd and dockerd rely on, and this keeps:
//! - a start is published before the exit, however early the process ended;
//! - the exits of all execs are published before that of the first process;
//! - once the first process has ended, no exec starts.

use std::collections::BTreeMap;

use super::super::proto::Timestamp;
use super::super::proto::task::Status;
use super::super::proto::ttrpc::{self, Code};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status; 128 and the signal's number for one that was killed.
    pub status: u32,
    /// When it was reaped.
    pub at: Timestamp,
}

/// Which process of the container: an exec by its id, `None` the first one.
pub type Which = Option<String>;

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The runtime makes it.
    Creating,
    /// It waits to be started.
    Created,
    /// The runtime starts it.
    Starting,
    /// It runs.
    Running,
    /// The runtime freezes it.
    Pausing,
    /// It is frozen.
    Paused,
    /// It ended.
    Stopped(Exit),
    /// It could not be started. Only execs: a container may be started again.
    Failed,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Self::Creating | Self::Created | Self::Starting | Self::Failed => "created",
            Self::Running => "running",
            Self::Pausing | Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }

    /// As containerd numbers it.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Creating | Self::Created | Self::Starting | Self::Failed => Status::Created,
            Self::Running => Status::Running,
            Self::Pausing => Status::Pausing,
            Self::Paused => Status::Paused,
            Self::Stopped(_) => Status::Stopped,
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            _ => None,
        }
    }
}

/// What may be asked of a process in some phases only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Run.
    Start,
    /// Be gone.
    Delete,
    /// Freeze.
    Pause,
    /// Go on.
    Resume,
    /// Have other limits.
    Update,
    /// Be written down.
    Checkpoint,
    /// Have one more process in the container.
    Exec,
    /// Have another window size.
    Resize,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The runtime has made the container, or there is nothing to make before it is restored.
    Created,
    /// The runtime was told to start it.
    Starting,
    /// It has.
    Started,
    /// It could not.
    NotStarted,
    /// The runtime was told to freeze the container.
    Pausing,
    /// Whether it is frozen now: pausing ended, or resuming did.
    Paused(bool),
    /// The process ended.
    Ended(Exit),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Publish that the process runs.
    PublishStart(Which),
    /// Write down how the first process ended. Comes at once, also when its
    /// exit is held back: who looks after a death of ours must find it.
    Record(Exit),
    /// Publish how it ended.
    PublishExit(Which, Exit),
    /// Answer those who wait for it.
    AnswerWaiters(Which),
    /// Other processes of the container do not end with the first one: kill them.
    KillOthers,
    /// It ended while frozen: what is left of it must be able to go.
    Thaw,
}

/// A process, and an exit that may not be told yet.
#[derive(Debug, Clone, Copy)]
struct Process {
    phase: Phase,
    early: Option<Exit>,
}

impl Process {
    fn new(phase: Phase) -> Self {
        Self { phase, early: None }
    }
}

/// The lives of all processes of one container.
#[derive(Debug)]
pub struct Life {
    init: Process,
    execs: BTreeMap<String, Process>,
    /// The first process has ended, but not all execs have.
    held: Option<Exit>,
    shares_pids: bool,
}

impl Life {
    /// A container that the runtime begins to make. `shares_pids`: it has no
    /// pid namespace of its own, so that nothing ends with its first process.
    #[must_use]
    pub fn new(shares_pids: bool) -> Self {
        Self {
            init: Process::new(Phase::Creating),
            execs: BTreeMap::new(),
            held: None,
            shares_pids,
        }
    }

    /// What a process is doing; `None` for an exec that is not there.
    #[must_use]
    pub fn phase(&self, which: &Which) -> Option<Phase> {
        self.process(which).map(|process| process.phase)
    }

    /// Whether the first process has ended, told or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.held.is_some() || self.init.early.is_some() || self.init.phase.exit().is_some()
    }

    /// A further process, described and not started. `false`: its id is taken.
    pub fn add(&mut self, exec: &str) -> bool {
        if self.execs.contains_key(exec) {
            return false;
        }
        self.execs
            .insert(exec.to_owned(), Process::new(Phase::Created));
        true
    }

    /// An exec is deleted.
    pub fn remove(&mut self, exec: &str) {
        self.execs.remove(exec);
    }

    /// Whether `wish` fits what the process is doing.
    ///
    /// # Errors
    /// Why not, in the words of runc's shim, by which clients know it.
    pub fn permit(&self, which: &Which, wish: Wish) -> Result<(), ttrpc::Status> {
        let Some(process) = self.process(which) else {
            let exec = which.as_deref().unwrap_or_default();
            return Err(ttrpc::Status::new(
                Code::NotFound,
                format!("process does not exist {exec}: not found"),
            ));
        };
        if which.is_some() && wish == Wish::Start && self.has_ended() {
            return Err(ttrpc::Status::new(
                Code::FailedPrecondition,
                "the container's init process is not running",
            ));
        }
        refusal(wish, process.phase, which.is_some())
            .map_or(Ok(()), |text| Err(ttrpc::Status::new(Code::Unknown, text)))
    }

    /// Takes what happened to `which`; yields what is to be done.
    pub fn step(&mut self, which: &Which, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Created => self.set(which, Phase::Created),
            Event::Starting => self.set(which, Phase::Starting),
            Event::Started => {
                self.set(which, Phase::Running);
                actions.push(Action::PublishStart(which.clone()));
            }
            Event::NotStarted => {
                let phase = if which.is_some() {
                    Phase::Failed
                } else {
                    Phase::Created
                };
                self.set(which, phase);
                if which.is_some() {
                    actions.push(Action::AnswerWaiters(which.clone()));
                }
            }
            Event::Pausing => self.set(which, Phase::Pausing),
            Event::Paused(frozen) => self.set(
                which,
                if frozen {
                    Phase::Paused
                } else {
                    Phase::Running
                },
            ),
            Event::Ended(exit) => {
                if let Some(process) = self.process_mut(which) {
                    process.early = Some(exit);
                }
                if which.is_none() {
                    actions.push(Action::Record(exit));
                }
            }
        }
        self.tell(which, &mut actions);
        if which.is_some() && self.held.is_some() && !self.is_any_exec_alive() {
            self.release(&mut actions);
        }
        actions
    }

    /// Tells an exit that came, unless the runtime is still busy with the process:
    /// then its start is not published yet.
    fn tell(&mut self, which: &Which, actions: &mut Vec<Action>) {
        let Some(process) = self.process_mut(which) else {
            return;
        };
        if matches!(
            process.phase,
            Phase::Creating | Phase::Starting | Phase::Pausing
        ) {
            return;
        }
        let Some(exit) = process.early.take() else {
            return;
        };
        if which.is_some() {
            process.phase = Phase::Stopped(exit);
            actions.push(Action::PublishExit(which.clone(), exit));
            actions.push(Action::AnswerWaiters(which.clone()));
            return;
        }
        let was_paused = process.phase == Phase::Paused;
        if was_paused {
            actions.push(Action::Thaw);
        }
        if self.shares_pids {
            actions.push(Action::KillOthers);
        }
        self.held = Some(exit);
        if !self.is_any_exec_alive() {
            self.release(actions);
        }
    }

    /// Tells the first process's exit, once no exec is left.
    fn release(&mut self, actions: &mut Vec<Action>) {
        if let Some(exit) = self.held.take() {
            self.init.phase = Phase::Stopped(exit);
            actions.push(Action::PublishExit(None, exit));
            actions.push(Action::AnswerWaiters(None));
        }
    }

    fn is_any_exec_alive(&self) -> bool {
        self.execs
            .values()
            .any(|exec| matches!(exec.phase, Phase::Starting | Phase::Running))
    }

    fn process(&self, which: &Which) -> Option<&Process> {
        match which {
            None => Some(&self.init),
            Some(exec) => self.execs.get(exec),
        }
    }

    fn process_mut(&mut self, which: &Which) -> Option<&mut Process> {
        match which {
            None => Some(&mut self.init),
            Some(exec) => self.execs.get_mut(exec),
        }
    }

    fn set(&mut self, which: &Which, phase: Phase) {
        if let Some(process) = self.process_mut(which)
            && process.phase.exit().is_none()
        {
            process.phase = phase;
        }
    }
}

/// Why `wish` does not fit `phase`.
fn refusal(wish: Wish, phase: Phase, is_exec: bool) -> Option<String> {
    let word = phase.word();
    match wish {
        Wish::Start | Wish::Delete => {
            let verb = if wish == Wish::Start {
                "start"
            } else {
                "delete"
            };
            let fits = match phase {
                Phase::Created => true,
                Phase::Stopped(_) | Phase::Failed => wish == Wish::Delete,
                _ => false,
            };
            (!fits).then(|| format!("cannot {verb} a {word} process"))
        }
        Wish::Pause | Wish::Resume => {
            let verb = if wish == Wish::Pause {
                "pause"
            } else {
                "resume"
            };
            match (phase, wish) {
                (Phase::Running, Wish::Pause) | (Phase::Paused, Wish::Resume) => None,
                (Phase::Running, _) => Some(format!("cannot {verb} a running process")),
                (Phase::Paused | Phase::Pausing | Phase::Stopped(_), _) => {
                    Some(format!("cannot {verb} a {word} container"))
                }
                _ => Some(format!("cannot {verb} task in {word} state")),
            }
        }
        Wish::Update => phase
            .exit()
            .map(|_| "cannot update a stopped container".to_owned()),
        Wish::Checkpoint => match phase {
            Phase::Running | Phase::Paused => None,
            Phase::Stopped(_) => Some("cannot checkpoint a stopped container".to_owned()),
            _ => Some(format!("cannot checkpoint a task in {word} state")),
        },
        Wish::Exec => match phase {
            Phase::Created | Phase::Running => None,
            _ => Some(format!("cannot exec in a {word} state")),
        },
        Wish::Resize => phase
            .exit()
            .filter(|_| is_exec)
            .map(|_| "cannot resize a stopped container".to_owned()),
    }
}

#[cfg(test)]
mod tests;
