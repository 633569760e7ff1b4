//! Programs that take the output.

use super::super::Readiness;
use super::*;

/// Takes both streams apart, and says with a byte that it is ready.
const APART: &str = "cat <&3 >out.log & cat <&4 >err.log & printf x >&5; exec 5>&-; wait";

impl Bench {
    /// The address of a shell script as a logger; it runs in the bench's folder.
    pub(super) fn logger(&self, scheme: &str, script: &str) -> String {
        let script = format!("cd {}; {script}", self.dir.path().display());
        let quoted: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("{scheme}:///bin/sh?-c={quoted}")
    }

    fn with_logger(&self, scheme: &str, script: &str, query: &str) -> Streams {
        let address = self.logger(scheme, script) + query;
        self.open(&Plan::parse(false, "", &address, &address).unwrap())
    }

    /// Runs the loop until the logger's word is there.
    fn wait_ready(&mut self, streams: &mut Streams) -> Readiness {
        let heard = |streams: &Streams| !matches!(streams.readiness(), Readiness::Waiting);
        assert!(self.run(streams, 10 * SECOND, heard), "not ready");
        streams.readiness()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn start(streams: &mut Streams, script: &str) -> Child {
    let ends = streams.child_ends();
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
        .stdin(ends.stdin)
        .stdout(ends.stdout)
        .stderr(ends.stderr);
    let child = command.spawn().unwrap();
    streams.started().unwrap();
    child
}

/// Finishes the streams, and gives how long that took.
fn finish(bench: &mut Bench, streams: &mut Streams) -> Duration {
    let begin = Instant::now();
    streams.finish(begin);
    assert!(bench.run(streams, 20 * SECOND, Streams::is_finished));
    streams.unwatch(&bench.poller);
    begin.elapsed()
}

#[test]
fn a_logger_gets_both_streams_to_the_last_byte() {
    let mut bench = Bench::new();
    for scheme in ["binary", "binary-v2"] {
        let mut streams = bench.with_logger(scheme, APART, "");
        assert!(matches!(bench.wait_ready(&mut streams), Readiness::Ready));
        let mut child = start(&mut streams, "seq 200000; printf error >&2");
        child.wait().unwrap();
        assert!(streams.is_drained(), "nothing passes through the shim");
        let took = finish(&mut bench, &mut streams);
        assert!(took < SECOND, "it ends with the output, unasked: {took:?}");
        assert!(bench.text("out.log").ends_with("199999\n200000\n"));
        assert_eq!(bench.text("out.log").lines().count(), 200_000);
        assert_eq!(bench.text("err.log"), "error");
    }
}

#[test]
fn a_logger_knows_whose_output_it_gets_and_nothing_else() {
    let mut bench = Bench::new();
    let script = "echo $0-$@ >seen; env | sort >>seen; ls /proc/self/fd >>seen; exec 5>&-; cat <&3";
    let mut streams = bench.with_logger("binary", script, "&path=/a%20b&x");
    bench.wait_ready(&mut streams);
    let seen = bench.text("seen");
    assert!(seen.starts_with("path-/a b x\n"), "{seen}");
    assert!(
        seen.contains("\nCONTAINER_ID=one\nCONTAINER_NAMESPACE=default\n"),
        "{seen}"
    );
    assert!(!seen.contains("HOME="), "{seen}");
    assert!(seen.contains("\n3\n4\n5\n"), "{seen}");
    drop(streams);
}

#[test]
fn a_logger_of_version_2_must_say_that_it_is_ready() {
    let mut bench = Bench::new();
    let mut streams = bench.with_logger("binary-v2", "exec 5>&-; sleep 60", "");
    match bench.wait_ready(&mut streams) {
        Readiness::Failed(error) => {
            let text = crate::error::chain(&error);
            assert!(
                text.ends_with("logger \"/bin/sh\" ended before it was ready"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    let took = finish(&mut bench, &mut streams);
    assert!(took < SECOND, "it was killed at once: {took:?}");
    // One of version 1 may end without a word.
    let mut streams = bench.with_logger("binary", "exit 3", "");
    assert!(matches!(bench.wait_ready(&mut streams), Readiness::Ready));
}

#[test]
fn a_logger_that_cannot_be_executed_is_named() {
    let bench = Bench::new();
    let address = format!("binary://{}", bench.address("absent"));
    let plan = Plan::parse(false, "", &address, "").unwrap();
    let context = Context {
        id: "one",
        namespace: "default",
        bundle: bench.dir.path(),
        owner: Owner::default(),
    };
    let error = Streams::open(&plan, &context).unwrap_err();
    let text = crate::error::chain(&error);
    assert!(
        text.starts_with(&format!("execute {:?}: ", bench.path("absent"))),
        "{text}"
    );
}

#[test]
fn a_logger_that_goes_on_is_asked_to_end() {
    let mut bench = Bench::new();
    let script = "trap 'echo asked >seen; exit' TERM; printf x >&5; while :; do sleep 0.05; done";
    let mut streams = bench.with_logger("binary-v2", script, "");
    bench.wait_ready(&mut streams);
    start(&mut streams, "true").wait().unwrap();
    finish(&mut bench, &mut streams);
    assert_eq!(bench.text("seen"), "asked\n");
}

/// Its process is told, as behind containerd's shim: nothing is silently lost.
#[test]
fn who_writes_to_a_dead_logger_is_told() {
    let mut bench = Bench::new();
    let mut streams = bench.with_logger("binary-v2", "printf x >&5; exit", "");
    bench.wait_ready(&mut streams);
    std::thread::sleep(SECOND / 10);
    let mut child = start(&mut streams, "trap '' PIPE; echo x; echo $? >&2; exit 5");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    finish(&mut bench, &mut streams);
    let mut streams = bench.with_logger("binary-v2", "printf x >&5; exit", "");
    bench.wait_ready(&mut streams);
    std::thread::sleep(SECOND / 10);
    let mut child = start(&mut streams, "echo x; exit 5");
    let status = child.wait().unwrap();
    assert_ne!(status.code(), Some(5), "ended by SIGPIPE");
}

/// A process that never came to be leaves no logger behind.
#[test]
fn a_logger_does_not_outlive_streams_that_are_dropped() {
    let mut bench = Bench::new();
    let script = "trap 'echo asked >seen; exit' TERM; printf x >&5; while :; do sleep 0.05; done";
    let mut streams = bench.with_logger("binary-v2", script, "");
    bench.wait_ready(&mut streams);
    drop(streams);
    let until = Instant::now() + 10 * SECOND;
    while bench.text("seen") != "asked\n" {
        assert!(Instant::now() < until);
        std::thread::sleep(SECOND / 50);
    }
}
