//! Through containerd's face, to fifos and files.

use std::io::Read as _;
use std::time::Duration;

use super::disk::Disk;
use super::sequence::Sequence;
use super::{Memory, PACE, Verdict, read_for};
use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Shim, Streams, fifo, open_reader};

/// A container that counts; its shim's memory at the start.
fn counting<'a>(scene: &'a Scene, stdout: &str) -> (Shim<'a>, Memory) {
    let mut shim = Shim::start(scene, "flood", &["seq", "1", "1000000000000"], |_| {});
    shim.create(&Streams::to(stdout)).expect("create");
    let memory = Memory::of(shim.pid());
    shim.start_process("").expect("start");
    (shim, memory)
}

pub(super) fn by_fifo(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: flood by fifo");
    let out = fifo(scene.path("out"));
    let (shim, mut memory) = counting(&scene, &out.display().to_string());
    let mut sequence = Sequence::new();
    let mut reader = open_reader(&out);
    let mut read = |sequence: &mut Sequence, time, pace, memory: &mut Memory| {
        read_for(|room| reader.read(room), sequence, time, pace, memory)
    };
    let keeping_up = read(&mut sequence, time, PACE, &mut memory);
    let bytes = sequence.bytes;
    println!("  by fifo: {bytes} bytes in {} s", time.as_secs());
    // Hardly reading, dead, back, dead again.
    let short = time / 10;
    let slow = read(&mut sequence, short, 100, &mut memory);
    drop(reader);
    std::thread::sleep(short);
    let mut back = true;
    for _ in 0..10 {
        let mut reader = open_reader(&out);
        let read = |room: &mut [u8]| reader.read(room);
        back &= read_for(read, &mut sequence, short / 10, PACE, &mut memory);
    }
    verdict.check(
        bytes >= time.as_secs() * PACE * 9 / 10,
        "by fifo: 10 MB/s reach a reader that keeps up",
    );
    verdict.check(
        keeping_up && slow && back,
        "by fifo: no byte is lost or moved by slow and dying readers",
    );
    memory.judge(verdict, "by fifo");
    shim.leave();
}

/// On a small disk that is full most of the time; what was read is cut off.
pub(super) fn by_file(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: flood by file");
    let disk = Disk::mount(&scene, 16);
    let log = disk.path("log");
    let (shim, mut memory) = counting(&scene, &format!("file://{}", log.display()));
    let mut sequence = Sequence::new();
    let in_order = disk.empty_for(&log, time, &mut memory, |bytes| sequence.takes(bytes));
    disk.tell(verdict, "full disk", &sequence, time, in_order);
    memory.judge(verdict, "full disk");
    shim.leave();
}
