//! One stream on its way from a source to a sink.
//!
//! From pipe to pipe the kernel moves the pages (`splice(2)`) and nothing is
//! held here. Where that is not possible (terminals, files that are appended
//! to), a block is read and written; what the sink did not take of it waits
//! here, and nothing more is read before it is gone. So memory is constant, and
//! a slow sink makes the writer wait instead of losing anything.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::fifo;
use crate::supervisor::poller::{Name, Poller};

/// Most that is moved by one call: what a pipe holds.
const SPLICE_BYTES: usize = 64 * 1024;
/// A block that is copied, on the stack.
const BLOCK_BYTES: usize = 16 * 1024;
/// Calls at once before others get their turn.
const TURN_CALLS: usize = 8;
/// How often a file that could not grow is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How a stream's bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Pages, by the kernel: both ends are pipes.
    Splice,
    /// Blocks, by us.
    Copy,
}

/// What a refused write means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    /// A pipe, fifo or terminal: there will never be a reader again.
    Reader,
    /// A file: there may be room later.
    File,
}

/// What must happen before anything can be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The source has something.
    Source,
    /// The sink takes something.
    Sink,
    /// A file may be able to grow again.
    Until(Instant),
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was moved, the source has ended.
    Source,
    /// Nobody will ever read the sink again.
    Sink,
}

/// A stream. Both ends are non-blocking.
#[derive(Debug)]
pub(super) struct Flow {
    source: OwnedFd,
    sink: OwnedFd,
    kind: Sink,
    method: Method,
    /// Read, but not yet taken by the sink. Empty, and without memory, while idle.
    pending: Vec<u8>,
    wait: Wait,
    watched: Option<Wait>,
    end: Option<End>,
}

impl Flow {
    /// To something that is read: by [`Method::Splice`] where both are pipes.
    pub(super) fn new(source: OwnedFd, sink: OwnedFd, method: Method) -> Self {
        Self::of_kind(source, sink, Sink::Reader, method)
    }

    /// To a file.
    pub(super) fn to_file(source: OwnedFd, sink: OwnedFd) -> Self {
        Self::of_kind(source, sink, Sink::File, Method::Copy)
    }

    fn of_kind(source: OwnedFd, sink: OwnedFd, kind: Sink, method: Method) -> Self {
        Self {
            source,
            sink,
            kind,
            method,
            pending: Vec::new(),
            wait: Wait::Source,
            watched: None,
            end: None,
        }
    }

    /// Moves what can be moved now, within a turn. The reason, once it is over.
    pub(super) fn advance(&mut self, now: Instant) -> Option<End> {
        for _ in 0..TURN_CALLS {
            if self.end.is_some() {
                break;
            }
            let moved = match self.method {
                _ if !self.pending.is_empty() => self.write_pending(),
                Method::Splice => self.splice(),
                Method::Copy => self.copy(),
            };
            if let Some(wait) = moved.unwrap_or(Some(Wait::Until(now + RETRY))) {
                self.wait = wait;
                break;
            }
        }
        self.end
    }

    /// `None` when something was moved; `Err`: the sink cannot take anything for a reason of its own.
    fn splice(&mut self) -> io::Result<Option<Wait>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match splice(&self.source, None, &self.sink, None, SPLICE_BYTES, flags) {
            Ok(0) => self.over(End::Source),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if fifo::is_readable(&self.source) => return Ok(Some(Wait::Sink)),
            Err(Errno::AGAIN) => return Ok(Some(Wait::Source)),
            Err(Errno::PIPE) => self.over(End::Sink),
            Err(_) => self.method = Method::Copy,
        }
        Ok(None)
    }

    fn copy(&mut self) -> io::Result<Option<Wait>> {
        let mut block = [0; BLOCK_BYTES];
        match rustix::io::read(&self.source, &mut block) {
            Ok(0) => self.over(End::Source),
            Ok(len) => {
                self.pending = block[..len].to_vec();
                return self.write_pending();
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Some(Wait::Source)),
            // A terminal that nobody has open any more says EIO.
            Err(_) => self.over(End::Source),
        }
        Ok(None)
    }

    fn write_pending(&mut self) -> io::Result<Option<Wait>> {
        match rustix::io::write(&self.sink, &self.pending) {
            Ok(len) if len == self.pending.len() => self.pending = Vec::new(),
            Ok(len) => drop(self.pending.drain(..len)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Some(Wait::Sink)),
            Err(_) if self.kind == Sink::Reader => self.over(End::Sink),
            Err(err) => return Err(err.into()),
        }
        Ok(None)
    }

    fn over(&mut self, end: End) {
        self.end = Some(end);
    }

    /// When [`Flow::advance`] is to be called although nothing becomes ready.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.wait {
            Wait::Until(at) => Some(at),
            Wait::Source | Wait::Sink => None,
        }
    }

    /// Reads from `source` from now on. The old one must be the only one of its open file.
    pub(super) fn replace_source(&mut self, source: OwnedFd) {
        if self.watched == Some(Wait::Source) {
            self.watched = None;
        }
        self.source = source;
    }

    /// Why it is over, once it is.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// Goes on with another sink, that takes everything; what the old one did not take is lost.
    pub(super) fn divert(&mut self, sink: OwnedFd) {
        self.sink = sink;
        self.pending = Vec::new();
        self.end = None;
        self.wait = Wait::Source;
    }

    /// The source, for what belongs to its kind.
    pub(super) fn source(&self) -> &OwnedFd {
        &self.source
    }

    /// Tells the poller what is waited for. Only that: readiness that is not
    /// waited for would be reported without end.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn settle<N: Name>(&mut self, poller: &Poller<N>, name: N) -> io::Result<()> {
        let wanted = Some(self.wait).filter(|_| self.end.is_none());
        if wanted == self.watched {
            return Ok(());
        }
        self.unwatch(poller);
        match wanted {
            Some(Wait::Source) => poller.add(&self.source, name, EventFlags::IN)?,
            Some(Wait::Sink) => poller.add(&self.sink, name, EventFlags::OUT)?,
            Some(Wait::Until(_)) | None => {}
        }
        self.watched = wanted;
        Ok(())
    }

    /// Nothing is watched any more.
    pub(super) fn unwatch<N: Name>(&mut self, poller: &Poller<N>) {
        match self.watched.take() {
            Some(Wait::Source) => poller.remove(&self.source),
            Some(Wait::Sink) => poller.remove(&self.sink),
            Some(Wait::Until(_)) | None => {}
        }
    }

    /// Closes the source; the sink is left.
    pub(super) fn into_sink(self) -> OwnedFd {
        self.sink
    }
}
