//! Terminals, handed over as runtimes do.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, connect, sendmsg, socket,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use super::*;

/// What a runtime does with `--console-socket`: sends a terminal's one end there
/// and gives the other to the process.
fn runtime(socket_path: &Path, script: &str) -> Child {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = ioctl_tiocgptpeer(&master, flags).unwrap();
    let connection = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    connect(&connection, &SocketAddrUnix::new(socket_path).unwrap()).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let name = [IoSlice::new(b"/dev/ptmx")];
    sendmsg(&connection, &name, &mut control, SendFlags::empty()).unwrap();
    let copy = || Stdio::from(peer.try_clone().unwrap());
    Command::new("setsid")
        .args(["--ctty", "--wait", "sh", "-c", script])
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap()
}

impl Bench {
    fn terminal(&self, stdin: &str, stdout: &str, script: &str) -> (Streams, Child) {
        let address = |name: &str| match name {
            "" => String::new(),
            name if name.contains("://") => name.to_owned(),
            name => self.address(name),
        };
        let plan = Plan::parse(true, &address(stdin), &address(stdout), "").unwrap();
        let mut streams = self.open(&plan);
        let child = runtime(streams.console_socket().unwrap(), script);
        streams.started().unwrap();
        (streams, child)
    }
}

#[test]
fn a_terminal_speaks_through_fifos() {
    let mut bench = Bench::new();
    let mut reader = bench.reader("out");
    let (mut streams, mut child) = bench.terminal(
        "in",
        "out",
        "stty -echo; echo ready; read line; echo got $line",
    );
    let mut seen = Vec::new();
    let mut wait_for = |bench: &mut Bench, streams: &mut Streams, text: &str| {
        let done = bench.run(streams, 10 * SECOND, |_| {
            seen.extend(read_now(&mut reader));
            String::from_utf8_lossy(&seen).contains(text)
        });
        assert!(done, "{:?}", String::from_utf8_lossy(&seen));
    };
    // The carriage returns, as a client's raw terminal needs it.
    wait_for(&mut bench, &mut streams, "ready\r\n");
    let mut writer = fs::File::options()
        .write(true)
        .open(bench.path("in"))
        .unwrap();
    writer.write_all(b"hello\n").unwrap();
    wait_for(&mut bench, &mut streams, "got hello\r\n");
    child.wait().unwrap();
    bench.drain(&mut streams);
    assert!(!bench.dir.path().join("console").exists());
    let leftover = fs::read_dir(bench.dir.path()).unwrap().flatten();
    let mut leftover = leftover.map(|entry| entry.file_name().into_string().unwrap());
    assert!(leftover.all(|name| !name.starts_with("console")));
    streams.finish(Instant::now());
    assert!(streams.is_finished());
}

#[test]
fn a_terminal_is_resized() {
    let mut bench = Bench::new();
    let script = format!(
        "cd {}; trap 'stty size >size; exit' WINCH; : >ready; while :; do sleep 0.02; done",
        bench.dir.path().display()
    );
    let (mut streams, mut child) = bench.terminal("", "", &script);
    let ready = bench.path("ready");
    assert!(bench.run(&mut streams, 10 * SECOND, |_| ready.exists()));
    streams.resize(100, 40).unwrap();
    bench.drain(&mut streams);
    child.wait().unwrap();
    assert_eq!(fs::read_to_string(bench.path("size")).unwrap(), "40 100\n");
    // After its end, and without a terminal, nothing happens.
    streams.resize(u32::MAX, 1).unwrap();
    let plan = bench.plan("", "", "");
    bench.open(&plan).resize(1, 1).unwrap();
}

/// What nobody wants must not fill the terminal and stop the program.
#[test]
fn a_terminal_that_nobody_watches_goes_on() {
    let mut bench = Bench::new();
    let (mut streams, mut child) = bench.terminal("", "", "seq 100000");
    bench.drain(&mut streams);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_slow_reader_of_a_terminal_loses_nothing() {
    let mut bench = Bench::new();
    let (mut streams, mut child) = bench.terminal("", "out", "stty -onlcr; seq 50000");
    assert!(!bench.run(&mut streams, SECOND / 4, Streams::is_drained));
    let turns = bench.turns;
    bench.run(&mut streams, SECOND / 4, |_| false);
    assert_eq!(bench.turns, turns, "the loop spins while nobody reads");
    let mut reader = bench.reader("out");
    let mut seen = Vec::new();
    let done = bench.run(&mut streams, 20 * SECOND, |streams| {
        seen.extend(read_now(&mut reader));
        streams.is_drained()
    });
    assert!(done);
    seen.extend(read_now(&mut reader));
    child.wait().unwrap();
    let expected: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected.as_bytes());
}

/// The program of a terminal whose logger died goes on; nobody hangs it up.
#[test]
fn a_terminal_survives_its_logger() {
    let mut bench = Bench::new();
    let address = bench.logger("binary", "head -c 3 <&3 >out.log");
    let (mut streams, mut child) = bench.terminal("", &address, "seq 100000; exit 7");
    bench.drain(&mut streams);
    assert_eq!(child.wait().unwrap().code(), Some(7));
    streams.finish(Instant::now());
    assert!(bench.run(&mut streams, 5 * SECOND, Streams::is_finished));
    assert_eq!(fs::read(bench.path("out.log")).unwrap(), b"1\r\n");
    streams.unwatch(&bench.poller);
}

#[test]
fn a_runtime_that_sends_no_terminal_is_an_error() {
    let bench = Bench::new();
    let plan = Plan::parse(true, "", "", "").unwrap();
    let mut streams = bench.open(&plan);
    let error = crate::error::chain(&streams.started().unwrap_err());
    assert!(error.starts_with("accept the terminal"), "{error}");
}
