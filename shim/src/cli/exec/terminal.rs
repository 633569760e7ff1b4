//! A process with a terminal. Its other end is ours: what is typed goes in, what is said
//! comes out, and who types the keys that leave it leaves it running. A terminal whose
//! other end is closed hangs up on its processes; so a child of ours stays, which does
//! nothing but hold it.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, WaitOptions, chdir, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, setsid, waitpid,
};
use rustix::termios::{isatty, tcsetwinsize};

use super::stay::Ended;
use super::{BLOCK_BYTES, LEFT_BYTES_MAX, SIGNALS};
use crate::cli::detach::Keys;
use crate::cli::input::Input;
use crate::cli::own_terminal::{RawTerminal, window_size, write_all};
use crate::container::{ContainerId, Folder};
use crate::error::At as _;
use crate::supervisor::terminal::Console;
use crate::{Error, sys};

/// Whose process it is, and what the caller is to it.
pub(super) struct Order<'a> {
    /// The container.
    pub(super) folder: &'a Folder,
    /// Names this exec's socket.
    pub(super) key: &'a ContainerId,
    /// The runtime.
    pub(super) program: &'a Path,
    /// Where the runtime leaves the process's pid.
    pub(super) pid_file: &'a Path,
    /// What we are given goes to the process.
    pub(super) interactive: bool,
    /// What leaves it.
    pub(super) keys: &'a Keys,
}

/// Has the runtime start the process, and stays with it to its end, or until it is left.
pub(super) fn with(mut command: Command, order: &Order<'_>) -> Result<Ended, Error> {
    let name = format!("exec-{}.sock", order.key.short());
    let console = Console::listen(&order.folder.path, &name)?;
    command.arg("--detach");
    command.arg("--console-socket").arg(console.path());
    command.arg(order.folder.id.as_str());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // The process is the runtime's child, which becomes ours when that leaves.
    set_child_subreaper(Some(getpid())).call("prctl")?;
    let signals = sys::signalfd(&SIGNALS).call("signalfd")?;
    let runtime = command.output().at("execute", order.program)?;
    if !runtime.status.success() {
        return Ok(Ended {
            status: runtime.status,
            words: runtime.stderr,
            refused: true,
        });
    }
    let terminal = console.receive()?;
    let pid = read_pid(order.pid_file)?;
    let mut session = Session {
        terminal,
        pid,
        pidfd: pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")?,
        signals,
        input: Input::new(order.interactive),
        raw: None,
        hung_up: false,
    };
    session.resize();
    if order.interactive && isatty(rustix::stdio::stdin()) {
        session.input.watch(order.keys.clone());
        session.raw = Some(RawTerminal::enter()?);
    }
    let status = session.run()?;
    Ok(Ended {
        status,
        words: Vec::new(),
        refused: false,
    })
}

fn read_pid(path: &Path) -> Result<Pid, Error> {
    let text = std::fs::read_to_string(path).at("read", path)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| Error::Invalid(format!("{path:?} holds no pid: {text:?}")))
}

/// What a turn of the session came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It goes on.
    On,
    /// The process has ended.
    Ended,
    /// The keys were typed.
    Left,
    /// Nobody reads our output any more.
    Unread,
}

struct Session {
    terminal: OwnedFd,
    pid: Pid,
    pidfd: OwnedFd,
    signals: OwnedFd,
    input: Input,
    /// Ours, while it hands on every key.
    raw: Option<RawTerminal>,
    /// Nobody has the terminal open any more.
    hung_up: bool,
}

impl Session {
    /// Stays. Returns how the process ended, or success where it goes on.
    fn run(mut self) -> Result<ExitStatus, Error> {
        let turn = loop {
            match self.turn()? {
                Turn::On => {}
                turn => break turn,
            }
        };
        match turn {
            Turn::Left => {
                self.raw = None;
                self.leave()?;
                Ok(ExitStatus::from_raw(0))
            }
            Turn::Unread => Ok(ExitStatus::from_raw(libc::SIGPIPE)),
            Turn::On | Turn::Ended => {
                self.finish()?;
                let waited = waitpid(Some(self.pid), WaitOptions::empty()).call("waitpid")?;
                Ok(waited.map_or_else(ExitStatus::default, |(_, status)| {
                    ExitStatus::from_raw(status.as_raw())
                }))
            }
        }
    }

