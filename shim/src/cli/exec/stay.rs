//! Staying with a runtime that executes a process: signals go in, standard error comes
//! out. The runtime's own words come the same way, as long as there is no process; they
//! are kept back, for who says what went wrong.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::{BLOCK_BYTES, LEFT_BYTES_MAX, SIGNALS};
use crate::error::At as _;
use crate::{Error, sys};

/// How often it is looked for the process, while there are words that may be its own.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// Most words that are kept back, in bytes; a runtime's are a line or two.
const WORDS_BYTES_MAX: usize = 64 * 1024;
/// How it ended.
pub(super) struct Ended {
    /// The runtime's status: the process's, where there was one.
    pub(super) status: ExitStatus,
    /// What was said on standard error before there was a process.
    pub(super) words: Vec<u8>,
    /// It is the runtime's status: there was no process.
    pub(super) refused: bool,
}

/// Runs the runtime to its end, which writes `pid_file` once there is a process.
pub(super) fn with(mut command: Command, program: &Path, pid_file: &Path) -> Result<Ended, Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
    rustix::io::ioctl_fionbio(&read, true).call("ioctl")?;
    command.stderr(write);
    let signals = sys::signalfd(&SIGNALS).call("signalfd")?;
    let mut child = command.spawn().at("execute", program)?;
    drop(command); // and with it our copy of the writing end
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Invalid("the child has no pid".into()))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")?;
    let mut stderr = Stderr {
        pipe: Some(read),
        words: Vec::new(),
        pid_file,
        is_there: false,
    };
    while !turn(&pidfd, &signals, &mut stderr)? {}
    let status = child.wait().call("wait")?;
    stderr.finish()?;
    Ok(Ended {
        status,
        words: stderr.words,
        refused: false,
    })
}

/// Waits once, and deals with what happened. Whether the runtime has ended.
fn turn(pidfd: &OwnedFd, signals: &OwnedFd, stderr: &mut Stderr<'_>) -> Result<bool, Error> {
    let mut fds = vec![
        PollFd::new(pidfd, PollFlags::IN),
        PollFd::new(signals, PollFlags::IN),
    ];
    if let Some(pipe) = &stderr.pipe {
        fds.push(PollFd::new(pipe, PollFlags::IN));
    }
    match poll(&mut fds, stderr.patience()) {
        Err(rustix::io::Errno::INTR) => return Ok(false),
        result => result.call("poll")?,
    };
    let ended = !fds[0].revents().is_empty();
    let has_words = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
    drop(fds);
    while let Some(signal) = sys::next_sent_signal(signals).call("read signalfd")? {
        // What a terminal sends, the runtime gets itself.
        if let Some(signal) = sys::signal(signal.number).filter(|_| !signal.by_kernel) {
            let _: rustix::io::Result<()> = pidfd_send_signal(pidfd, signal);
        }
    }
    if has_words {
        stderr.read()?;
    }
    stderr.look()?;
    Ok(ended)
}

/// The runtime's standard error, and the process's.
struct Stderr<'a> {
    pipe: Option<OwnedFd>,
    words: Vec<u8>,
    pid_file: &'a Path,
    /// The process is there: what is said is its own.
    is_there: bool,
}

impl Stderr<'_> {
    fn patience(&self) -> Option<&'static Timespec> {
        (!self.words.is_empty()).then_some(&LOOK)
    }

    /// Reads a block, if there is one. Returns its length.
    fn read(&mut self) -> Result<usize, Error> {
        let mut block = [0; BLOCK_BYTES];
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let len = match rustix::io::read(pipe, &mut block[..]) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(0),
            result => result.call("read")?,
        };
        if len == 0 {
            self.pipe = None;
        } else if self.is_there {
            show(&block[..len])?;
        } else {
            self.words.extend_from_slice(&block[..len]);
        }
        Ok(len)
    }

    /// Lets out what was kept back, if there is a process.
    fn look(&mut self) -> Result<(), Error> {
        if self.words.is_empty() || self.is_there {
            return Ok(());
        }
        self.is_there = self.pid_file.exists() || self.words.len() > WORDS_BYTES_MAX;
        if self.is_there {
            show(&std::mem::take(&mut self.words))?;
        }
        Ok(())
    }

    /// Takes what an ended process left, without waiting for others that may go on.
    fn finish(&mut self) -> Result<(), Error> {
        let mut left = LEFT_BYTES_MAX;
        while left > 0 {
            match self.read()? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        self.look()
    }
}

/// Writes to standard error. That nobody reads it is no error.
pub(super) fn show(bytes: &[u8]) -> Result<(), Error> {
    crate::cli::own_terminal::write_all(rustix::stdio::stderr(), bytes).map(|_| ())
}
