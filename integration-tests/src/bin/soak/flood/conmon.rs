//! Through conmon's face: to clients that are attached, and to a log on a full disk.

use std::time::Duration;

use super::disk::{Disk, Entries};
use super::sequence::Sequence;
use super::{Memory, Verdict, clients};
use teu_integration_tests::Scene;
use teu_integration_tests::shim::Cost;

/// Digits of a number, which with its newline is a hundred bytes.
const WIDTH: usize = 99;
/// A runtime whose container is a plain process that counts.
const RUNTIME: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --pid-file) pid=$2 ;; esac; shift; done
setsid seq -f %099.0f 1 100000000000 </dev/null &
echo $! >"$pid"
"#;

/// A monitor of a container that counts.
struct Monitor<'a> {
    scene: &'a Scene,
    pid: u32,
}

impl<'a> Monitor<'a> {
    fn start(scene: &'a Scene, log: &str) -> (Self, Memory) {
        scene.write("runtime", RUNTIME);
        scene.shell("chmod +x runtime; mkdir bundle");
        let at = |name: &str| scene.path(name).display().to_string();
        let words = format!(
            "-c soak -u soak -r {} -b {} -p {} -P {} --full-attach -l {log} --no-sync-log",
            at("runtime"),
            at("bundle"),
            at("pid"),
            at("monitor"),
        );
        scene.run("teu-shim", words.split_whitespace()).succeeds();
        let monitor = Self {
            scene,
            pid: number(scene, "monitor"),
        };
        std::thread::sleep(Duration::from_millis(200));
        let memory = Memory::of(monitor.pid);
        (monitor, memory)
    }

    fn leave(self) {
        let container = number(self.scene, "pid");
        self.scene.shell(&format!("kill -9 {container}"));
        let gone = || Cost::of(self.pid).rss == 0;
        self.scene.wait_until("the monitor has left", gone);
    }
}

fn number(scene: &Scene, file: &str) -> u32 {
    let text = std::fs::read_to_string(scene.path(file)).expect("read a pid");
    text.trim().parse().expect("a pid")
}

pub(super) fn by_client(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: the monitor's clients");
    let (monitor, mut memory) = Monitor::start(&scene, "none");
    let bundle = scene.path("bundle");
    let case = "monitor's client";
    clients::flood(verdict, case, &bundle, WIDTH, time, &mut memory);
    monitor.leave();
}

pub(super) fn by_file(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: the monitor's full disk");
    let disk = Disk::mount(&scene, 16);
    let log = disk.path("log");
    let (monitor, mut memory) = Monitor::start(&scene, &format!("k8s-file:{}", log.display()));
    let (mut sequence, mut entries) = (Sequence::padded(WIDTH), Entries::default());
    let take = |bytes: &[u8]| entries.take(bytes, &mut sequence);
    let in_order = disk.empty_for(&log, time, &mut memory, take);
    let case = "monitor's full disk";
    disk.tell(
        verdict,
        case,
        &sequence,
        time,
        in_order && entries.notes == 0,
    );
    memory.judge(verdict, case);
    monitor.leave();
}
