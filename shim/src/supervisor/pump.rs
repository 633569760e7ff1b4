//! The container's output on its way to the log and to those who are attached.
//!
//! One block of at most 8 KiB is on its way at a time. It is read, logged and
//! delivered before the next one is read: memory is constant, and whoever is
//! slow (a full disk with policy "block", an attached client) makes the
//! container wait instead of losing output.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::clients::Clients;
use super::input::{Input, Taken as TakenInput};
use super::log::{Log, Stream, Taken};
use super::poller::{Poller, Token};
use super::protocol::{BLOCK_BYTES, tag};

/// Blocks read at once before others get their turn.
const TURN_BLOCKS: usize = 8;

/// The block on its way.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: Stream,
    len: usize,
    logged: usize,
    in_log: bool,
}

/// Everything that flows out of and into the container.
#[derive(Debug)]
pub struct Pump {
    streams: [Option<OwnedFd>; 2],
    /// Streams that ended while the poller watched them. A terminal's stream
    /// and input share one open file, so closing alone would not end that.
    retired: Vec<OwnedFd>,
    watched: bool,
    log: Log,
    /// The packet: tag and block.
    packet: Box<[u8]>,
    block: Option<Block>,
    clients: Clients,
    input: Input,
    /// The container has ended: nobody may hold its output back any more.
    ending: bool,
}

impl Pump {
    /// Output is read from `streams` (non-blocking; by [`Stream::index`]), input written to `sink`.
    /// With `input_once`, the input ends with the first client's.
    #[must_use]
    pub fn new(
        streams: [Option<OwnedFd>; 2],
        sink: Option<OwnedFd>,
        input_once: bool,
        log: Log,
    ) -> Self {
        Self {
            streams,
            retired: Vec::new(),
            watched: false,
            log,
            packet: vec![0; 1 + BLOCK_BYTES].into_boxed_slice(),
            block: None,
            clients: Clients::default(),
            input: Input::new(sink, input_once),
            ending: false,
        }
    }

    /// Whether output may still come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.block.is_some() || self.streams.iter().any(Option::is_some)
    }

    /// Whether the log cannot grow, so that [`Pump::advance`] must be tried again after a while.
    #[must_use]
    pub fn is_log_full(&self) -> bool {
        self.block.is_some_and(|block| !block.in_log)
    }

    /// Whether anyone attached has not got everything yet.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        !self.clients.list.is_empty()
    }

    /// Someone attached.
    pub fn attach(&mut self, fd: OwnedFd) {
        self.clients.add(fd);
    }

    /// The container's input has no reader any more.
    pub fn close_input(&mut self) {
        self.input.close();
    }

    /// The container has ended.
    pub fn end(&mut self) {
        self.ending = true;
        self.advance();
    }

    /// Reads output that is there.
    pub fn read_output(&mut self, stream: Stream) {
        for _ in 0..TURN_BLOCKS {
            let Some(fd) = &self.streams[stream.index()] else {
                return;
            };
            if self.block.is_some() {
                return;
            }
            match rustix::io::read(fd, &mut self.packet[1..]) {
                Ok(0) => self.retire(stream),
                Ok(len) => {
                    self.packet[0] = tag(stream);
                    self.block = Some(Block {
                        stream,
                        len,
                        logged: 0,
                        in_log: false,
                    });
                    self.clients.owe_all();
                    self.advance();
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                // A terminal without any user left says EIO.
                Err(_) => self.retire(stream),
            }
        }
    }

    fn retire(&mut self, stream: Stream) {
        self.retired.extend(self.streams[stream.index()].take());
    }

    /// Moves the block on as far as it goes.
    pub fn advance(&mut self) {
        let Some(block) = &mut self.block else { return };
        let packet = &self.packet[..=block.len];
        if !block.in_log {
            match self.log.append(block.stream, &packet[1 + block.logged..]) {
                Taken::All => block.in_log = true,
                Taken::Part(n) => block.logged += n,
            }
        }
        let delivered = self.clients.deliver(packet, self.ending);
        if block.in_log && delivered {
            self.block = None;
        }
    }

    /// An attached client is ready.
    pub fn client_ready(&mut self, id: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.clients.flush(id);
            self.advance();
        }
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let Some(client) = self.clients.get(id) else {
            return;
        };
        if flags.contains(EventFlags::IN) && !client.input_ended {
            if self.input.is_busy() {
                return;
            }
            if self.input.take(&client.fd) == TakenInput::End {
                client.input_ended = true;
            }
        } else if hung_up {
            if !client.input_ended {
                self.input.client_left();
            }
            self.clients.bury(id);
            self.advance();
        }
    }

    /// The container reads its input.
    pub fn input_ready(&mut self) {
        self.input.flush();
    }

    /// Stops reading output. Returns how many bytes of it the log lacks, over the whole life.
    pub fn close_output(&mut self) -> u64 {
        let mut unread: usize = 0;
        if let Some(block) = self.block.take()
            && !block.in_log
        {
            unread += block.len - block.logged;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(fd) = &self.streams[stream.index()] {
                unread += rustix::io::ioctl_fionread(fd)
                    .map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
            }
            self.retire(stream);
        }
        self.log.close(unread)
    }

    /// Tells the poller what is waited for now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle(&mut self, poller: &Poller) -> io::Result<()> {
        for fd in self.retired.drain(..) {
            poller.remove(&fd);
        }
        // Watched only while a block can be taken: end of file would be reported without end.
        let wanted = self.block.is_none();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(fd) = &self.streams[stream.index()]
                && wanted != self.watched
            {
                if wanted {
                    poller.add(fd, Token::Output(stream), EventFlags::IN)?;
                } else {
                    poller.remove(fd);
                }
            }
        }
        self.watched = wanted;
        self.input.settle(poller)?;
        self.clients
            .settle(poller, self.input.is_busy(), self.ending && !self.is_open())
    }
}
