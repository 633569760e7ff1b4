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

    /// Tells the poller which readiness is waited for.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::LogFull;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::time::Duration;

    /// A pump with the container's ends of its standard output and input, and one attached client.
    struct Bench {
        pump: Pump,
        poller: Poller,
        output: Option<OwnedFd>,
        input: OwnedFd,
        client: Option<OwnedFd>,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
            let (out_read, output) = pipe_with(flags).unwrap();
            let (input, sink) = pipe_with(flags).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let log = Log::open(&folder.path().join("log"), LogFull::Block).unwrap();
            let mut pump = Pump::new([Some(out_read), None], Some(sink), true, log);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, client) =
                rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                    .unwrap();
            pump.attach(ours);
            let poller = Poller::new().unwrap();
            let (output, client) = (Some(output), Some(client));
            Self {
                pump,
                poller,
                output,
                input,
                client,
                folder,
            }
        }

        /// Lets everything happen that can happen now.
        fn settle(&mut self) {
            loop {
                self.pump.settle(&self.poller).unwrap();
                let events = self.poller.wait(Some(Duration::ZERO)).unwrap();
                if events.is_empty() {
                    return;
                }
                for (token, flags) in events {
                    match token {
                        Token::Output(stream) => self.pump.read_output(stream),
                        Token::Input => self.pump.input_ready(),
                        Token::Client(id) => self.pump.client_ready(id, flags),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }

        /// Writes as much output as is taken at once; returns how much.
        fn fill(&mut self) -> usize {
            let (mut total, mut idle) = (0, 0);
            while idle < 2 {
                match rustix::io::write(self.output.as_ref().unwrap(), &[b'x'; 4096]) {
                    Ok(n) => (total, idle) = (total + n, 0),
                    Err(_) => idle += 1,
                }
                self.settle();
            }
            total
        }

        /// Reads packets until there are none, or the end.
        fn drain_client(&mut self) -> (usize, bool) {
            let mut total = 0;
            let mut packet = [0; 1 + BLOCK_BYTES];
            loop {
                match rustix::net::recv(
                    self.client.as_ref().unwrap(),
                    &mut packet[..],
                    RecvFlags::empty(),
                ) {
                    Ok((0, _)) => return (total, true),
                    Ok((n, _)) => total += n - 1,
                    Err(_) => return (total, false),
                }
            }
        }
    }

    #[test]
    fn a_slow_client_holds_the_container_back_and_loses_nothing() {
        let mut bench = Bench::new();
        let written = bench.fill();
        assert!(written < 4 << 20, "output piled up: {written}");
        let mut seen = 0;
        loop {
            let (more, _) = bench.drain_client();
            bench.settle();
            if more == 0 {
                break;
            }
            seen += more;
        }
        assert_eq!(seen, written);
    }

    #[test]
    fn an_ended_container_waits_for_no_client() {
        let mut bench = Bench::new();
        let written = bench.fill();
        bench.output = None;
        bench.pump.end();
        bench.settle();
        assert!(!bench.pump.is_open(), "all output is read and logged");
        assert_eq!(bench.pump.close_output(), 0);
        let logged = std::fs::read(bench.folder.path().join("log")).unwrap();
        assert_eq!(logged.iter().filter(|byte| **byte == b'x').count(), written);
        let mut seen = 0;
        while bench.pump.has_clients() {
            seen += bench.drain_client().0;
            bench.settle();
        }
        assert_eq!(seen + bench.drain_client().0, written);
    }

    #[test]
    fn input_of_a_client_that_left_arrives_and_then_ends() {
        let mut bench = Bench::new();
        let client = bench.client.take().unwrap();
        for part in ["one ", "two ", "three"] {
            rustix::net::send(&client, part.as_bytes(), SendFlags::empty()).unwrap();
        }
        // Output that it does not read any more makes a reset of its end.
        rustix::io::write(bench.output.as_ref().unwrap(), b"unread").unwrap();
        bench.pump.settle(&bench.poller).unwrap();
        bench.pump.read_output(Stream::Stdout);
        drop(client);
        bench.settle();
        let mut text = [0; 64];
        let n = rustix::io::read(&bench.input, &mut text[..]).unwrap();
        assert_eq!(&text[..n], b"one two three");
        assert_eq!(
            rustix::io::read(&bench.input, &mut text[..]),
            Ok(0),
            "end of file"
        );
        assert!(!bench.pump.has_clients());
    }
}
