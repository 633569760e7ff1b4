//! The standard streams of a container's processes, between the client's fifos
//! or log files and the pipes that the process has.
//!
//! Readiness comes from the shim's one poller: [`Streams::settle`] tells it what
//! is waited for, [`Streams::ready`] is told what happened. A client that is
//! slow or gone makes the process wait; nothing is lost and nothing is kept here.

mod fifo;
mod flow;
pub mod logger;
mod open;
pub mod plan;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::termios::{Winsize, tcsetwinsize};

use fifo::Unread;
use flow::{End, Flow, Method};
use logger::Logger;
pub use logger::Readiness;
pub use plan::{BadAddress, Output, Plan};

use crate::Error;
use crate::error::At as _;
use crate::runtime::Stdio3;
use crate::supervisor::poller::{Name, Poller};
use crate::supervisor::terminal::Console;

/// How long `Delete` waits for output that its process left behind: whoever
/// still holds the pipe, or does not read the fifo, is not waited for any longer.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether somebody came to read a fifo, at first; each time it is doubled.
const UNREAD_INTERVAL: Duration = Duration::from_millis(100);
/// The same at last.
const UNREAD_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// What of a process's streams became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Standard input, on either side.
    Stdin,
    /// Standard output or the terminal, on either side.
    Stdout,
    /// Standard error, on either side.
    Stderr,
    /// The logger's word that it is ready.
    LoggerReady,
    /// The logger's end.
    LoggerEnd,
}

impl Part {
    /// All of them; a part's place here is its [`Part::code`].
    pub const ALL: [Self; 5] = [
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::LoggerReady,
        Self::LoggerEnd,
    ];

    /// A small number, for names of a poller.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// From what [`Part::code`] gave.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Who shall own the pipes, so that a process that is not root can open
/// `/dev/stdout`: `IoUid` and `IoGid` of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Whose streams these are.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The container's id, or for another process of it the exec id.
    pub id: &'a str,
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The bundle.
    pub bundle: &'a Path,
    /// Of the pipes.
    pub owner: Owner,
}

/// The standard streams of one process.
#[derive(Debug)]
pub struct Streams {
    child: Child,
    stdin: Option<Flow>,
    outputs: [Option<Flow>; 2],
    logger: Option<Logger>,
    terminal: Option<OwnedFd>,
    /// Whether the process exists, so that there is something to move.
    started: bool,
    unread: Vec<Unread>,
    look: Look,
    finish_by: Option<Instant>,
    expired: bool,
}

/// What the process is to get.
#[derive(Debug)]
enum Child {
    /// Pipes; until the runtime has them.
    Pipes(Option<Stdio3>),
    /// A terminal, which the runtime will hand over.
    Terminal {
        console: Console,
        path: PathBuf,
        /// Where the input comes from.
        input: Option<OwnedFd>,
        /// Where to show the terminal's output.
        output: Option<open::Sink>,
    },
}

/// When it is next looked for readers of [`Unread`] fifos.
#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    interval: Duration,
}

impl Streams {
    /// Opens what `plan` names, and makes the pipes or the socket by which the
    /// runtime hands over a terminal. A logger is started.
    ///
    /// # Errors
    /// Which file could not be opened, or which program not executed, and why.
    pub fn open(plan: &Plan, context: &Context<'_>) -> Result<Self, Error> {
        if plan.terminal {
            open::terminal(plan, context)
        } else {
            open::pipes(plan, context)
        }
    }

    fn new(child: Child, logger: Option<Logger>) -> Self {
        Self {
            child,
            stdin: None,
            outputs: [None, None],
            logger,
            terminal: None,
            started: false,
            unread: Vec::new(),
            look: Look {
                at: None,
                interval: UNREAD_INTERVAL,
            },
            finish_by: None,
            expired: false,
        }
    }

