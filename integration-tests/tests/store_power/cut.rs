//! Cuts of the power at moments of a recording.

use super::peers::Registry;
use super::{STEPS, images, step};
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeMap;
use std::path::Path;
use teu_integration_tests::disk::{Recorder, Recording};
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// At how many moments the gate cuts, each back-end.
const POINTS: usize = 50;
/// Large enough for all the steps, in MiB.
const DISK_MIB: usize = 64;
/// Nothing that ext4 does for programs that forget fsync(2); data may reach the disk after what speaks of it.
const OPTIONS: &str = "loop,noauto_da_alloc,data=writeback";

/// What each name of a store means.
type Names = BTreeMap<String, String>;

/// A life of a store, and what its names meant after each step.
struct Life {
    recording: Recording,
    after: Vec<Names>,
}

fn points() -> usize {
    std::env::var("TEU_POWER_POINTS").map_or(POINTS, |text| text.parse().unwrap())
}

/// Numbers that look random and are the same for the same seed (xorshift64).
struct Luck(u64);

impl Luck {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// Mounts the file system of `disk`, the store's.
fn mount(scene: &Scene, disk: &Path) {
    scene
        .run(
            "mount",
            ["-o".as_ref(), OPTIONS.as_ref(), disk, &scene.data()],
        )
        .succeeds();
}

fn unmounted(scene: &Scene) {
    unmount(scene.data(), UnmountFlags::empty()).unwrap();
}

struct Store<'s> {
    scene: &'s Scene,
    backend: &'static str,
}

impl Store<'_> {
    fn does<S: AsRef<str>>(&self, words: &[S]) -> String {
        let words = words.iter().map(AsRef::as_ref);
        let words = ["--backend", self.backend].into_iter().chain(words);
        self.scene.run("teu-store", words).succeeds()
    }

    fn names(&self) -> Names {
        let lines = self.does(&["images", "--format", "{name} {manifest}"]);
        let pairs = lines.lines().filter_map(|line| line.split_once(' '));
        let pairs = pairs.filter(|(name, _)| !name.is_empty() && !name.starts_with('<'));
        pairs
            .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
            .collect()
    }
}

fn record(scene: &Scene, backend: &'static str, remote: &str) -> Life {
    let blank = scene.path("blank");
    scene.shell(&format!(
        "mkdir -p data && rm -f blank disk && truncate -s {DISK_MIB}M blank && mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard blank && touch disk"
    ));
    let disk = scene.path("disk");
    let recorder = Recorder::start(&disk, std::fs::read(blank).unwrap()).unwrap();
    mount(scene, &disk);
    let store = Store { scene, backend };
    let mut after = vec![Names::new()];
    for words in STEPS {
        store.does(&step(words, remote));
        recorder.mark().unwrap();
        after.push(store.names());
    }
    unmounted(scene);
    let recording = recorder.finish().unwrap();
    Life { recording, after }
}

/// The names are those of before the step that was under way, or of after it.
fn check_names(found: &Names, before: &Names, after: &Names, moment: &str) {
    for name in found.keys().chain(before.keys()).chain(after.keys()) {
        let means = found.get(name);
        assert!(
            means == before.get(name) || means == after.get(name),
            "{moment}: {name} means {means:?}"
        );
    }
}

/// Everything that must hold of the store that is mounted.
fn check(store: &Store<'_>, before: &Names, after: &Names, moment: &str) {
    let scene = store.scene;
    let verified = scene.run("teu-store", ["--backend", store.backend, "verify", "-q"]);
    assert_eq!(verified.code(), 0, "{moment}: {verified}");
    check_names(&store.names(), before, after, moment);
    store.does(&["import", "-q", "oci", "next"]);
    store.does(&["gc"]);
    let verified = scene.run("teu-store", ["--backend", store.backend, "verify", "-q"]);
    assert_eq!(verified.code(), 0, "{moment}, then gc: {verified}");
    // A file that was to be renamed next is left for a day, in case its writer is only slow.
    scene.shell("find data/store/tmp -maxdepth 1 -type f -exec touch -d '2 days ago' {} +");
    store.does(&["prune", "--all"]);
    let left = scene.shell(
        "cd data/store && find blobs tars index dirs images layers packed refs roots tmp -mindepth 1 ! -path '*/sha256' ! -path '*/sha512'",
    );
    assert_eq!(left, "", "left after {moment}");
}

fn cut_everywhere(scene: &Scene, backend: &'static str, remote: &str) {
    let life = record(scene, backend, remote);
    let (events, points) = (life.recording.len(), points());
    // In memory, where it can be: the disk below is not what is tested.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let image = folder.as_ref().unwrap().path().join("disk");
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut luck = Luck(seed);
    let mut replay = life.recording.replay();
    let store = Store { scene, backend };
    for point in 0..points {
        let at = events * point / points + luck.below(events.div_ceil(points));
        let at = at.min(events);
        let done = replay.advance(at);
        // All that was not flushed is lost, or came to the disk all the same, or some of it.
        let share = [0, 16, 8, 1, 15][point % 5];
        replay.cut(&image, || luck.below(16) < share).unwrap();
        mount(scene, &image);
        let moment = format!(
            "{backend}, event {at} of {events}, after step {done}, {share} sixteenths of what was not flushed, seed {seed}"
        );
        let after = &life.after[(done + 1).min(STEPS.len())];
        check(&store, &life.after[done], after, &moment);
        unmounted(scene);
    }
    eprintln!(
        "{backend}: {points} cuts in {events} events, {} of them flushes",
        life.recording.flushes()
    );
}

fn power_goes(backend: &'static str) {
    let scene = Scene::new(&format!("power cut on {backend}"));
    needs_root!(scene, "a disk of its own needs root");
    for needed in ["mkfs.ext4", "umoci", "skopeo", "docker-registry"] {
        skip_unless!(scene, !missing_command(needed), "{needed} is missing");
    }
    skip_unless!(
        scene,
        Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists(),
        "no FUSE, or no loop devices"
    );
    images(&scene);
    let registry = Registry::http(&scene);
    let remote = registry.name("team/x:1");
    scene.shell(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:oci:x docker://{remote}"
    ));
    // A thread of its own, since its mount namespace is: with it all ends that it mounts.
    std::thread::scope(|threads| {
        let cuts = threads.spawn(|| cut_everywhere(&scene, backend, &remote));
        cuts.join()
    })
    .unwrap();
}

#[test]
fn the_power_goes_at_any_moment_with_views() {
    power_goes("erofs");
}

#[test]
fn the_power_goes_at_any_moment_with_directories() {
    power_goes("directory");
}
