//! A connection to a bus, or to a peer without one.
//!
//! ```text
//!     us                            the other side
//!     \0 AUTH EXTERNAL        -->
//!     DATA                    -->                   who we are the kernel tells it
//!     BEGIN                   -->
//!                             <--   DATA
//!                             <--   OK <guid>
//!     Hello                   -->                   on a bus only
//!                             <--   our name
//! ```
//! (D-Bus specification, "Authentication Protocol".)
//!
//! `BEGIN` is sent with the rest, before the answers: systemd never looks at a call
//! that it read in one piece with `BEGIN`, so none may be sent before its `OK`, which
//! it sends when it has read all of the introduction.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::address::Place;
use super::message::{Kind, PREFIX_BYTES};
use super::value::Value;
use super::{Error, Message};

/// Who we are, and that nothing more is to be agreed on.
const INTRODUCTION: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
/// How long a call may take, in seconds: what bus libraries and runc wait.
const CALL_SECONDS_MAX: u64 = 30;
/// How long a full queue of the other side is given before the next try, in milliseconds.
const BACKLOG_PAUSE_MS: u64 = 20;
/// The longest line while we introduce ourselves, in bytes; real ones are below 64.
const LINE_BYTES_MAX: usize = 4096;
/// The most signals kept while an answer is awaited; older ones are dropped.
const SIGNALS_MAX: usize = 4096;
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 4096;

/// A connection. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// For errors.
    place: String,
    serial: u32,
    /// Read, not yet understood.
    buffer: Vec<u8>,
    /// News that came before it was asked for.
    signals: VecDeque<Message>,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The service's name on a bus; empty without one.
    pub(crate) destination: &'a str,
    /// Its object.
    pub(crate) path: &'a str,
    /// The interface.
    pub(crate) interface: &'a str,
    /// The method.
    pub(crate) member: &'a str,
}

impl Connection {
    /// Connects to one place and says who we are.
    pub(crate) fn open(place: &Place) -> Result<Self, Error> {
        let name = place.to_string();
        let end = Instant::now() + Duration::from_secs(CALL_SECONDS_MAX);
        let socket = connect(place, end).map_err(|source| Error::Connect {
            place: name.clone(),
            source,
        })?;
        let mut connection = Self {
            socket,
            place: name,
            serial: 0,
            buffer: Vec::new(),
            signals: VecDeque::new(),
        };
        connection.authenticate(end)?;
        Ok(connection)
    }

    /// Joins the bus; a peer without bus is not told this.
    pub(crate) fn hello(&mut self) -> Result<(), Error> {
        let bus = "org.freedesktop.DBus";
        let call = Call {
            destination: bus,
            path: "/org/freedesktop/DBus",
            interface: bus,
            member: "Hello",
        };
        self.call(&call, Vec::new()).map(drop)
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(&mut self, call: &Call<'_>, body: Vec<Value>) -> Result<Vec<Value>, Error> {
        let end = Instant::now() + Duration::from_secs(CALL_SECONDS_MAX);
        self.serial += 1;
        let serial = self.serial;
        let message = Message {
            destination: call.destination.to_owned(),
            path: call.path.to_owned(),
            interface: call.interface.to_owned(),
            member: call.member.to_owned(),
            body,
            ..Message::new(Kind::Call, serial)
        };
        self.send(&message.encode(), end, call.member)?;
        loop {
            let message = self.receive(end, call.member)?;
            match message.kind {
                Kind::Reply if message.reply_to == serial => return Ok(message.body),
                Kind::Error if message.reply_to == serial => return Err(remote(message)),
                Kind::Signal => self.keep(message),
                // Nobody has a reason to call us; an answer to nothing is none.
                Kind::Call | Kind::Reply | Kind::Error => {}
            }
        }
    }

    /// Waits for the first signal that `wanted` accepts, those included that
    /// came during earlier calls.
    pub(crate) fn signal(
        &mut self,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, Error> {
        let end = Instant::now() + Duration::from_secs(CALL_SECONDS_MAX);
        if let Some(at) = self.signals.iter().position(&wanted) {
            return self.signals.remove(at).ok_or_else(|| self.closed());
        }
        loop {
            let message = self.receive(end, what)?;
            if message.kind == Kind::Signal && wanted(&message) {
                return Ok(message);
            }
        }
    }

    fn keep(&mut self, signal: Message) {
        if self.signals.len() == SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back(signal);
    }

    fn authenticate(&mut self, end: Instant) -> Result<(), Error> {
        const WHAT: &str = "AUTH EXTERNAL";
        self.send(INTRODUCTION, end, WHAT)?;
        for wanted in ["DATA", "OK"] {
            let answer = self.line(end, WHAT)?;
            if !answer.starts_with(wanted) {
                return Err(Error::Refused {
                    place: self.place.clone(),
                    answer,
                });
            }
        }
        Ok(())
    }

    fn line(&mut self, end: Instant, what: &str) -> Result<String, Error> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.malformed("a line has no end"));
            }
            self.read(end, what)?;
        }
    }

    /// The next message that we understand.
    fn receive(&mut self, end: Instant, what: &str) -> Result<Message, Error> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() {
                let length = Message::length(*prefix).map_err(|why| self.malformed(why))?;
                if self.buffer.len() >= length {
                    let message = Message::decode(&self.buffer[..length]);
                    self.buffer.drain(..length);
                    if let Some(message) = message.map_err(|why| self.malformed(why))? {
                        return Ok(message);
                    }
                    continue;
                }
            }
            self.read(end, what)?;
        }
    }

    fn read(&mut self, end: Instant, what: &str) -> Result<(), Error> {
        self.wait(PollFlags::IN, end, what)?;
        self.buffer.reserve(CHUNK_BYTES);
        match rustix::io::read(
            &self.socket,
            rustix::buffer::spare_capacity(&mut self.buffer),
        ) {
            Ok(0) => Err(self.closed()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(source) => Err(self.broken(source)),
        }
    }

    fn send(&self, mut bytes: &[u8], end: Instant, what: &str) -> Result<(), Error> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, end, what)?,
                Err(Errno::INTR) => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
        Ok(())
    }

    fn wait(&self, wish: PollFlags, end: Instant, what: &str) -> Result<(), Error> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| self.broken(Errno::INVAL))?;
            match poll(&mut [PollFd::new(&self.socket, wish)], Some(&timeout)) {
                Ok(0) => {
                    return Err(Error::Timeout {
                        place: self.place.clone(),
                        what: what.to_owned(),
                        seconds: CALL_SECONDS_MAX,
                    });
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
    }

    fn broken(&self, source: Errno) -> Error {
        Error::Talk {
            place: self.place.clone(),
            source,
        }
    }

    fn closed(&self) -> Error {
        Error::Closed {
            place: self.place.clone(),
        }
    }

    fn malformed(&self, why: &'static str) -> Error {
        Error::Malformed {
            place: self.place.clone(),
            why,
        }
    }
}

/// Connects; where the queue of the other side is full (EAGAIN), again until `end`.
fn connect(place: &Place, end: Instant) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = place.socket()?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Err(Errno::AGAIN) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(BACKLOG_PAUSE_MS));
            }
            Err(Errno::INTR) => {}
            result => return result.map(|()| socket),
        }
    }
}

fn remote(message: Message) -> Error {
    let text = match message.body.into_iter().next() {
        Some(Value::Text(text)) if !text.is_empty() => text,
        _ => message.error.clone(),
    };
    Error::Remote {
        name: message.error,
        text,
    }
}

#[cfg(test)]
mod tests;
