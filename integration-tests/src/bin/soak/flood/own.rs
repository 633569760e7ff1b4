//! Through teu's own face: to clients that are attached, and to a log on a full disk,
//! which the container waits for, or does not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::disk::{Disk, Entries};
use super::sequence::Sequence;
use super::{Memory, PACE, Verdict, clients};
use teu_integration_tests::{Outcome, Scene};

/// Digits of a number, which with its newline is a hundred bytes.
const WIDTH: usize = 99;
/// Counts, as quickly as it may.
const COUNT: &str = r#"exec awk 'BEGIN { for (i = 1; ; i++) printf "%099.0f\n", i }'"#;
/// Counts, ten thousand lines at a time, at about 10 MB/s.
const COUNT_SLOWLY: &str = r#"i=1; while :; do
	awk -v a=$i 'BEGIN { for (i = a; i < a + 10000; i++) printf "%099.0f\n", i }'
	i=$((i + 10000)); sleep 0.08
done"#;

/// A container that counts, its data where `root` says.
struct Counting<'a> {
    scene: &'a Scene,
    root: PathBuf,
    folder: PathBuf,
}

impl<'a> Counting<'a> {
    fn start(scene: &'a Scene, root: PathBuf, flags: &[&str], script: &str) -> (Self, Memory) {
        scene.busybox("busybox");
        let mut counting = Self {
            scene,
            root,
            folder: PathBuf::new(),
        };
        if counting.root != scene.data() {
            let store = counting.root.join("store").display().to_string();
            scene.shell(&format!(
                "{} --root {store} import busybox.tar busybox >/dev/null",
                teu_integration_tests::binary("teu-store").display()
            ));
        }
        let cgroup = scene.cgroup();
        let usual = ["run", "-d", "--cgroup-parent", &cgroup, "--network", "none"];
        let program = ["busybox", "sh", "-c", script];
        let id = counting.teu(&[&usual, flags, &program].concat()).succeeds();
        counting.folder = counting.root.join("containers").join(id.trim());
        let memory = Memory::of(counting.supervisor());
        (counting, memory)
    }

    fn teu(&self, words: &[&str]) -> Outcome {
        let (root, state) = (self.root.display(), self.scene.state());
        let places = [root.to_string(), state.display().to_string()];
        let global = ["--root", &places[0], "--state", &places[1]];
        let program = teu_integration_tests::binary("teu").display().to_string();
        self.scene.run(&program, [&global, words].concat())
    }

    fn id(&self) -> &str {
        self.folder
            .file_name()
            .and_then(|name| name.to_str())
            .expect("an id")
    }

    fn inspect(&self) -> Value {
        let shown = self.teu(&["inspect", self.id()]).succeeds();
        serde_json::from_str::<Value>(&shown).expect("JSON")[0].take()
    }

    fn supervisor(&self) -> u32 {
        let pid = self.inspect()["state"]["supervisor_pid"].as_u64();
        pid.and_then(|pid| pid.try_into().ok()).expect("a pid")
    }

    fn leave(self) {
        self.teu(&["rm", "-f", self.id()]).succeeds();
    }
}

pub(super) fn by_client(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: teu's clients");
    let flags = ["--log-size", "16m"];
    let (counting, mut memory) = Counting::start(&scene, scene.data(), &flags, COUNT);
    let (case, folder) = ("teu's client", counting.folder.clone());
    clients::flood(verdict, case, &folder, WIDTH, time, &mut memory);
    counting.leave();
}

/// MiB of a disk that holds the store, too.
const DISK_MEBIBYTES: u32 = 24;

pub(super) fn by_file(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: teu's full disk");
    let disk = Disk::mount(&scene, DISK_MEBIBYTES);
    let (counting, mut memory) = Counting::start(&scene, disk.path("data"), &[], COUNT);
    let (mut sequence, mut entries) = (Sequence::padded(WIDTH), Entries::default());
    let take = |bytes: &[u8]| entries.take(bytes, &mut sequence);
    let in_order = disk.empty_for(&counting.folder.join("log"), time, &mut memory, take);
    let case = "teu's full disk";
    disk.tell(
        verdict,
        case,
        &sequence,
        time,
        in_order && entries.notes == 0,
    );
    memory.judge(verdict, case);
    counting.leave();
}

pub(super) fn by_file_that_drops(verdict: &mut Verdict, time: Duration) {
    let scene = Scene::new("soak: teu drops");
    let disk = Disk::mount(&scene, DISK_MEBIBYTES);
    let flags = ["--log-full", "drop"];
    let (counting, mut memory) = Counting::start(&scene, disk.path("data"), &flags, COUNT_SLOWLY);
    let log = counting.folder.join("log");
    let (mut sequence, mut entries) = (Sequence::padded(WIDTH), Entries::default());
    let begin = Instant::now();
    let mut in_order = true;
    while begin.elapsed() < time && in_order {
        // Full for a second, so that something is dropped.
        let (mut taken, until) = (false, Duration::from_secs(1));
        in_order = disk.empty_for(&log, until, &mut memory, |bytes| {
            std::thread::sleep(Duration::from_secs(1));
            taken = true;
            entries.take(bytes, &mut sequence)
        });
    }
    // So that the last loss, too, can be said.
    disk.resize(4 * DISK_MEBIBYTES);
    counting.teu(&["stop", "-t", "0", counting.id()]).succeeds();
    in_order &= entries.take(&rest(&log), &mut sequence);
    let told = counting.inspect()["state"]["exit"]["log_dropped_bytes"].as_u64();
    let (bytes, dropped, notes) = (sequence.bytes, entries.dropped, entries.notes);
    println!(
        "  teu drops: {bytes} bytes logged, {dropped} dropped in {notes} notes, {told:?} told at the end"
    );
    let pace = (bytes + dropped) / time.as_secs();
    verdict.check(
        pace > PACE / 2,
        format!("teu drops: the container goes on ({pace} bytes a second)"),
    );
    verdict.check(
        in_order && dropped > 0 && told == Some(dropped),
        "teu drops: what is dropped is counted, and said where it lacks",
    );
    memory.judge(verdict, "teu drops");
    counting.leave();
}

/// What a log still holds.
fn rest(log: &Path) -> Vec<u8> {
    std::fs::read(log).expect("read the log")
}
