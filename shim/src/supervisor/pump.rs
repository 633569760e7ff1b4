//! The container's output on its way to the log and to those who are attached.
//!
//! One block of at most 8 KiB is on its way at a time. It is read, logged and
//! delivered before the next one is read: memory is constant, and whoever is
//! slow (a full disk with policy "block", an attached client) makes the
//! container wait instead of losing output.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::clients::Clients;
use super::input::{Input, Taken as TakenInput};
use super::log::{Log, Sink, Stream, Taken};
use super::poller::{Name, Poller};
use super::protocol::{BLOCK_BYTES, tag};

/// Blocks read at once before others get their turn.
const TURN_BLOCKS: usize = 8;
/// How often a log that could not grow is tried again, where nothing tells that it can.
const LOG_RETRY: Duration = Duration::from_millis(500);
/// How often a terminal that nobody has open is looked at again: the kernel
/// does not tell when someone opens it.
const TERMINAL_RETRY: Duration = Duration::from_millis(100);
/// Most output of a stream that an ended process may have left behind, in
/// bytes: a pipe holds no more (/proc/sys/fs/pipe-max-size, as it is by default).
const LEFT_BYTES_MAX: usize = 1 << 20;

/// What the pump waits for; whoever drives it has names for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The container wrote.
    Output(Stream),
    /// The container reads.
    Input,
    /// An attached client.
    Client(u32),
    /// The log can take more.
    Log,
}

/// The block on its way.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: Stream,
    len: usize,
    logged: usize,
    in_log: bool,
}

/// How many blocks each stream may still yield that an ended process wrote, see [`Pump::drain`].
#[derive(Debug)]
pub struct Left([usize; 2]);

impl Default for Left {
    fn default() -> Self {
        // A pipe's page may hold as little as a byte, but a read goes on to the next page.
        Self([LEFT_BYTES_MAX / BLOCK_BYTES + 1; 2])
    }
}

/// Everything that flows out of and into the container.
#[derive(Debug)]
pub struct Pump<S = Log> {
    streams: [Option<OwnedFd>; 2],
    /// Streams that ended while the poller watched them. A terminal's stream
    /// and input share one open file, so closing alone would not end that.
    retired: Vec<OwnedFd>,
    watched: [bool; 2],
    /// Standard output is a terminal.
    terminal: bool,
    /// Nobody has the terminal open: when it is to be looked at again.
    hung_up: Option<Instant>,
    log: S,
    log_watched: bool,
    /// The packet: tag and block.
    packet: Box<[u8]>,
    block: Option<Block>,
    clients: Clients,
    input: Input,
    /// The container has ended: nobody may hold its output back any more.
    ending: bool,
}

impl<S: Sink> Pump<S> {
    /// Output is read from `streams` (non-blocking; by [`Stream::index`]), input written to `sink`.
    /// With `input_once`, the input ends with the first client's.
    pub fn new(
        streams: [Option<OwnedFd>; 2],
        sink: Option<OwnedFd>,
        input_once: bool,
        log: S,
    ) -> Self {
        Self {
            streams,
            retired: Vec::new(),
            watched: [false; 2],
            terminal: false,
            hung_up: None,
            log,
            log_watched: false,
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

    /// Gives it streams, where it was made before they were there.
    pub fn open(&mut self, streams: [Option<OwnedFd>; 2], sink: Option<OwnedFd>, input_once: bool) {
        self.streams = streams;
        self.input = Input::new(sink, input_once);
    }

    /// Says that standard output is a terminal: that nobody has it open is not its end.
    pub fn is_terminal(&mut self) {
        self.terminal = true;
    }

    /// The log, to be told things that only its kind knows.
    pub fn log(&mut self) -> &mut S {
        &mut self.log
    }

    fn is_log_full(&self) -> bool {
        self.block.is_some_and(|block| !block.in_log)
    }

    /// After which time [`Pump::retry`] is wanted, if nothing else happens.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let log = (self.is_log_full() && self.log.waits_for().is_none()).then_some(LOG_RETRY);
        let terminal = self
            .hung_up
            .map(|until| until.saturating_duration_since(Instant::now()));
        log.into_iter().chain(terminal).min()
    }

    /// Tries again what could not be done and what no event tells of.
    pub fn retry(&mut self) {
        self.hung_up.take_if(|until| *until <= Instant::now());
        if self.is_log_full() {
            self.advance();
        }
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
            if self.block.is_some() || !self.read_block(stream) {
                return;
            }
        }
    }

    /// Reads a block, while none is on its way. `false`: there is nothing to read now.
    fn read_block(&mut self, stream: Stream) -> bool {
        let Some(fd) = &self.streams[stream.index()] else {
            return false;
        };
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut self.packet[1..])) {
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
                return true;
            }
            Err(rustix::io::Errno::AGAIN) => {}
            // A terminal without any user left says EIO.
            Err(_) if self.terminal && stream == Stream::Stdout && !self.ending => {
                self.hung_up = Some(Instant::now() + TERMINAL_RETRY);
            }
            Err(_) => self.retire(stream),
        }
        false
    }

    /// After [`Pump::end`]: takes what the ended process left, without waiting
    /// for others that have its streams open and may go on. `true`: nothing of
    /// it is left; `false`: the log must take more first.
    pub fn drain(&mut self, left: &mut Left) -> bool {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let left = &mut left.0[stream.index()];
            while *left > 0 {
                if self.block.is_some() {
                    return false;
                }
                *left -= 1;
                if !self.read_block(stream) {
                    *left = 0;
                }
            }
        }
        self.block.is_none()
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

    /// Stops reading output that others than the container's process may go on
    /// writing. Returns how many bytes the log lacks, over the whole life.
    pub fn leave_output(&mut self) -> u64 {
        self.retire(Stream::Stdout);
        self.retire(Stream::Stderr);
        self.close_output()
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

    /// Tells the poller which readiness is waited for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn settle<N: Name + From<Watched>>(&mut self, poller: &Poller<N>) -> io::Result<()> {
        for fd in self.retired.drain(..) {
            poller.remove(&fd);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.watch_output(stream, poller)?;
        }
        self.watch_log(poller)?;
        self.input.settle(poller)?;
        self.clients
            .settle(poller, self.input.is_busy(), self.ending && !self.is_open())
    }

    /// Watched only while a block can be taken: end of file, or a terminal
    /// that nobody has open, would be reported without end.
    fn watch_output<N: Name + From<Watched>>(
        &mut self,
        stream: Stream,
        poller: &Poller<N>,
    ) -> io::Result<()> {
        let wanted = self.block.is_none() && !(self.hung_up.is_some() && stream == Stream::Stdout);
        let watched = &mut self.watched[stream.index()];
        if let Some(fd) = &self.streams[stream.index()]
            && wanted != *watched
        {
            if wanted {
                let name = N::from(Watched::Output(stream));
                poller.add(fd, name, EventFlags::IN)?;
            } else {
                poller.remove(fd);
            }
            *watched = wanted;
        }
        Ok(())
    }

    fn watch_log<N: Name + From<Watched>>(&mut self, poller: &Poller<N>) -> io::Result<()> {
        let wanted = self.is_log_full();
        if let Some(fd) = self.log.waits_for()
            && wanted != self.log_watched
        {
            if wanted {
                poller.add(fd, N::from(Watched::Log), EventFlags::OUT)?;
            } else {
                poller.remove(fd);
            }
            self.log_watched = wanted;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