    /// Waits once, and deals with everything that is ready.
    fn turn(&mut self) -> Result<Turn, Error> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.input.next().is_empty());
        // An ended descriptor is always ready: it is not asked about again.
        let terminal = if self.hung_up {
            PollFd::new(&self.pidfd, PollFlags::IN)
        } else {
            PollFd::new(&self.terminal, wanted)
        };
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
            terminal,
        ];
        if self.input.is_wanted() {
            fds.push(PollFd::from_borrowed_fd(
                rustix::stdio::stdin(),
                PollFlags::IN,
            ));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(Turn::On),
            result => result.call("poll")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            self.pass_signals()?;
        }
        if ready.get(3).is_some_and(|ready| *ready) {
            self.input.read();
        }
        self.send_input();
        if ready[2] && !self.hung_up && self.pass_output()?.is_none() {
            return Ok(Turn::Unread);
        }
        if ready[1] {
            return Ok(Turn::Ended);
        }
        Ok(if self.input.is_left() {
            Turn::Left
        } else {
            Turn::On
        })
    }

    fn pass_signals(&self) -> Result<(), Error> {
        while let Some(number) = sys::next_signal(&self.signals).call("read signalfd")? {
            match number {
                libc::SIGWINCH => self.resize(),
                libc::SIGCONT => self.come_back(),
                _ => {
                    // That it ended meanwhile is seen otherwise.
                    let send = |signal| pidfd_send_signal(&self.pidfd, signal);
                    let _: Option<rustix::io::Result<()>> = sys::signal(number).map(send);
                }
            }
        }
        Ok(())
    }

    /// We were stopped: what the shell did meanwhile to our terminal is done again.
    fn come_back(&self) {
        let _: Option<rustix::io::Result<()>> = self.raw.as_ref().map(RawTerminal::again);
        self.resize();
    }

    /// Gives the process's terminal the size of ours.
    fn resize(&self) {
        if let Some(size) = window_size() {
            let _: rustix::io::Result<()> = tcsetwinsize(&self.terminal, size);
        }
    }

    fn send_input(&mut self) {
        let block = self.input.next();
        if block.is_empty() {
            return;
        }
        match rustix::io::write(&self.terminal, block) {
            Ok(len) => self.input.sent(len),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.input.end(),
        }
    }

    /// Passes a block on, if there is one, and returns its length. `None`: nobody reads.
    fn pass_output(&mut self) -> Result<Option<usize>, Error> {
        let mut block = [0; BLOCK_BYTES];
        let len = match rustix::io::read(&self.terminal, &mut block[..]) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Some(0)),
            // EIO: the last process has closed it.
            Ok(0) | Err(Errno::IO) => {
                self.hung_up = true;
                return Ok(Some(0));
            }
            result => result.call("read from the terminal")?,
        };
        let read = write_all(rustix::stdio::stdout(), &block[..len])?;
        Ok(read.then_some(len))
    }

    /// Passes on what an ended process left, without waiting for others that may go on.
    fn finish(&mut self) -> Result<(), Error> {
        let mut left = LEFT_BYTES_MAX;
        while left > 0 && !self.hung_up {
            match self.pass_output()? {
                None | Some(0) => break,
                Some(len) => left = left.saturating_sub(len),
            }
        }
        Ok(())
    }

    /// Leaves it running. A child holds the terminal, and throws away what is said in it, until
    /// nobody has it open any more.
    fn leave(self) -> Result<(), Error> {
        if sys::fork().call("fork")?.is_some() {
            return Ok(());
        }
        std::process::exit(i32::from(self.hold().is_err()))
    }

    fn hold(self) -> Result<(), Error> {
        setsid().call("setsid")?;
        // The folder that we were called in is not kept busy.
        chdir("/").call("chdir")?;
        // What came before that was meant for the session of our caller, which may have ended.
        while sys::next_signal(&self.signals)
            .call("read signalfd")?
            .is_some()
        {}
        let null = Path::new("/dev/null");
        let null = std::fs::File::options()
            .write(true)
            .open(null)
            .at("open", null)?;
        rustix::stdio::dup2_stdin(&self.terminal).call("dup2")?;
        rustix::stdio::dup2_stdout(&null).call("dup2")?;
        rustix::stdio::dup2_stderr(&null).call("dup2")?;
        drop((self, null));
        // What the caller left open is not held either.
        sys::close_inherited();
        sys::unblock_signals().call("sigprocmask")?;
        let terminal = rustix::stdio::stdin();
        let mut block = [0; BLOCK_BYTES];
        loop {
            match rustix::io::read(terminal, &mut block[..]) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut ready = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
                    match poll(&mut ready, None) {
                        Err(Errno::INTR) => {}
                        result => drop(result.call("poll")?),
                    }
                }
                Err(Errno::IO) => return Ok(()),
                Err(err) => return Err(err).call("read from the terminal"),
            }
        }
    }
}
