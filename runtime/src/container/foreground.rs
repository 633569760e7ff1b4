//! Staying with a process in the foreground: its signals, its terminal, and
//! at last its status.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::container::service::notify::Proxy;
use crate::error::Error;
use crate::spec::ConsoleSize;
use crate::sys;

/// Bytes copied at once between terminals; a terminal gives at most 4096.
const CHUNK_BYTES: usize = 4096;

/// Signals that are this process's own business.
const OWN_SIGNALS: [i32; 5] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGTSTP,
];

/// The caller's terminal in raw mode; it is what it was when this is dropped.
#[derive(Debug)]
struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// The caller's terminal: standard input, or else the controlling one.
    fn open() -> Result<RawTerminal, Error> {
        let stdin = rustix::stdio::stdin();
        let terminal = if isatty(stdin) {
            rustix::io::fcntl_dupfd_cloexec(stdin, 3)
                .map_err(Error::at("duplicate", "standard input"))?
        } else {
            rustix::fs::open(
                "/dev/tty",
                OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY,
                Mode::empty(),
            )
            .map_err(Error::on("open", "/dev/tty"))?
        };
        let before = tcgetattr(&terminal).map_err(Error::at("read the modes of", "terminal"))?;
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal does not add carriage returns (ONLCR): this one must go on doing so.
        raw.output_modes |= before.output_modes & OutputModes::OPOST;
        tcsetattr(&terminal, OptionalActions::Now, &raw)
            .map_err(Error::at("set the modes of", "terminal"))?;
        Ok(RawTerminal { terminal, before })
    }

    fn copy_size(&self, master: BorrowedFd<'_>) {
        // A terminal without a size leaves the other one as it is.
        let _ = tcgetwinsize(&self.terminal).and_then(|size| tcsetwinsize(master, size));
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The size of the caller's terminal: a new one in the foreground begins with it.
pub(crate) fn caller_size() -> Option<ConsoleSize> {
    let size = tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some(ConsoleSize {
        height: size.ws_row,
        width: size.ws_col,
    })
}

/// A foreground that is prepared before the process starts, so that no signal
/// gets lost.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: OwnedFd,
    notify: Option<Proxy>,
}

impl Foreground {
    /// Blocks all signals from here on; they are forwarded by [`Foreground::wait`].
    pub(crate) fn prepare() -> Result<Foreground, Error> {
        Ok(Foreground {
            signals: sys::block_signals().map_err(Error::at("take", "signals"))?,
            notify: None,
        })
    }

    /// Passes on, while staying, that a service is ready. Its manager watches
    /// this process, which ends with the service.
    pub(crate) fn notify(&mut self, proxy: Option<Proxy>) {
        self.notify = proxy;
    }

    /// Passes on what the service has said meanwhile; once is enough.
    fn pass_on(&self, proxy: &mut Option<&Proxy>) {
        let heard = |proxy: &&Proxy| proxy.pass_on(std::process::id()).unwrap_or(true);
        if proxy.as_ref().is_some_and(heard) {
            *proxy = None;
        }
    }

    /// Stays until the process of this pidfd, a child, ends; its exit status, or
    /// 128 and the signal.
    pub(crate) fn wait(
        &self,
        child: BorrowedFd<'_>,
        master: Option<OwnedFd>,
    ) -> Result<i32, Error> {
        let raw = match &master {
            Some(master) => {
                let raw = RawTerminal::open()?;
                raw.copy_size(master.as_fd());
                Some(raw)
            }
            None => None,
        };
        let mut copier = master.map(|master| Copier {
            master,
            input_open: true,
        });
        let mut notify = self.notify.as_ref();
        loop {
            self.turn(child, copier.as_mut(), notify)?;
            self.pass_on(&mut notify);
            while let Some(signal) = sys::read_signal(self.signals.as_fd()) {
                match (signal, &raw, &copier) {
                    (libc::SIGWINCH, Some(raw), Some(copier)) => {
                        raw.copy_size(copier.master.as_fd())
                    }
                    (signal, ..) if OWN_SIGNALS.contains(&signal) => (),
                    // It may have ended meanwhile; the next turn sees that.
                    (signal, ..) => drop(sys::pidfd_signal(child, signal)),
                }
            }
            if let Some(code) = status(child)? {
                if let Some(copier) = &mut copier {
                    copier.drain();
                }
                return Ok(code);
            }
        }
    }

    /// Waits for anything to happen, and copies what the terminal has.
    fn turn(
        &self,
        child: BorrowedFd<'_>,
        copier: Option<&mut Copier>,
        notify: Option<&Proxy>,
    ) -> Result<(), Error> {
        let stdin = rustix::stdio::stdin();
        let mut events = vec![
            PollFd::new(&child, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        events.extend(notify.map(|proxy| PollFd::new(proxy, PollFlags::IN)));
        let first = events.len();
        let Some(copier) = copier else {
            return wait_for(&mut events);
        };
        events.push(PollFd::new(&copier.master, PollFlags::IN));
        if copier.input_open {
            events.push(PollFd::new(&stdin, PollFlags::IN));
        }
        wait_for(&mut events)?;
        let ready = |index: usize| {
            events
                .get(index)
                .is_some_and(|event| !event.revents().is_empty())
        };
        let (output, input, ended) = (ready(first), ready(first + 1), ready(0));
        drop(events);
        if output && !copier.output() && !ended {
            // All peers are closed though the process lives: nothing to copy
            // until it ends.
            return wait_for(&mut [
                PollFd::new(&child, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ]);
        }
        if input {
            copier.input();
        }
        Ok(())
    }
}

fn wait_for(events: &mut [PollFd<'_>]) -> Result<(), Error> {
    rustix::io::retry_on_intr(|| poll(events, None)).map_err(Error::at("wait for", "events"))?;
    Ok(())
}

/// The status of a child that has ended, as a shell would say it.
fn status(child: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(child), options).map_err(Error::at("wait for", "process"))?;
    Ok(status.and_then(|status| {
        status
            .exit_status()
            .or(status.terminating_signal().map(|signal| 128 + signal))
    }))
}

/// Copies between the caller's streams and the container's terminal.
#[derive(Debug)]
struct Copier {
    master: OwnedFd,
    input_open: bool,
}

impl Copier {
    /// Copies once from the container; false when nobody has its side open.
    fn output(&mut self) -> bool {
        copy(self.master.as_fd(), rustix::stdio::stdout())
    }

    fn input(&mut self) {
        self.input_open = copy(rustix::stdio::stdin(), self.master.as_fd());
    }

    /// Copies what the container has still written before its end.
    fn drain(&mut self) {
        let stdout = rustix::stdio::stdout();
        loop {
            let mut events = [PollFd::new(&self.master, PollFlags::IN)];
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = poll(&mut events, Some(&now)).is_ok_and(|count| count > 0);
            if !ready || !copy(self.master.as_fd(), stdout) {
                return;
            }
        }
    }
}

/// Copies one chunk; false at the end of either side.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut chunk = [0u8; CHUNK_BYTES];
    let length = match rustix::io::read(from, &mut chunk) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(errno) => return matches!(errno, Errno::INTR | Errno::AGAIN),
    };
    let mut rest = &chunk[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
    true
}