    /// Whether the runtime may be executed: a logger must be ready before.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.logger
            .as_ref()
            .map_or(Readiness::Ready, Logger::readiness)
    }

    /// Where the runtime is to send the terminal.
    #[must_use]
    pub fn console_socket(&self) -> Option<&Path> {
        match &self.child {
            Child::Pipes(_) => None,
            Child::Terminal { path, .. } => Some(path),
        }
    }

    /// The process's ends, once; for the runtime. They must be closed here when
    /// the runtime has them, or the output never ends: a `Command` keeps them
    /// until it is dropped. With a terminal, there are none.
    #[must_use]
    pub fn child_ends(&mut self) -> Stdio3 {
        let ends = match &mut self.child {
            Child::Pipes(ends) => ends.take(),
            Child::Terminal { .. } => None,
        };
        ends.unwrap_or_else(|| Stdio3 {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        })
    }

    /// The runtime has made the process: from now on its streams are moved.
    ///
    /// # Errors
    /// That the runtime has sent no terminal.
    pub fn started(&mut self) -> Result<(), Error> {
        let child = std::mem::replace(&mut self.child, Child::Pipes(None));
        if let Child::Terminal {
            console,
            input,
            output,
            ..
        } = child
        {
            let terminal = console.receive()?;
            let copy = || rustix::io::fcntl_dupfd_cloexec(&terminal, 3).call("dup");
            if let Some(input) = input {
                self.stdin = Some(Flow::new(input, copy()?, Method::Copy));
            }
            // Also what nobody wants is read: a full terminal would stop its program.
            let output = output.map_or_else(open::Sink::null, Ok)?;
            self.outputs[0] = Some(output.into_flow(copy()?, Method::Copy));
            self.terminal = Some(terminal);
        }
        self.started = true;
        Ok(())
    }

    /// Gives the terminal another size, in characters. Without a terminal nothing happens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let cut = |length| u16::try_from(length).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cut(height),
            ws_col: cut(width),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(terminal, size).call("resize the terminal")
    }

    /// The client will write no more: the process's input ends when everybody
    /// who has the fifo open for writing has closed it.
    ///
    /// # Errors
    /// What the kernel says; then it is still open.
    pub fn close_stdin(&mut self) -> Result<(), Error> {
        if let Some(flow) = &mut self.stdin {
            let reader = fifo::reader_of(flow.source()).call("open the input again")?;
            flow.replace_source(reader);
        }
        Ok(())
    }

    /// Something became ready.
    pub fn ready(&mut self, part: Part) {
        let flow = match part {
            Part::Stdin => &mut self.stdin,
            Part::Stdout => &mut self.outputs[0],
            Part::Stderr => &mut self.outputs[1],
            Part::LoggerReady => return self.logger.iter_mut().for_each(Logger::spoke),
            Part::LoggerEnd => return self.logger.iter_mut().for_each(Logger::check_end),
        };
        if let Some(flow) = flow {
            flow.advance(Instant::now());
        }
    }

    /// Tells the poller what is waited for, and closes what is over. To be
    /// called before each wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle<N: Name>(
        &mut self,
        poller: &Poller<N>,
        name: impl Fn(Part) -> N,
    ) -> io::Result<()> {
        if let Some(logger) = &mut self.logger {
            logger.settle(poller, &name)?;
        }
        let [stdout, stderr] = &mut self.outputs;
        for (part, slot) in [
            (Part::Stdin, &mut self.stdin),
            (Part::Stdout, stdout),
            (Part::Stderr, stderr),
        ] {
            let Some(flow) = slot.as_mut().filter(|_| self.started) else {
                continue;
            };
            // A logger that is gone must not hang up the terminal.
            if part == Part::Stdout && flow.end() == Some(End::Sink) {
                flow.divert(open::null()?);
            }
            flow.settle(poller, name(part))?;
            if flow.end().is_none() {
                continue;
            }
            let sink = slot.take().map(Flow::into_sink);
            if part != Part::Stdin && self.finish_by.is_none() {
                self.unread.extend(sink.and_then(Unread::close));
            }
        }
        if !self.unread.is_empty() && self.look.at.is_none() {
            self.look.at = Some(Instant::now() + self.look.interval);
        }
        Ok(())
    }

    /// When [`Streams::expire`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let flows = self.outputs.iter().chain([&self.stdin]).flatten();
        let flows = flows.filter(|_| self.started).filter_map(Flow::deadline);
        let finish = self.finish_by.filter(|_| !self.expired);
        let logger = self.logger.iter().filter_map(Logger::deadline);
        let others = finish.into_iter().chain(self.look.at).chain(logger);
        flows.chain(others).min()
    }

    /// Does what was to be done at this time.
    pub fn expire(&mut self, now: Instant) {
        for flow in self.outputs.iter_mut().chain([&mut self.stdin]).flatten() {
            if self.started && flow.deadline().is_some_and(|at| at <= now) {
                flow.advance(now);
            }
        }
        if self.look.at.is_some_and(|at| at <= now) {
            self.unread.retain(|fifo| !fifo.has_reader());
            self.look.interval = (self.look.interval * 2).min(UNREAD_INTERVAL_MAX);
            let next = now + self.look.interval;
            self.look.at = (!self.unread.is_empty()).then_some(next);
        }
        if self.finish_by.is_some_and(|at| at <= now) {
            self.expired = true;
        }
        if let Some(logger) = &mut self.logger {
            logger.expire(now);
        }
    }

    /// Whether all output that there will ever be has been moved.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let mut flows = self.outputs.iter().flatten();
        flows.all(|flow| flow.end() == Some(End::Source))
    }

    /// The client forgets the process: what is not delivered within
    /// [`DRAIN_LIMIT`] is given up, and a logger is asked and then made to end.
    pub fn finish(&mut self, now: Instant) {
        self.unread.clear();
        self.look.at = None;
        self.finish_by = self.finish_by.or(Some(now + DRAIN_LIMIT));
        if let Some(logger) = &mut self.logger {
            logger.finish(now);
        }
    }

    /// Whether, after [`Streams::finish`], nothing is waited for any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let logger_ended = self.logger.as_ref().is_none_or(Logger::has_ended);
        self.finish_by.is_some() && (self.expired || self.is_drained()) && logger_ended
    }

    /// Nothing is watched any more; to be called before it is dropped.
    pub fn unwatch<N: Name>(&mut self, poller: &Poller<N>) {
        for flow in self.outputs.iter_mut().chain([&mut self.stdin]).flatten() {
            flow.unwatch(poller);
        }
        if let Some(logger) = &mut self.logger {
            logger.unwatch(poller);
        }
    }
}
