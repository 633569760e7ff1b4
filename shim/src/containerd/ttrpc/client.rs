//! One call at a time to containerd's own ttrpc socket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::frame::{Frame, Kind};
use super::wire::Wire;
use crate::containerd::proto::ttrpc::{Request, Response, Status};

/// How long an answer may take. A containerd that is stopped holds its sockets open.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How a call went.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// containerd refused it.
    Refused(Status),
    /// Nobody answered; it may or may not have been done.
    Lost,
}

/// A connection to containerd, while there is one.
#[derive(Debug, Default)]
pub struct Client {
    wire: Option<Wire>,
    last_stream: u32,
    /// The call that waits for its answer: its stream, and until when.
    waiting: Option<(u32, Instant)>,
    /// There was a connection, or there should have been.
    lost: bool,
}

impl Client {
    /// Sends `request`, on a new connection where there is none. Its [`Outcome`] comes later,
    /// by [`Client::ready`] or [`Client::expire`]. `connected` gets a socket to watch.
    ///
    /// # Errors
    /// Nobody listens at `path`, or the connection broke.
    pub fn call(
        &mut self,
        path: &Path,
        request: &Request,
        connected: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.wire.is_none() {
            let fd = dial(path).inspect_err(|_| self.lost = true)?;
            connected(&fd)?;
            self.wire = Some(Wire::new(fd));
            self.last_stream = 0;
            self.lost = false;
        }
        let stream = self
            .last_stream
            .wrapping_add(if self.last_stream == 0 { 1 } else { 2 });
        let Some(wire) = &mut self.wire else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        if wire
            .write(Kind::Request, stream, &request.encode_to_vec())
            .is_err()
        {
            self.hang_up();
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.last_stream = stream;
        self.waiting = Some((stream, Instant::now() + ANSWER_LIMIT));
        Ok(())
    }

    /// Whether containerd was away since it was last spoken to.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    /// Whether an answer is awaited.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// The socket is ready.
    pub fn ready(&mut self, flags: EventFlags) -> Option<Outcome> {
        let wire = self.wire.as_mut()?;
        let expected = self.waiting.map(|(stream, _)| stream);
        let mut outcome = None;
        let mut take = |frame| {
            if let Frame::Whole(header, data) = frame
                && header.kind == Kind::Response
                && Some(header.stream) == expected
            {
                outcome = Some(match Response::decode(&data[..]) {
                    Ok(Response {
                        status: Some(status),
                        ..
                    }) if status.code != 0 => Outcome::Refused(status),
                    Ok(_) => Outcome::Done,
                    Err(_) => Outcome::Lost,
                });
            }
        };
        let mut result = wire.flush();
        if result.is_ok() && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            result = wire.read(&mut take);
        }
        if outcome.is_some() {
            self.waiting = None;
        }
        if result.is_err() {
            let was_waiting = self.waiting.is_some();
            self.hang_up();
            if was_waiting {
                outcome = Some(Outcome::Lost);
            }
        }
        // Streams have 32 bits: a new connection starts again before they wrap.
        if self.waiting.is_none() && self.last_stream > u32::MAX - 2 {
            self.hang_up();
        }
        outcome
    }

    /// Until when the answer is awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|(_, until)| until)
    }

    /// Gives up on an answer that is overdue.
    pub fn expire(&mut self, now: Instant) -> Option<Outcome> {
        self.deadline().filter(|until| *until <= now)?;
        self.hang_up();
        Some(Outcome::Lost)
    }

    /// Tells the poller what to wait for.
    ///
    /// # Errors
    /// What `watch` says.
    pub fn settle(
        &mut self,
        watch: impl FnOnce(&OwnedFd, EventFlags) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.wire.as_mut().map_or(Ok(()), |wire| wire.settle(watch))
    }

    fn hang_up(&mut self) {
        self.wire = None;
        self.waiting = None;
        self.lost = true;
    }
}

/// A non-blocking connection to the socket `path`. Local sockets connect at once or not at all.
///
/// # Errors
/// What the kernel says.
pub fn dial(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}
