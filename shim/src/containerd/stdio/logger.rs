//! A program that takes a process's output: `binary://` and `binary-v2://`.
//!
//! It reads the process's own pipes, so the shim is not in the way; what it does
//! with the output is its business. It ends when the output has ended. When it
//! ends before, the process that writes is told so by the kernel (EPIPE), as it
//! is behind containerd's own shim.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::fifo::is_readable;
use super::plan::Program;
use super::{Context, Part};
use crate::Error;
use crate::error::At as _;
use crate::supervisor::poller::{Name, Poller};
use crate::sys;

/// How long a logger may take to say that it is ready.
pub const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long it may go on after the last output before it is asked to end.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// The same before it is ended. containerd's shim gives it as much.
const KILL_AFTER: Duration = Duration::from_secs(12);

/// Whether a process may be given its streams.
#[derive(Debug)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet.
    Waiting,
    /// Never.
    Failed(Error),
}

/// A running logger.
#[derive(Debug)]
pub(super) struct Logger {
    name: String,
    pidfd: OwnedFd,
    /// Until it is ready: what it says so by.
    ready: Option<OwnedFd>,
    must_speak: bool,
    failed: Option<&'static str>,
    ready_by: Instant,
    finish: Option<Finish>,
    ended: bool,
    watched: [bool; 2],
}

/// When what is done to one that goes on.
#[derive(Debug)]
struct Finish {
    ask_at: Option<Instant>,
    kill_at: Option<Instant>,
}

/// The writing ends for the process: standard output and standard error.
pub(super) type Ends = [OwnedFd; 2];

impl Logger {
    /// Starts `program`: standard output at its descriptor 3, standard error at
    /// 4, and at 5 what it writes to or closes when it is ready.
    ///
    /// # Errors
    /// That it cannot be executed, and why.
    pub(super) fn start(program: &Program, context: &Context<'_>) -> Result<(Self, Ends), Error> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).call("pipe2");
        let ((out, out_end), (err, err_end), (ready, speak)) = (pipe()?, pipe()?, pipe()?);
        crate::supervisor::terminal::set_nonblocking(&ready)?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .env("CONTAINER_ID", context.id)
            .env("CONTAINER_NAMESPACE", context.namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = sys::spawn_with(command, [out, err, speak]).at("execute", &program.path)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::Invalid("a child without a pid".into()))?;
        let logger = Self {
            name: program.path.display().to_string(),
            pidfd: pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")?,
            ready: Some(ready),
            must_speak: program.must_speak,
            failed: None,
            ready_by: Instant::now() + READY_LIMIT,
            finish: None,
            ended: false,
            watched: [false; 2],
        };
        Ok((logger, [out_end, err_end]))
    }

    pub(super) fn readiness(&self) -> Readiness {
        match (self.failed, &self.ready) {
            (Some(why), _) => {
                Readiness::Failed(Error::Invalid(format!("logger {:?} {why}", self.name)))
            }
            (None, Some(_)) => Readiness::Waiting,
            (None, None) => Readiness::Ready,
        }
    }

    /// It said something, or closed what it says it by.
    pub(super) fn spoke(&mut self) {
        let Some(ready) = &self.ready else { return };
        match rustix::io::read(ready, &mut [0; 1]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(1..) => self.ready = None,
            Ok(0) if !self.must_speak => self.ready = None,
            Ok(_) | Err(_) => self.fail("ended before it was ready"),
        }
    }

    fn fail(&mut self, why: &'static str) {
        self.failed = Some(why);
        self.ready = None;
        self.signal(Signal::KILL);
    }

    /// Its end was seen.
    pub(super) fn check_end(&mut self) {
        self.ended = self.ended || is_readable(&self.pidfd);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// There will be no more output.
    pub(super) fn finish(&mut self, now: Instant) {
        self.check_end();
        if self.finish.is_none() {
            self.finish = Some(Finish {
                ask_at: Some(now + ASK_AFTER),
                kill_at: Some(now + KILL_AFTER),
            });
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let ready = self.ready.is_some().then_some(self.ready_by);
        let finish = self.finish.as_ref().filter(|_| !self.ended);
        let finish = finish.and_then(|finish| finish.ask_at.or(finish.kill_at));
        ready.into_iter().chain(finish).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.ready.is_some() && self.ready_by <= now {
            self.fail("was not ready in time");
        }
        let Some(finish) = &mut self.finish else {
            return;
        };
        if passed(finish.ask_at) {
            finish.ask_at = None;
            self.signal(Signal::TERM);
        } else if passed(finish.kill_at) {
            finish.kill_at = None;
            self.signal(Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        // That it has ended is no error.
        let _: rustix::io::Result<()> = pidfd_send_signal(&self.pidfd, signal);
    }

    pub(super) fn settle<N: Name>(
        &mut self,
        poller: &Poller<N>,
        name: impl Fn(Part) -> N,
    ) -> io::Result<()> {
        let [watches_ready, watches_end] = &mut self.watched;
        if let Some(ready) = &self.ready {
            if !*watches_ready {
                poller.add(ready, name(Part::LoggerReady), EventFlags::IN)?;
            }
            *watches_ready = true;
        }
        let wanted = self.finish.is_some() && !self.ended;
        if wanted && !*watches_end {
            poller.add(&self.pidfd, name(Part::LoggerEnd), EventFlags::IN)?;
        } else if !wanted && *watches_end {
            poller.remove(&self.pidfd);
        }
        *watches_end = wanted;
        Ok(())
    }

    /// Nothing is watched any more.
    pub(super) fn unwatch<N: Name>(&mut self, poller: &Poller<N>) {
        if self.watched[1] {
            poller.remove(&self.pidfd);
        }
        if let Some(ready) = self.ready.as_ref().filter(|_| self.watched[0]) {
            poller.remove(ready);
        }
        self.watched = [false; 2];
    }
}

impl Drop for Logger {
    /// The process did not come to be, or its logger was not waited for: it must not stay behind.
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::TERM);
        }
    }
}
