//! S5 and S28 of the known attacks (`hostile_layers.rs`): somebody who may write where the store unpacks, packs again
//! or removes exchanges directories and files for links to the outside, all the time and in one step each
//! (`renameat2(2)`, `RENAME_EXCHANGE`).
//!
//! What must hold: the outside is as before, nothing of it comes in, and the answer is success or an error with a
//! message.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use teu_integration_tests::{Outcome, Scene, needs_root, tree};

const BACKENDS: [&str; 2] = ["erofs", "directory"];
/// How often something is exchanged and brought back.
const SWAPS: usize = 10_000;
/// After this what was exchanged so far must do: others work on the machine, too.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Exchanges what stands at a random one of the paths that match for a link to the outside, and back; says how often.
const ATTACKER: &str = r#"
import ctypes, glob, os, random, sys, time
libc = ctypes.CDLL(None)
trap, counter, patterns = sys.argv[1].encode(), sys.argv[2], sys.argv[3:]
def exchange(path):
    return libc.renameat2(-100, path, -100, trap, 2) == 0
count, found = 0, []
while True:
    found = [path.encode() for pattern in patterns for path in glob.glob(pattern)]
    random.shuffle(found)
    for path in found[:100]:
        if exchange(path):
            # Long enough to be met, now and then.
            if random.random() < 0.02: time.sleep(random.random() / 200)
            # Where the link was taken away meanwhile, what was there comes back, or goes too.
            if not exchange(path):
                try: os.rename(trap, path)
                except OSError: os.rename(trap, trap + b'.%d' % count)
                os.symlink(os.environb[b'OUTSIDE'], trap)
            count += 1
    with open(counter + '.new', 'w') as file: file.write(str(count))
    os.rename(counter + '.new', counter)
"#;

/// Somebody at work; ended when dropped.
struct Attacker<'s> {
    process: Child,
    scene: &'s Scene,
}

impl<'s> Attacker<'s> {
    fn start(scene: &'s Scene, patterns: &[&str]) -> Self {
        let outside = scene.path("outside");
        scene.shell("rm -rf trap counter; echo 0 > counter; ln -s \"$PWD/outside\" trap");
        let mut command: Command = scene.command("python3", ["-c", ATTACKER]);
        command.arg(scene.path("trap")).arg(scene.path("counter"));
        command.args(patterns.iter().map(|pattern| scene.path(pattern)));
        let process = command
            .env("OUTSIDE", outside)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, scene }
    }

    fn swaps(&self) -> usize {
        let text = std::fs::read_to_string(self.scene.path("counter")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Attacker<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A scene with something outside that is nobody's business, and an image of many small files of every kind.
fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.shell(
        "mkdir outside && echo untouched > outside/secret && mkdir outside/folder && chmod 600 outside/secret && chmod 700 outside outside/folder
        mkdir root && cd root && for d in $(seq 30); do mkdir -p d$d/e && for f in $(seq 8); do echo $f > d$d/f$f; done
        ln -s f1 d$d/s1; ln d$d/f2 d$d/h2; mkfifo d$d/p1; chmod 4711 d$d/f3; chmod 1777 d$d/e; setfattr -n user.x -v y d$d/f4; echo z > d$d/e/secret; done
        chown -Rh 7:8 . && tar --xattrs --xattrs-include='*' --format=pax -cf ../image.tar .",
    );
    scene
}

/// A failure is one line, never a panic or a signal.
fn check_message(outcome: &Outcome) -> bool {
    let message = outcome.stderr.trim();
    assert!(
        outcome.code() < 100 && !message.contains("panicked"),
        "{outcome}"
    );
    assert!(
        outcome.status.success() || message.lines().count() == 1,
        "{outcome}"
    );
    outcome.status.success()
}

/// Does `round` until enough was exchanged; how often, and how many rounds went well.
fn under_attack(
    scene: &Scene,
    patterns: &[&str],
    mut round: impl FnMut(usize) -> bool,
) -> (usize, usize) {
    let attacker = Attacker::start(scene, patterns);
    let before = tree::describe(&scene.path("outside"));
    let begin = Instant::now();
    let (mut rounds, mut good) = (0, 0);
    while attacker.swaps() < SWAPS && begin.elapsed() < TIME_MAX {
        good += usize::from(round(rounds));
        rounds += 1;
        assert_eq!(
            tree::describe(&scene.path("outside")),
            before,
            "round {rounds}"
        );
    }
    let swaps = attacker.swaps();
    assert!(swaps > SWAPS / 100, "only {swaps} exchanges");
    eprintln!(
        "{}: {swaps} exchanges in {rounds} rounds, {good} went well",
        scene.name()
    );
    (rounds, good)
}

#[test]
fn links_that_race_with_an_unpacking() {
    for backend in BACKENDS {
        let scene = scene(&format!("race with unpack on {backend}"));
        needs_root!(scene, "owners of all kinds need root");
        let run =
            |words: &[&str]| scene.run("teu-store", [&["--backend", backend], words].concat());
        run(&["import", "-q", "image.tar", "it"]).succeeds();
        let inner = ["now/rootfs/d*", "now/rootfs/d*/*"];
        under_attack(&scene, &inner, |number| {
            let unpacked = check_message(&run(&["unpack", "it", "now"]));
            scene.shell(&format!("mv now old{number}"));
            unpacked
        });
    }
}

#[test]
fn links_that_race_with_a_packing() {
    for backend in BACKENDS {
        let scene = scene(&format!("race with repack on {backend}"));
        needs_root!(scene, "owners of all kinds need root");
        let run =
            |words: &[&str]| scene.run("teu-store", [&["--backend", backend], words].concat());
        run(&["import", "-q", "image.tar", "it"]).succeeds();
        run(&["unpack", "it", "bundle"]).succeeds();
        let inner = ["bundle/rootfs/d*", "bundle/rootfs/d*/*"];
        let (_, good) = under_attack(&scene, &inner, |number| {
            // Not through what stands there now, and nothing new: the outside is not ours to change either.
            scene.shell("touch -ch bundle/rootfs/d*/f5 2>/dev/null || true");
            let name = format!("new{number}");
            check_message(&run(&["repack", "bundle", &name]))
        });
        eprintln!("{good} packed");
        let leaked = scene.run("grep", ["-rqsa", "untouched", "data"]);
        assert!(
            !leaked.status.success(),
            "the outside's content is in an image"
        );
        run(&["verify", "-q"]).succeeds();
    }
}

/// The store's own folders, as somebody with its owner's rights could attack them.
#[test]
fn links_that_race_with_a_removal() {
    let backend = "directory";
    let scene = scene("race with gc");
    needs_root!(scene, "owners of all kinds need root");
    let run = |words: &[&str]| scene.run("teu-store", [&["--backend", backend], words].concat());
    run(&["images"]).succeeds();
    let inner = [
        "data/store/tmp/*/*/d*",
        "data/store/tmp/*/*/d*/*",
        "data/store/dirs/sha256/*/d*",
    ];
    under_attack(&scene, &inner, |_| {
        // Where it was disturbed, the next one does the rest.
        let taken = check_message(&run(&["import", "-q", "image.tar", "it"]));
        let _ = check_message(&run(&["rmi", "-f", "it"]));
        let _ = check_message(&run(&["gc"]));
        taken
    });
    let _ = run(&["rmi", "-f", "it"]);
    run(&["gc"]).succeeds();
    assert_eq!(
        scene.shell("find data/store/tmp data/store/dirs -mindepth 2 | wc -l"),
        "0"
    );
}
