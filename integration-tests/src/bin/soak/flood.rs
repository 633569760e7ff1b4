//! Output without end, for readers that are quick enough, slow, dead, and for a full disk.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Verdict;
use super::sequence::Sequence;
use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Cost, Shim, Streams, fifo, open_reader};

/// How much the shim may grow, in KiB.
const GROWTH_MAX_KIB: u64 = 1024;
/// The pace of the reader that keeps up, in bytes a second.
const PACE: u64 = 10 << 20;

pub(crate) fn run(quick: bool) -> Verdict {
    let seconds = if quick { 5 } else { 600 };
    let mut verdict = Verdict::default();
    by_fifo(&mut verdict, Duration::from_secs(seconds));
    by_file(&mut verdict, Duration::from_secs(seconds / 5 + 1));
    verdict
}

/// A container that counts; its shim's pid and cost at the start.
fn counting<'a>(scene: &'a Scene, stdout: &str) -> (Shim<'a>, u32, Cost) {
    let mut shim = Shim::start(scene, "flood", &["seq", "1", "1000000000000"], |_| {});
    shim.create(&Streams::to(stdout)).expect("create");
    let pid = shim.pid();
    let before = Cost::of(pid);
    shim.start_process("").expect("start");
    (shim, pid, before)
}

/// Reads at a pace; whether all was in order. `worst` is the highest cost seen.
fn read_for(
    reader: &mut File,
    sequence: &mut Sequence,
    time: Duration,
    pace: u64,
    (pid, worst): (u32, &mut Cost),
) -> bool {
    let begin = Instant::now();
    let (mut taken, mut block) = (0, vec![0; 64 << 10]);
    let mut sampled = begin;
    while begin.elapsed() < time {
        if sampled.elapsed() > Duration::from_secs(1) {
            sampled = Instant::now();
            let cost = Cost::of(pid);
            worst.rss = worst.rss.max(cost.rss);
            worst.private = worst.private.max(cost.private);
        }
        let due = (begin.elapsed().as_secs_f64() * pace as f64) as u64;
        let most = usize::try_from(due.saturating_sub(taken))
            .unwrap_or(0)
            .min(block.len());
        match reader.read(&mut block[..most]) {
            Ok(len @ 1..) => {
                taken += len as u64;
                if !sequence.takes(&block[..len]) {
                    return false;
                }
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    true
}

fn by_fifo(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: flood by fifo");
    let out = fifo(scene.path("out"));
    let (shim, pid, before) = counting(&scene, &out.display().to_string());
    let mut worst = before;
    let mut sequence = Sequence::new();
    let mut reader = open_reader(&out);
    let keeping_up = read_for(&mut reader, &mut sequence, time, PACE, (pid, &mut worst));
    let bytes = sequence.bytes;
    println!("  keeping up: {bytes} bytes in {} s", time.as_secs());
    // Hardly reading, dead, back, dead again.
    let short = time / 10;
    let slow = read_for(&mut reader, &mut sequence, short, 100, (pid, &mut worst));
    drop(reader);
    std::thread::sleep(short);
    let mut back = true;
    for _ in 0..10 {
        let mut reader = open_reader(&out);
        back &= read_for(
            &mut reader,
            &mut sequence,
            short / 10,
            PACE,
            (pid, &mut worst),
        );
    }
    println!(
        "  at first {before}, at worst RSS {} KiB, private {} KiB",
        worst.rss, worst.private
    );
    verdict.check(
        bytes >= time.as_secs() * PACE * 9 / 10,
        "10 MB/s reach a reader that keeps up",
    );
    verdict.check(
        keeping_up && slow && back,
        "no byte is lost or moved by slow and dying readers",
    );
    verdict.check(
        worst.rss <= before.rss + GROWTH_MAX_KIB,
        "the shim grows by less than 1 MiB",
    );
    shim.leave();
}

/// On a small disk that is full most of the time; what was read is cut off.
fn by_file(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: flood by file");
    let disk = scene.path("disk");
    std::fs::create_dir(&disk).expect("make a folder");
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", none, Some(c"size=4m")).expect("mount a tmpfs");
    let log = disk.join("log");
    let (shim, pid, before) = counting(&scene, &format!("file://{}", log.display()));
    let mut worst = before;
    let mut sequence = Sequence::new();
    let mut in_order = true;
    let begin = Instant::now();
    while begin.elapsed() < time && in_order {
        std::thread::sleep(Duration::from_millis(700));
        in_order = take_and_empty(&log, &mut sequence);
        let cost = Cost::of(pid);
        worst.rss = worst.rss.max(cost.rss);
    }
    println!(
        "  full disk: {} bytes in {} s, RSS {} -> {} KiB",
        sequence.bytes,
        time.as_secs(),
        before.rss,
        worst.rss
    );
    verdict.check(
        in_order && sequence.bytes > 0,
        "no byte is lost while a disk is full",
    );
    verdict.check(
        worst.rss <= before.rss + GROWTH_MAX_KIB,
        "the shim does not grow while a disk is full",
    );
    shim.leave();
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::empty()).expect("unmount");
}

/// Checks a full file's content and empties it. It is full, so nobody writes meanwhile: what is
/// appended comes after the retry interval.
fn take_and_empty(log: &Path, sequence: &mut Sequence) -> bool {
    let Ok(mut file) = File::options().read(true).write(true).open(log) else {
        return true;
    };
    let mut content = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut content));
    let full = read.is_ok_and(|len| len >= 4 << 20);
    if !full {
        return true;
    }
    sequence.takes(&content) && file.set_len(0).is_ok()
}
