use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use super::{Context, Owner, Part, Plan, Streams};
use crate::supervisor::poller::{Name, Poller};

/// The name of a part at the bench's poller.
#[derive(Clone, Copy)]
struct PartName(Part);

impl Name for PartName {
    fn encode(self) -> u64 {
        self.0.code().into()
    }
    fn decode(data: u64) -> Self {
        let code = u8::try_from(data).unwrap();
        Self(Part::from_code(code).unwrap())
    }
}

/// A folder with fifos, and an event loop for one process.
struct Bench {
    dir: tempfile::TempDir,
    poller: Poller<PartName>,
    turns: usize,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out", "err"] {
            rustix::fs::mkfifoat(CWD, dir.path().join(name), Mode::RWXU).unwrap();
        }
        let poller = Poller::new().unwrap();
        Self {
            dir,
            poller,
            turns: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn address(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn open(&self, plan: &Plan) -> Streams {
        let context = Context {
            id: "one",
            namespace: "default",
            bundle: self.dir.path(),
            owner: Owner::default(),
        };
        Streams::open(plan, &context).unwrap()
    }

    /// Streams by fifos and a shell that has them.
    fn shell(&self, plan: &Plan, script: &str) -> (Streams, Child) {
        let mut streams = self.open(plan);
        let ends = streams.child_ends();
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(ends.stdin)
            .stdout(ends.stdout)
            .stderr(ends.stderr)
            .spawn()
            .unwrap();
        streams.started().unwrap();
        (streams, child)
    }

    fn plan(&self, stdin: &str, stdout: &str, stderr: &str) -> Plan {
        let address = |name: &str| match name {
            "" => String::new(),
            name if name.contains("://") => {
                let (scheme, name) = name.split_once("://").unwrap();
                format!("{scheme}://{}", self.address(name))
            }
            name => self.address(name),
        };
        Plan::parse(false, &address(stdin), &address(stdout), &address(stderr)).unwrap()
    }

    /// Runs the loop until `done`, at most `limit`. Whether it was done.
    fn run(
        &mut self,
        streams: &mut Streams,
        limit: Duration,
        mut done: impl FnMut(&Streams) -> bool,
    ) -> bool {
        let until = Instant::now() + limit;
        loop {
            streams.settle(&self.poller, PartName).unwrap();
            if done(streams) {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            let wake = streams.deadline().map_or(until, |at| at.min(until));
            // Short, since `done` may look at something that nobody tells of.
            let patience = wake
                .saturating_duration_since(now)
                .min(Duration::from_millis(20));
            for (PartName(part), _) in self.poller.wait(Some(patience)).unwrap() {
                self.turns += 1;
                streams.ready(part);
            }
            streams.expire(Instant::now());
        }
    }

    fn drain(&mut self, streams: &mut Streams) {
        let drained = self.run(streams, Duration::from_secs(20), Streams::is_drained);
        assert!(drained, "not drained");
        streams.settle(&self.poller, PartName).unwrap();
    }

    /// A client's reading end.
    fn reader(&self, name: &str) -> fs::File {
        fs::File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.path(name))
            .unwrap()
    }
}

/// What is there now.
fn read_now(file: &mut fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = [0; 65536];
    while let Ok(len @ 1..) = file.read(&mut block) {
        bytes.extend_from_slice(&block[..len]);
    }
    bytes
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn output_reaches_the_client_by_fifos() {
    let mut bench = Bench::new();
    let (mut out, mut err) = (bench.reader("out"), bench.reader("err"));
    let plan = bench.plan("", "out", "err");
    let (mut streams, mut child) = bench.shell(&plan, "printf one; printf two >&2");
    bench.drain(&mut streams);
    child.wait().unwrap();
    assert_eq!(read_now(&mut out), b"one");
    assert_eq!(read_now(&mut err), b"two");
    // The end of file, not "nothing now".
    assert_eq!(out.read(&mut [0; 1]).unwrap(), 0);
    streams.finish(Instant::now());
    assert!(streams.is_finished());
    assert_eq!(streams.deadline().into_iter().count(), 1);
}

#[test]
fn both_streams_may_be_appended_to_one_file() {
    let mut bench = Bench::new();
    fs::write(bench.path("log"), "old\n").unwrap();
    let plan = bench.plan("", "file://log", "file://log");
    let (mut streams, mut child) = bench.shell(&plan, "echo one; echo two >&2");
    child.wait().unwrap();
    bench.drain(&mut streams);
    let mut lines: Vec<String> = fs::read_to_string(bench.path("log"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(lines, ["old", "one", "two"]);
}

#[test]
fn a_log_file_is_made_with_its_folders() {
    let mut bench = Bench::new();
    let plan = bench.plan("", "file://a/b/log", "");
    let (mut streams, mut child) = bench.shell(&plan, "echo one; echo lost >&2");
    child.wait().unwrap();
    bench.drain(&mut streams);
    assert_eq!(fs::read(bench.path("a/b/log")).unwrap(), b"one\n");
}

#[test]
fn binary_output_of_eight_megabytes_arrives_byte_by_byte() {
    let mut bench = Bench::new();
    let bytes: Vec<u8> = (0..8 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(bench.path("data"), &bytes).unwrap();
    let script = format!("cat {}", bench.address("data"));
    for stdout in ["out", "file://log"] {
        let mut reader = (stdout == "out").then(|| bench.reader("out"));
        let plan = bench.plan("", stdout, "");
        let (mut streams, mut child) = bench.shell(&plan, &script);
        let mut seen = Vec::new();
        let read = |streams: &Streams| {
            if let Some(reader) = &mut reader {
                seen.extend(read_now(reader));
            }
            streams.is_drained()
        };
        assert!(bench.run(&mut streams, 20 * SECOND, read));
        child.wait().unwrap();
        seen.extend(reader.iter_mut().flat_map(read_now));
        if reader.is_none() {
            seen = fs::read(bench.path("log")).unwrap();
        }
        assert!(seen == bytes, "{stdout}: {} bytes differ", seen.len());
    }
}

/// A client that comes late, reads a little, dies, and comes again: the process
/// waits, and nothing is lost.
#[test]
fn a_reader_may_be_absent_and_come_again() {
    let mut bench = Bench::new();
    let plan = bench.plan("", "out", "");
    let (mut streams, mut child) = bench.shell(&plan, "seq 100000");
    let idle = bench.run(&mut streams, SECOND / 4, Streams::is_drained);
    assert!(!idle, "nobody reads");
    let turns = bench.turns;
    bench.run(&mut streams, SECOND / 4, |_| false);
    assert_eq!(bench.turns, turns, "the loop spins while nobody reads");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut block = [0; 10_000];
        let len = bench.reader("out").read(&mut block).unwrap();
        seen.extend_from_slice(&block[..len]);
        bench.run(&mut streams, SECOND / 10, |_| false);
    }
    let mut reader = bench.reader("out");
    let done = bench.run(&mut streams, 20 * SECOND, |streams| {
        seen.extend(read_now(&mut reader));
        streams.is_drained()
    });
    assert!(done);
    seen.extend(read_now(&mut reader));
    child.wait().unwrap();
    let expected: Vec<u8> = (1..=100_000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    assert!(seen == expected);
}

/// The last words of a short process whose client has not opened the fifo yet.
#[test]
fn complete_output_waits_for_its_reader() {
    let mut bench = Bench::new();
    let plan = bench.plan("", "out", "");
    let (mut streams, mut child) = bench.shell(&plan, "echo last words");
    child.wait().unwrap();
    bench.drain(&mut streams);
    assert!(streams.deadline().is_some(), "it is looked for readers");
    let mut reader = bench.reader("out");
    let closed = |streams: &Streams| streams.deadline().is_none();
    assert!(bench.run(&mut streams, SECOND, closed));
    assert_eq!(read_now(&mut reader), b"last words\n");
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn delete_waits_for_output_only_so_long() {
    let mut bench = Bench::new();
    let plan = bench.plan("", "out", "");
    // Nobody reads, and the fifo and the pipe are full.
    let (mut streams, mut child) = bench.shell(&plan, "head -c 1000000 /dev/zero");
    bench.run(&mut streams, SECOND / 10, |_| false);
    child.kill().unwrap();
    child.wait().unwrap();
    let begin = Instant::now();
    streams.finish(begin);
    assert!(!streams.is_finished());
    assert!(bench.run(&mut streams, 5 * SECOND, Streams::is_finished));
    assert!(begin.elapsed() >= super::DRAIN_LIMIT);
    streams.unwatch(&bench.poller);
}

#[test]
fn input_ends_when_it_is_closed_and_its_writers_are_gone() {
    let mut bench = Bench::new();
    let mut reader = bench.reader("out");
    let plan = bench.plan("in", "out", "");
    let (mut streams, mut child) = bench.shell(&plan, "cat; echo end");
    let write = |bench: &Bench, text: &[u8]| {
        let mut file = fs::File::options()
            .write(true)
            .open(bench.path("in"))
            .unwrap();
        file.write_all(text).unwrap();
        file
    };
    // A client that dies is no end of file.
    drop(write(&bench, b"one "));
    bench.run(&mut streams, SECOND / 10, |_| false);
    assert_eq!(read_now(&mut reader), b"one ");
    let held = write(&bench, b"two ");
    streams.close_stdin().unwrap();
    bench.run(&mut streams, SECOND / 10, |_| false);
    assert_eq!(read_now(&mut reader), b"two ");
    assert!(!streams.is_drained());
    drop(held);
    bench.drain(&mut streams);
    child.wait().unwrap();
    assert_eq!(read_now(&mut reader), b"end\n");
}

#[test]
fn input_that_nobody_reads_any_more_ends_the_fifo() {
    let mut bench = Bench::new();
    let plan = bench.plan("in", "", "");
    let (mut streams, mut child) = bench.shell(&plan, "exec <&-; sleep 0.2");
    let mut client = fs::File::options()
        .write(true)
        .open(bench.path("in"))
        .unwrap();
    std::thread::sleep(SECOND / 10);
    client.write_all(b"x").unwrap();
    bench.run(&mut streams, SECOND / 10, |_| false);
    let error = client.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    child.wait().unwrap();
}

/// A full disk: the process waits, and every byte is written once there is room.
#[test]
fn a_full_disk_blocks_and_loses_nothing() {
    let mut bench = Bench::new();
    let mount = bench.path("disk");
    fs::create_dir(&mount).unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        &mount,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=64k"),
    );
    if let Err(err) = mounted {
        eprintln!("SKIPPED a_full_disk_blocks_and_loses_nothing: mount a tmpfs: {err}");
        return;
    }
    fs::write(mount.join("hog"), vec![0; 32 << 10]).unwrap();
    let plan = bench.plan("", "file://disk/log", "");
    let (mut streams, mut child) = bench.shell(&plan, "head -c 50000 /dev/zero | tr '\\0' x");
    let early = bench.run(&mut streams, SECOND, Streams::is_drained);
    fs::remove_file(mount.join("hog")).unwrap();
    let done = bench.run(&mut streams, 5 * SECOND, Streams::is_drained);
    let log = fs::read(mount.join("log")).unwrap();
    drop(streams);
    child.wait().unwrap();
    rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(!early && done);
    assert!(log == vec![b'x'; 50_000], "{} bytes", log.len());
}

#[test]
fn pipes_belong_to_whom_the_options_say() {
    let bench = Bench::new();
    let owner = Owner {
        uid: 1000,
        gid: 1001,
    };
    let context = Context {
        id: "one",
        namespace: "default",
        bundle: bench.dir.path(),
        owner,
    };
    let plan = bench.plan("in", "out", "");
    let mut streams = Streams::open(&plan, &context).unwrap();
    let ends = streams.child_ends();
    let (mut child, marker) = (Command::new("stat"), "-Lc%u:%g");
    child.args([marker, "/proc/self/fd/0", "/proc/self/fd/1"]);
    child
        .stdin(ends.stdin)
        .stdout(Stdio::piped())
        .stderr(ends.stderr);
    let out = child.output().unwrap();
    let first = String::from_utf8(out.stdout).unwrap();
    assert_eq!(first.lines().next(), Some("1000:1001"));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "").unwrap();
    let context = Context {
        id: "one",
        namespace: "default",
        bundle: bench.dir.path(),
        owner: Owner::default(),
    };
    for (stdin, stdout) in [("absent", ""), ("", "absent"), ("file", "")] {
        let plan = bench.plan(stdin, stdout, "");
        let error = Streams::open(&plan, &context).unwrap_err();
        let name = if stdin.is_empty() { stdout } else { stdin };
        let text = crate::error::chain(&error);
        assert!(text.contains(&bench.address(name)), "{text}");
    }
}

/// Opening it like a log would wait for a reader.
#[test]
fn a_fifo_is_no_log_file() {
    let bench = Bench::new();
    let plan = bench.plan("", "file://out", "");
    let context = Context {
        id: "one",
        namespace: "default",
        bundle: bench.dir.path(),
        owner: Owner::default(),
    };
    assert!(Streams::open(&plan, &context).is_err());
}

#[test]
fn a_plain_file_is_appended_to() {
    let mut bench = Bench::new();
    fs::write(bench.path("file"), "old ").unwrap();
    let plan = bench.plan("", "file", "");
    let (mut streams, mut child) = bench.shell(&plan, "printf new");
    child.wait().unwrap();
    bench.drain(&mut streams);
    assert_eq!(fs::read(bench.path("file")).unwrap(), b"old new");
}

#[test]
fn descriptors_go_with_their_process() {
    let mut bench = Bench::new();
    let _reader = bench.reader("out");
    for _ in 0..3 {
        let plan = bench.plan("in", "out", "err");
        let (mut streams, mut child) = bench.shell(&plan, "true");
        child.wait().unwrap();
        bench.drain(&mut streams);
        streams.finish(Instant::now());
        assert!(streams.is_finished());
        streams.unwatch(&bench.poller);
        drop(streams);
    }
    // Other tests open files meanwhile: what points to this bench's fifos is counted.
    let to_bench = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(bench.dir.path()))
        .count();
    assert_eq!(to_bench, 1, "the reader's alone");
}

mod loggers;
mod terminals;
