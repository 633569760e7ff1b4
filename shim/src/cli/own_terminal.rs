//! The terminal that `teu` itself was started in.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

use crate::Error;
use crate::error::At as _;

/// A terminal in raw mode; its old mode comes back with the end of the value.
pub(super) struct RawTerminal {
    before: Termios,
    raw: Termios,
}

impl RawTerminal {
    /// Our standard input, which is one.
    pub(super) fn enter() -> Result<Self, Error> {
        let before = tcgetattr(rustix::stdio::stdin()).call("tcgetattr")?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Self { before, raw };
        terminal.again().call("tcsetattr")?;
        Ok(terminal)
    }

    /// Into raw mode once more: a shell has taken it out while we were stopped.
    pub(super) fn again(&self) -> rustix::io::Result<()> {
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.raw)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _: rustix::io::Result<()> =
            tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of its window, where there is one.
pub(super) fn window_size() -> Option<Winsize> {
    let sizes = [rustix::stdio::stdin(), rustix::stdio::stdout()].map(|fd| tcgetwinsize(fd).ok());
    sizes.into_iter().flatten().find(|size| size.ws_row > 0)
}

/// Writes everything; `false`: nobody reads.
pub(super) fn write_all(fd: BorrowedFd<'_>, mut data: &[u8]) -> Result<bool, Error> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(n) => data = &data[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                match poll(&mut ready, None) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => drop(result.call("poll")?),
                }
            }
            Err(rustix::io::Errno::PIPE) => return Ok(false),
            Err(err) => return Err(err).call("write"),
        }
    }
    Ok(true)
}
