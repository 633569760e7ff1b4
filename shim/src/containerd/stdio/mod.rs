//! The standard streams of a container's processes, between the client's fifos
//! or log files and the pipes that the process has.
//!
//! Readiness comes from the shim's one poller: [`Streams::settle`] tells it what
//! is waited for, [`Streams::ready`] is told what happened. A client that is
//! slow or gone makes the process wait; nothing is lost and nothing is kept here.

mod fifo;
mod flow;
pub mod plan;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};

use fifo::Unread;
use flow::{Flow, Method};
pub use plan::{BadAddress, Output, Plan};

use crate::Error;
use crate::error::At as _;
use crate::runtime::Stdio3;
use crate::supervisor::poller::{Name, Poller};

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
}

impl Part {
    /// All of them; a part's place here is its [`Part::code`].
    pub const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

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
    /// What the runtime is to give to the process, until it was started.
    child: Option<Stdio3>,
    stdin: Option<Flow>,
    outputs: [Option<Flow>; 2],
    /// Whether the process exists, so that there is something to move.
    started: bool,
    unread: Vec<Unread>,
    look: Look,
    finish_by: Option<Instant>,
    finished: bool,
}

/// When it is next looked for readers of [`Unread`] fifos.
#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    interval: Duration,
}

impl Streams {
    /// Opens what `plan` names, and makes the pipes.
    ///
    /// # Errors
    /// Which file could not be opened, and why.
    pub fn open(plan: &Plan, context: &Context<'_>) -> Result<Self, Error> {
        let (stdin, child_in) = match &plan.stdin {
            None => (None, Stdio::null()),
            Some(path) => {
                let source = fifo::open(path).at("open", path)?;
                let (read, write) = pipe(context.owner, End::Write)?;
                (
                    Some(Flow::new(source, write, Method::Splice)),
                    Stdio::from(read),
                )
            }
        };
        let (stdout, child_out) = open_output(&plan.stdout, context)?;
        let (stderr, child_err) = open_output(&plan.stderr, context)?;
        Ok(Self {
            child: Some(Stdio3 {
                stdin: child_in,
                stdout: child_out,
                stderr: child_err,
            }),
            stdin,
            outputs: [stdout, stderr],
            started: false,
            unread: Vec::new(),
            look: Look {
                at: None,
                interval: UNREAD_INTERVAL,
            },
            finish_by: None,
            finished: false,
        })
    }

    /// The process's ends, once; for the runtime. They must be closed here when
    /// the runtime has them, or the output never ends: a `Command` keeps them
    /// until it is dropped.
    #[must_use]
    pub fn child_ends(&mut self) -> Stdio3 {
        self.child.take().unwrap_or_else(|| Stdio3 {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        })
    }

    /// The process exists: from now on its streams are moved.
    ///
    /// # Errors
    /// None yet without a terminal.
    pub fn started(&mut self) -> Result<(), Error> {
        self.child = None;
        self.started = true;
        Ok(())
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
        };
        if let Some(flow) = flow
            && self.started
        {
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
        if !self.started {
            return Ok(());
        }
        let [stdout, stderr] = &mut self.outputs;
        for (part, slot) in [
            (Part::Stdin, &mut self.stdin),
            (Part::Stdout, stdout),
            (Part::Stderr, stderr),
        ] {
            let Some(flow) = slot else { continue };
            flow.settle(poller, name(part))?;
            if !flow.has_ended() {
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
        let finish = self.finish_by.filter(|_| !self.finished);
        flows.chain(finish).chain(self.look.at).min()
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
            self.finished = true;
        }
    }

    /// Whether all output that there will ever be is in the hands of its readers' files.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.outputs.iter().flatten().all(Flow::has_ended)
    }

    /// The client forgets the process: what is not delivered within [`DRAIN_LIMIT`] is given up.
    pub fn finish(&mut self, now: Instant) {
        self.unread.clear();
        self.look.at = None;
        self.finish_by = self.finish_by.or(Some(now + DRAIN_LIMIT));
    }

    /// Whether, after [`Streams::finish`], nothing is waited for any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finish_by.is_some() && (self.finished || self.is_drained())
    }

    /// Nothing is watched any more; to be called before it is dropped.
    pub fn unwatch<N: Name>(&mut self, poller: &Poller<N>) {
        for flow in self.outputs.iter_mut().chain([&mut self.stdin]).flatten() {
            flow.unwatch(poller);
        }
    }
}

/// Which end of a pipe is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Read,
    Write,
}

/// A pipe: the reading end and the writing end. Ours is non-blocking, the process's is not.
fn pipe(owner: Owner, ours: End) -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
    let own = if ours == End::Read { &read } else { &write };
    let flags = rustix::fs::fcntl_getfl(own).call("fcntl")?;
    rustix::fs::fcntl_setfl(own, flags | OFlags::NONBLOCK).call("fcntl")?;
    if owner != Owner::default() {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&read, Some(uid), Some(gid)).call("change the owner of a pipe")?;
    }
    Ok((read, write))
}

fn open_output(output: &Output, context: &Context<'_>) -> Result<(Option<Flow>, Stdio), Error> {
    let (sink, method) = match output {
        Output::Null => return Ok((None, Stdio::null())),
        Output::Path(path) if fifo::is_fifo_at(path).at("open", path)? => {
            (fifo::open(path).at("open", path)?, Method::Splice)
        }
        Output::Path(path) => {
            let file = File::options().append(true).open(path);
            (file.at("open", path)?.into(), Method::Copy)
        }
        Output::File(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).at("make", folder)?;
            }
            let file = File::options().append(true).create(true).open(path);
            (file.at("open", path)?.into(), Method::Copy)
        }
    };
    let (read, write) = pipe(context.owner, End::Read)?;
    Ok((Some(Flow::new(read, sink, method)), write.into()))
}
