//! Staying with a container: its output to ours, our input, signals and window
//! size to it, its exit status as ours.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::termios::isatty;

use super::detach::Keys;
use super::handle::Connection;
use super::input::Input;
use super::own_terminal::{RawTerminal, window_size, write_all};
use crate::container::{Exit, Folder};
use crate::error::At as _;
use crate::runtime::STATUS_OWN_ERROR;
use crate::supervisor::log::Stream;
use crate::supervisor::machine::Answer;
use crate::supervisor::protocol::{BLOCK_BYTES, Request, stream};
use crate::supervisor::socket;
use crate::{Error, sys};

/// Passed on to the container, as docker's proxy does; WINCH becomes a window size.
const SIGNALS: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGWINCH,
];
/// Status of a `teu` whose own output has no reader any more: 128 + SIGPIPE.
const STATUS_BROKEN_PIPE: u8 = 141;

/// A connection to a container's streams.
pub(super) struct Session {
    name: String,
    connection: Connection,
    attach: OwnedFd,
    signals: OwnedFd,
    terminal: bool,
    input: Input,
    /// The end of our input is still to be told.
    sends: bool,
    /// Ours, while it hands on every key.
    raw: Option<RawTerminal>,
    output_ended: bool,
    control_ended: bool,
    exit: Option<Exit>,
}

impl Session {
    /// Attaches, and asks for the end to be told. Nothing that comes from now on is missed.
    pub(super) fn open(
        folder: &Folder,
        name: String,
        terminal: bool,
        input: bool,
    ) -> Result<Self, Error> {
        let attach = socket::connect_to(&folder.path, "attach")
            .at("connect to", &folder.path.join("attach"))?;
        let connection = Connection::open(folder, &name)?;
        connection.send(Request::Wait)?;
        if !input {
            shutdown(&attach, Shutdown::Write).call("shutdown")?;
        }
        let signals = sys::signalfd(&SIGNALS).call("signalfd")?;
        let session = Self {
            name,
            connection,
            attach,
            signals,
            terminal,
            input: Input::new(input),
            sends: input,
            raw: None,
            output_ended: false,
            control_ended: false,
            exit: None,
        };
        if terminal && let Some(size) = size_request() {
            // Before the program starts and asks for it. It may have ended: that is told by the other answer.
            let _: Answer = session.connection.ask(size)?;
        }
        Ok(session)
    }

    /// For requests before [`Session::run`].
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Stays until the container has ended and its output is out, or until the keys that
    /// leave it are typed into a terminal. Returns its status; 0 where it goes on.
    pub(super) fn run(mut self, keys: &Keys) -> Result<u8, Error> {
        let stdin = rustix::stdio::stdin();
        if self.terminal && self.input.is_wanted() && isatty(stdin) {
            self.input.watch(keys.clone());
            self.raw = Some(RawTerminal::enter()?);
        }
        while !(self.output_ended && self.control_ended) {
            if !self.turn()? {
                return Ok(STATUS_BROKEN_PIPE);
            }
            if self.input.is_left() {
                return Ok(0);
            }
        }
        match self.exit {
            Some(Exit {
                status: Some(status),
                ..
            }) => Ok(u8::try_from(status).unwrap_or(STATUS_OWN_ERROR)),
            Some(_) => Err(Error::Refused {
                name: self.name,
                message: "it ended, nobody saw how".into(),
            }),
            None => Err(Error::SupervisorDied { name: self.name }),
        }
    }

    /// Waits once and deals with everything that is ready. `false`: nobody reads our output any more.
    fn turn(&mut self) -> Result<bool, Error> {
        let stdin = rustix::stdio::stdin();
        let mut attach_flags = PollFlags::empty();
        attach_flags.set(PollFlags::OUT, !self.input.next().is_empty());
        attach_flags.set(PollFlags::IN, !self.output_ended);
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        // An ended descriptor is always ready: it is not asked about again.
        fds.push(PollFd::new(
            if self.output_ended {
                &self.signals
            } else {
                &self.attach
            },
            attach_flags,
        ));
        fds.push(PollFd::new(
            if self.control_ended {
                &self.signals
            } else {
                &self.connection.fd
            },
            PollFlags::IN,
        ));
        if self.input.is_wanted() {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(err) => return Err(err).call("poll"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let attach_events = fds[1].revents();
        drop(fds);
        if ready[0] {
            self.pass_signals()?;
        }
        if ready.get(3).is_some_and(|ready| *ready) {
            self.input.read();
        }
        self.send_input();
        if !self.control_ended && ready[2] {
            self.hear()?;
        }
        if !self.output_ended
            && ready[1]
            && attach_events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        {
            return self.pass_output();
        }
        Ok(true)
    }

    fn hear(&mut self) -> Result<(), Error> {
        match self.connection.next()? {
            None => self.control_ended = true,
            Some(Answer::Ended(exit)) => self.exit = Some(exit),
            Some(Answer::Done | Answer::Refused(_)) => {}
        }
        Ok(())
    }

    /// One packet of output. `false`: our own output is closed.
    fn pass_output(&mut self) -> Result<bool, Error> {
        let mut packet = [0; 1 + BLOCK_BYTES];
        let len = match recv(&self.attach, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => len,
            // A reset (the container left input unread) is said once, before the output that was on its way.
            Err(
                rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET,
            ) => return Ok(true),
            Err(err) => return Err(err).call("recv"),
        };
        if len == 0 {
            self.output_ended = true;
            self.input.end();
            return Ok(true);
        }
        let target = match stream(packet[0]) {
            Some(Stream::Stdout) => rustix::stdio::stdout(),
            Some(Stream::Stderr) => rustix::stdio::stderr(),
            None => return Ok(true),
        };
        write_all(target, &packet[1..len])
    }

    fn send_input(&mut self) {
        let block = self.input.next();
        if !block.is_empty() {
            match socket::try_send(&self.attach, block) {
                Ok(true) => self.input.sent(block.len()),
                Ok(false) => {}
                Err(_) => self.input.end(),
            }
        }
        if self.sends && self.input.has_ended() {
            self.sends = false;
            let _: rustix::io::Result<()> = shutdown(&self.attach, Shutdown::Write);
        }
    }

    fn pass_signals(&self) -> Result<(), Error> {
        while let Some(signal) = sys::next_signal(&self.signals).call("read signalfd")? {
            let sent = match signal {
                libc::SIGWINCH if self.terminal => self.send_window_size(),
                libc::SIGCONT => self.come_back(),
                libc::SIGWINCH => Ok(()),
                _ if self.control_ended => Ok(()),
                _ => self.connection.send(Request::Kill(signal)),
            };
            // That it ended meanwhile is heard of otherwise.
            drop(sent);
        }
        Ok(())
    }

    /// We were stopped: what the shell did meanwhile to our terminal is done again.
    fn come_back(&self) -> Result<(), Error> {
        match &self.raw {
            Some(raw) => {
                raw.again().call("tcsetattr")?;
                self.send_window_size()
            }
            None => Ok(()),
        }
    }

    fn send_window_size(&self) -> Result<(), Error> {
        size_request().map_or(Ok(()), |size| self.connection.send(size))
    }
}

/// Gives the container's terminal the size of ours.
fn size_request() -> Option<Request> {
    let size = window_size()?;
    Some(Request::Resize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
