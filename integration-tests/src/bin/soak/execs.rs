//! Ten thousand processes, one after another, in one container; and a thousand side by side.

use std::time::{Duration, Instant};

use super::Verdict;
use teu_integration_tests::Scene;
use teu_integration_tests::shim::messages::{Empty, ProcessRequest, ResizeRequest};
use teu_integration_tests::shim::{Cost, Shim, Streams, fifo, open_reader};

/// How much the shim may grow after its first hundred, in KiB.
const GROWTH_MAX_KIB: u64 = 256;

pub(crate) fn run(quick: bool) -> Verdict {
    let count: u32 = if quick { 300 } else { 10_000 };
    let scene = Scene::new("soak: execs");
    let mut shim = Shim::start(&scene, "execs", &["sleep", "1000000"], |_| {});
    shim.create(&Streams::default()).expect("create");
    shim.start_process("").expect("start");
    let pid = shim.pid();
    let out = fifo(scene.path("out"));
    let streams = Streams::to(out.display());
    let mut wrong = 0;
    let mut before = Cost::of(pid);
    let begin = Instant::now();
    for n in 0..count {
        let name = format!("e{n}");
        let script = format!("exit {}", n % 250);
        let _reader = open_reader(&out);
        shim.exec(&name, &["sh", "-c", &script], &streams)
            .expect("exec");
        shim.start_process(&name).expect("start");
        let status = shim.wait(&name).expect("wait");
        let deleted = shim.delete(&name).expect("delete").exit_status;
        wrong += u32::from(status != n % 250 || deleted != status);
        if n == 100 {
            before = Cost::of(pid);
        }
    }
    let each = begin.elapsed() / count;
    let resized = resize_often(&mut shim, count);
    // The last call of the runtime may not have been reaped.
    std::thread::sleep(Duration::from_millis(200));
    let after = Cost::of(pid);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default().split_whitespace().count();
    println!("  {count} execs, {each:?} each; after 100: {before}; at the end: {after}");
    let mut verdict = Verdict::default();
    verdict.check(resized, format!("a terminal is resized {count} times"));
    verdict.check(wrong == 0, format!("{count} execs have their own status"));
    verdict.check(
        after.descriptors == before.descriptors,
        "execs leave no descriptor",
    );
    verdict.check(
        after.rss <= before.rss + GROWTH_MAX_KIB,
        "execs leave no memory",
    );
    verdict.check(children == 1, "execs leave no zombie");
    shim.leave();
    verdict
}

/// How much dearer a call may be for those that live beside the process that it is about.
const DEARER_MAX: f64 = 2.0;
/// Calls that are counted together: the kernel counts time in hundredths of a second.
const CALLS: u32 = 20_000;

/// Many processes that live at once: a call about one of them costs what it costs alone.
pub(crate) fn beside(quick: bool) -> Verdict {
    let count: u32 = if quick { 100 } else { 1_000 };
    let mut verdict = Verdict::default();
    let scene = Scene::new("soak: execs side by side");
    let mut shim = Shim::start(&scene, "beside", &["sleep", "1000000"], |_| {});
    shim.create(&Streams::default()).expect("create");
    shim.start_process("").expect("start");
    let pid = shim.pid();
    let alone = a_call(&mut shim, pid);
    let log = scene.path("log");
    let streams = Streams::to(format!("file://{}", log.display()));
    let begin = Instant::now();
    for n in 0..count {
        let name = format!("e{n}");
        shim.exec(&name, &["sleep", "1000000"], &streams)
            .expect("exec");
        shim.start_process(&name).expect("start");
    }
    let each = begin.elapsed() / count;
    let among = a_call(&mut shim, pid);
    let cost = Cost::of(pid);
    println!(
        "  {count} execs at once, {each:?} each; a call takes {alone:?} of the processor alone, {among:?} among them; {cost}"
    );
    let bound = alone.mul_f64(DEARER_MAX) + Duration::from_micros(5);
    verdict.check(among <= bound, "a call costs as much among many as alone");
    let begin = Instant::now();
    shim.kill("", 9).expect("kill");
    let ended = shim.wait("");
    let told = (0..count).filter(|n| shim.wait(&format!("e{n}")) == Ok(137));
    let told = told.count();
    println!(
        "  all have ended, and are asked for, in {:?}",
        begin.elapsed()
    );
    verdict.check(
        ended == Ok(137) && told == count as usize,
        format!("the ends of {told} of {count} are told"),
    );
    for n in 0..count {
        shim.delete(&format!("e{n}")).expect("delete");
    }
    shim.leave();
    verdict
}

/// Processor time of the shim for one `State`.
fn a_call(shim: &mut Shim<'_>, pid: u32) -> Duration {
    let before = processor_time(pid);
    for _ in 0..CALLS {
        let request = ProcessRequest {
            id: shim.id.clone(),
            exec_id: String::new(),
        };
        shim.call::<Empty>("State", &request).expect("State");
    }
    (processor_time(pid) - before) / CALLS
}

/// User's and system's time of a process. `proc_pid_stat(5)`
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat of the shim");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// A terminal whose size changes all the time.
fn resize_often(shim: &mut Shim<'_>, count: u32) -> bool {
    let streams = Streams {
        terminal: true,
        ..Streams::default()
    };
    shim.exec("tty", &["sleep", "1000000"], &streams)
        .expect("exec");
    shim.start_process("tty").expect("start");
    let resized = (1..=count).all(|n| {
        let request = ResizeRequest {
            id: shim.id.clone(),
            exec_id: "tty".into(),
            width: n % 500 + 1,
            height: n % 300 + 1,
        };
        shim.call::<Empty>("ResizePty", &request).is_ok()
    });
    shim.kill("tty", 9).expect("kill");
    let _ = shim.wait("tty");
    shim.delete("tty").expect("delete");
    resized
}
