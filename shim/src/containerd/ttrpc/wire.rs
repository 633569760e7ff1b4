//! A stream socket that carries frames both ways, without waiting.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::frame::{self, Decoder, Frame, Kind};

/// Bytes read at once, on the stack. Requests are a few hundred bytes, an exec's some thousand.
const READ_BYTES: usize = 4 * 1024;
/// Unsent bytes above which nothing more is read from a peer: who does not
/// take answers gets no further work done.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// A socket and what is on its way through it.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    pub fd: OwnedFd,
    decoder: Decoder,
    unsent: Vec<u8>,
    /// Bytes at the front of `unsent` that were sent.
    sent: usize,
    /// What the poller was last told to wait for.
    watched: EventFlags,
}

/// The peer is gone, or what is left of the connection is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Wire {
    /// A connected, non-blocking socket that the poller watches for input.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            sent: 0,
            watched: EventFlags::IN,
        }
    }

    /// Hands what can be read now to `each`, once around.
    ///
    /// # Errors
    /// The peer has closed its end.
    pub fn read(&mut self, mut each: impl FnMut(Frame)) -> Result<(), Gone> {
        let mut bytes = [0; READ_BYTES];
        match recv(&self.fd, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Gone),
            Ok((n, _)) => {
                let mut bytes = &bytes[..n];
                while let Some(frame) = self.decoder.next(&mut bytes) {
                    each(frame);
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// Sends a frame, or keeps of it what the socket does not take now.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn write(&mut self, kind: Kind, stream: u32, data: &[u8]) -> Result<(), Gone> {
        frame::encode(kind, stream, data, &mut self.unsent);
        self.flush()
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while self.sent < self.unsent.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.fd, &self.unsent[self.sent..], flags) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.unsent.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(_) => return Err(Gone),
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// What to wait for, if that is not what is waited for already.
    ///
    /// # Errors
    /// What `watch` says.
    pub fn settle(
        &mut self,
        watch: impl FnOnce(&OwnedFd, EventFlags) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut wanted = EventFlags::empty();
        if self.unsent.len() - self.sent <= UNSENT_BYTES_MAX {
            wanted |= EventFlags::IN;
        }
        if self.sent < self.unsent.len() {
            wanted |= EventFlags::OUT;
        }
        if wanted != self.watched {
            watch(&self.fd, wanted)?;
            self.watched = wanted;
        }
        Ok(())
    }
}
