//! What containers write, by fifos and files: with readers that are slow, late or dead.

use std::time::Duration;

use super::all_topics;
use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Cost, Shim, Streams, drain, fifo, open_reader};

const AT_ONCE: u64 = 1 << 40;
const SECOND: Duration = Duration::from_secs(1);
/// How much a shim's memory may grow by any amount of output, in KiB.
const GROWTH_MAX_KIB: u64 = 1024;

/// Lines whose content tells when something is missing, repeated or moved.
fn lines(count: usize) -> String {
    (0..count)
        .map(|n| format!("line {n:>8} of the output\n"))
        .collect()
}

/// The same from inside: 28 bytes a line.
fn print_lines(count: usize) -> String {
    let line = "line %8d of the output\\n";
    format!("awk 'BEGIN {{ for (i = 0; i < {count}; i++) printf(\"{line}\", i) }}'")
}

#[test]
fn a_short_container_says_everything_and_its_events_are_in_order() {
    let scene = Scene::new("shim: short container");
    let script = "echo out; echo err >&2; exit 7";
    let mut shim = Shim::start(&scene, "short", &["sh", "-c", script], |_| {});
    let (out, err) = (fifo(scene.path("out")), fifo(scene.path("err")));
    let mut streams = Streams::to(out.display());
    streams.stderr = err.display().to_string();
    let (mut out, mut err) = (open_reader(&out), open_reader(&err));
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    assert_eq!(drain(&mut out, 10 * SECOND, AT_ONCE), b"out\n");
    assert_eq!(drain(&mut err, 10 * SECOND, AT_ONCE), b"err\n");
    assert_eq!(shim.wait(""), Ok(7));
    assert_eq!(shim.delete("").unwrap().exit_status, 7);
    let events = shim.events.clone();
    let pid = shim.pid();
    shim.shut_down(pid);
    assert_eq!(events.topics(), all_topics(false));
}

/// Who asks for the output only after the end gets it too.
#[test]
fn output_waits_for_a_reader_who_comes_late() {
    let scene = Scene::new("shim: late reader");
    let mut shim = Shim::start(&scene, "late", &["echo", "last words"], |_| {});
    let out = fifo(scene.path("out"));
    shim.create(&Streams::to(out.display())).unwrap();
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    std::thread::sleep(SECOND / 5);
    let mut reader = open_reader(&out);
    assert_eq!(drain(&mut reader, 10 * SECOND, AT_ONCE), b"last words\n");
    shim.leave();
}

/// A reader that dies in the middle, twice, and one that reads slowly: the
/// container waits, nothing is lost, and the shim does not grow or spin.
#[test]
fn slow_and_dying_readers_lose_nothing() {
    let scene = Scene::new("shim: slow reader");
    let count = 150_000;
    let mut shim = Shim::start(&scene, "slow", &["sh", "-c", &print_lines(count)], |_| {});
    let out = fifo(scene.path("out"));
    shim.create(&Streams::to(out.display())).unwrap();
    let pid = shim.pid();
    let before = Cost::of(pid);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    shim.start_process("").unwrap();
    std::thread::sleep(SECOND / 2);
    let idle = ticks();
    std::thread::sleep(SECOND);
    assert!(ticks() - idle <= 2, "the shim spins while nobody reads");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut reader = open_reader(&out);
        seen.extend(drain(&mut reader, SECOND / 4, 1 << 20));
    }
    let mut reader = open_reader(&out);
    seen.extend(drain(&mut reader, SECOND, 1 << 20));
    seen.extend(drain(&mut reader, 60 * SECOND, AT_ONCE));
    assert_eq!(shim.wait(""), Ok(0));
    let after = Cost::of(pid);
    assert!(
        after.rss <= before.rss + GROWTH_MAX_KIB,
        "{before} -> {after}"
    );
    let expected = lines(count);
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected.as_bytes());
    shim.leave();
}

