//! The container's standard input: one block at a time from a client to the
//! container, which may read when it likes.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, recv};

use super::poller::{Name, Poller};
use super::protocol::BLOCK_BYTES;
use super::pump::Watched;

/// What a client's input said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Something, or nothing until the descriptor is readable again.
    Some,
    /// It has ended.
    End,
}

/// The way into the container.
#[derive(Debug)]
pub(crate) struct Input {
    sink: Option<OwnedFd>,
    /// Close it when a client's input ends.
    once: bool,
    closing: bool,
    /// Made when first used: most containers get no input.
    block: Vec<u8>,
    written: usize,
    watched: bool,
    /// Closed while the poller watched it. See [`super::pump::Pump`].
    retired: Option<OwnedFd>,
}

impl Input {
    /// `sink` is the container's standard input or terminal, non-blocking; `None` discards.
    pub(crate) fn new(sink: Option<OwnedFd>, once: bool) -> Self {
        Self {
            sink,
            once,
            closing: false,
            block: Vec::new(),
            written: 0,
            watched: false,
            retired: None,
        }
    }

    /// Whether the last block is not yet in the container.
    pub(crate) fn is_busy(&self) -> bool {
        self.written < self.block.len()
    }

    /// Reads a block from a client and passes on what the container takes. Only while not busy.
    pub(crate) fn take(&mut self, client: &OwnedFd) -> Taken {
        self.block.resize(BLOCK_BYTES, 0);
        let received = recv(client, self.block.as_mut_slice(), RecvFlags::DONTWAIT);
        self.written = 0;
        match received {
            Ok((0, _)) => self.block.clear(),
            Ok((n, _)) => self.block.truncate(n),
            // A client that left output unread makes a reset, said once, before the input that it had sent.
            Err(
                rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET,
            ) => {
                self.block.clear();
                return Taken::Some;
            }
            Err(_) => self.block.clear(),
        }
        if self.block.is_empty() {
            self.closing |= self.once;
            self.flush();
            return Taken::End;
        }
        self.flush();
        Taken::Some
    }

    /// A client left without ending its input.
    pub(crate) fn client_left(&mut self) {
        self.closing |= self.once;
        self.flush();
    }

    /// Writes what the container takes now.
    pub(crate) fn flush(&mut self) {
        while let Some(sink) = &self.sink
            && self.is_busy()
        {
            match rustix::io::write(sink, &self.block[self.written..]) {
                Ok(n) => self.written += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.close(), // it will never read again
            }
        }
        if self.sink.is_none() || !self.is_busy() {
            self.block.clear();
            self.written = 0;
            if self.closing {
                self.close();
            }
        }
    }

    /// Ends the container's input.
    pub(crate) fn close(&mut self) {
        self.retired = self.retired.take().or(self.sink.take());
        self.block = Vec::new();
        self.written = 0;
    }

    /// Tells the poller whether the container's reading is waited for.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn settle<N: Name + From<Watched>>(
        &mut self,
        poller: &Poller<N>,
    ) -> std::io::Result<()> {
        if let Some(fd) = self.retired.take() {
            poller.remove(fd);
            self.watched = false;
        }
        let wanted = self.is_busy();
        if let Some(sink) = &self.sink
            && wanted != self.watched
        {
            if wanted {
                poller.add(sink, N::from(Watched::Input), EventFlags::OUT)?;
            } else {
                poller.remove(sink);
            }
            self.watched = wanted;
        }
        Ok(())
    }
}
