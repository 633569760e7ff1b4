use super::super::poller::Token;
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

#[test]
fn a_terminal_that_nobody_has_open_is_looked_at_now_and_then() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    super::super::terminal::set_nonblocking(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let open = || {
        std::fs::File::options()
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
    };
    drop(open());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = Log::open(&path, LogFull::Block).unwrap();
    let mut pump = Pump::new([Some(ours), None], None, false, log);
    pump.is_terminal();
    let mut poller = Poller::<Token>::new().unwrap();
    let mut turn = |pump: &mut Pump| {
        pump.settle(&poller).unwrap();
        let events = poller
            .wait(pump.patience().or(Some(Duration::ZERO)))
            .unwrap();
        for (token, _) in events {
            assert_eq!(token, Token::Output(Stream::Stdout));
            pump.read_output(Stream::Stdout);
        }
        pump.retry();
    };
    let begin = std::time::Instant::now();
    let mut turns = 0;
    while begin.elapsed() < Duration::from_millis(350) {
        turn(&mut pump);
        turns += 1;
    }
    assert!(turns < 20, "{turns} turns for nothing");
    std::io::Write::write_all(&mut open(), b"back\n").unwrap();
    for _ in 0..6 {
        turn(&mut pump);
    }
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("stdout F back")
    );
    pump.end();
    assert!(pump.drain(&mut Left::default()) && !pump.is_open());
}