/// A line of 8 MB without end, and all bytes there are.
#[test]
fn long_lines_and_binary_output_arrive_byte_by_byte() {
    let scene = Scene::new("shim: binary output");
    let mut bytes: Vec<u8> = (0..4 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    bytes.extend(vec![b'x'; 8 << 20]);
    let bundle = scene.bundle("binary", &["cat", "/data"], |_| {});
    std::fs::write(bundle.join("rootfs/data"), &bytes).unwrap();
    let mut shim = Shim::start_at(&scene, "binary", bundle);
    let out = fifo(scene.path("out"));
    let mut reader = open_reader(&out);
    shim.create(&Streams::to(out.display())).unwrap();
    let pid = shim.pid();
    let before = Cost::of(pid);
    shim.start_process("").unwrap();
    let seen = drain(&mut reader, 60 * SECOND, AT_ONCE);
    assert!(seen == bytes, "{} bytes of {}", seen.len(), bytes.len());
    let log = scene.path("log");
    let streams = Streams::to(format!("file://{}", log.display()));
    // The container has ended; another one of the same bundle, by a file.
    assert_eq!(shim.wait(""), Ok(0));
    shim.delete("").unwrap();
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    let after = Cost::of(pid);
    shim.delete("").unwrap();
    assert!(std::fs::read(&log).unwrap() == bytes);
    assert!(
        after.rss <= before.rss + GROWTH_MAX_KIB,
        "{before} -> {after}"
    );
    shim.shut_down(pid);
}

/// Both streams and two processes into one file, none over another.
#[test]
fn one_file_takes_the_output_of_several_processes() {
    let scene = Scene::new("shim: one log file");
    let script = "seq 2000; seq 2000 >&2; sleep 1000";
    let mut shim = Shim::start(&scene, "file", &["sh", "-c", script], |_| {});
    let log = scene.path("logs/log");
    let mut streams = Streams::to(format!("file://{}", log.display()));
    streams.stderr = streams.stdout.clone();
    shim.create(&streams).unwrap();
    shim.start_process("").unwrap();
    shim.exec("e", &["seq", "2000"], &streams).unwrap();
    shim.start_process("e").unwrap();
    assert_eq!(shim.wait("e"), Ok(0));
    shim.delete("e").unwrap();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    scene.wait_until("all lines are there", || text().lines().count() == 6000);
    let mut numbers: Vec<u32> = text().lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.chunks(3).zip(1..).all(|(same, n)| same == [n; 3]));
    shim.leave();
}

/// A full disk stops the container until there is room.
#[test]
fn a_full_disk_is_waited_for() {
    let scene = Scene::new("shim: full disk");
    let mut shim = Shim::start(&scene, "full", &["sh", "-c", &print_lines(4000)], |_| {});
    let disk = scene.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let size = Some(c"size=128k");
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", none, size).unwrap();
    std::fs::write(disk.join("hog"), vec![0; 96 << 10]).unwrap();
    shim.create(&Streams::to(format!("file://{}/log", disk.display())))
        .unwrap();
    shim.start_process("").unwrap();
    let size = || std::fs::metadata(disk.join("log")).map_or(0, |meta| meta.len());
    scene.wait_until("the disk is full", || size() >= 32 << 10);
    std::thread::sleep(SECOND);
    std::fs::remove_file(disk.join("hog")).unwrap();
    let expected = lines(4000);
    scene.wait_until("all is written", || size() == expected.len() as u64);
    let log = std::fs::read(disk.join("log")).unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    shim.leave();
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(log == expected.as_bytes());
}

/// Whoever still holds the pipe, or does not read, is not waited for when the
/// container is deleted.
#[test]
fn delete_does_not_wait_for_who_does_not_read() {
    let scene = Scene::new("shim: delete without reader");
    let script = "yes | head -c 1000000";
    let mut shim = Shim::start(&scene, "stuck", &["sh", "-c", script], |_| {});
    let out = fifo(scene.path("out"));
    shim.create(&Streams::to(out.display())).unwrap();
    shim.start_process("").unwrap();
    std::thread::sleep(SECOND / 5);
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), Ok(137));
    let begin = std::time::Instant::now();
    shim.delete("").unwrap();
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    let pid = shim.pid();
    shim.shut_down(pid);
}
