//! Builds that are killed at any moment, and many builds at one store beside a collector: what comes out is what a
//! build alone makes, and nothing stays behind.
//!
//! `TEU_BUILD_KILLS` says how many builds are killed, `TEU_BUILDS` how many run at once; the gate's are few.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use teu_integration_tests::Scene;

/// Builds that are killed in the gate.
const KILLS: usize = 10;
/// Builds at once in the gate.
const BUILDS: usize = 12;
/// Different contexts of the builds at once: some want the same steps at the same moment.
const CONTEXTS: usize = 8;

fn how_many(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Numbers that look random (xorshift64); the seed is printed, so that a run can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// What a build that is over has left in the store, but for small files that were to replace others, such as a name's
/// record: nobody may tell one from one that is being written, so the collector takes it a day later. Here that day is over.
fn unfinished(scene: &Scene) -> String {
    scene.shell("rm -f data/store/tmp/file-*; ls -A data/store/tmp data/store/roots | grep -v : | grep . || true")
}

const KILLED: &str = "FROM busybox AS made\nCOPY files /files\nRUN cat /files/* | md5sum > /sum; sleep 0.05 & sleep 0.1\nRUN mkdir /d && for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/zero > /d/$i; done\nFROM busybox\nWORKDIR /w\nCOPY --from=made /sum /d /w/\nRUN --mount=type=bind,target=/c --mount=type=tmpfs,target=/t cp /c/files/1 /one && touch /t/x\n";

#[test]
fn killed_builds_leave_nothing() {
    let scene = Scene::new("killed builds");
    scene.busybox("busybox");
    scene.write("context/Dockerfile", KILLED);
    for number in 0..50 {
        scene.write(format!("context/files/{number}"), number.to_string());
    }
    let build = ["build", "-q", "-t", "it", "context"];
    let afresh = ["build", "-q", "-t", "it", "--no-cache", "context"];
    let id = scene.run("teu-build", afresh).succeeds();
    // How long a build takes now, in microseconds; others use the machine, too.
    let timed = |words: &[&str], shown: &str| {
        let begin = Instant::now();
        assert_eq!(scene.run("teu-build", words).succeeds(), id, "{shown}");
        u64::try_from(begin.elapsed().as_micros()).unwrap()
    };
    let mut whole = timed(&afresh, "nothing was killed yet");
    let mounts = || scene.shell("grep -c $PWD /proc/self/mountinfo || true");
    let before = (unfinished(&scene), mounts());
    assert_eq!(before.0, "");
    let seed = u64::from(std::process::id()) << 16 | 1;
    let mut numbers = Numbers(seed);
    let mut killed = 0;
    let rounds = how_many("TEU_BUILD_KILLS", KILLS);
    for round in 0..rounds {
        let mut command = scene.command("teu-build", afresh);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let moment = Duration::from_micros(numbers.below(whole));
        std::thread::sleep(moment);
        let is_over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        killed += usize::from(!is_over);
        child.wait().unwrap();
        // Sometimes the next build goes on with what was remembered, sometimes it begins anew.
        let shown = format!("round {round} of seed {seed}, killed after {moment:?}");
        if round % 2 == 0 {
            assert_eq!(scene.run("teu-build", build).succeeds(), id, "{shown}");
        } else {
            whole = timed(&afresh, &shown);
        }
        assert_eq!((unfinished(&scene), mounts()), before, "{shown}");
        assert_eq!(scene.left(), Vec::<String>::new(), "{shown}");
    }
    eprintln!("{killed} builds were killed before their end");
    assert!(killed > rounds / 2);
    scene.run("teu-store", ["gc"]).succeeds();
    scene.run("teu-store", ["verify"]).succeeds();
    assert_eq!(scene.run("teu-build", afresh).succeeds(), id);
}

/// One of the contexts: two steps that all have, one that some have, one of its own.
fn write_context(scene: &Scene, number: usize) {
    let half = number / 2;
    let dockerfile = format!(
        "FROM busybox AS made\nCOPY shared /shared\nRUN cat /shared/* | md5sum > /sum\nRUN echo {half} > /half\nFROM busybox\nCOPY --from=made /sum /half /\nCOPY own /own\nRUN cat /own /half > /both\nLABEL number={number}\n"
    );
    scene.write(format!("c{number}/Dockerfile"), dockerfile);
    for file in 0..20 {
        scene.write(format!("c{number}/shared/{file}"), file.to_string());
    }
    scene.write(format!("c{number}/own"), number.to_string());
}

/// The contexts, and what they start from: an image of `base`, whose files have their times.
fn contexts(name: &str, base: Option<&Scene>) -> Scene {
    let scene = Scene::new(name);
    match base {
        None => scene.busybox("busybox"),
        Some(other) => {
            let tar = other.path("busybox.tar");
            let words = ["import".as_ref(), tar.as_os_str(), "busybox".as_ref()];
            drop(scene.run("teu-store", words).succeeds());
        }
    }
    (0..CONTEXTS).for_each(|number| write_context(&scene, number));
    scene
}

#[test]
fn many_builds_beside_a_collector() {
    let alone = contexts("one build after the other", None);
    let context = |number: usize| format!("c{}", number % CONTEXTS);
    let build = |scene: &Scene, number: usize, name: &str| {
        let context = context(number);
        let named = ["build", "-q", "-t", name, &context];
        let unnamed = ["build", "-q", &context];
        // What has no name may be collected as soon as it is made.
        let words = if number.is_multiple_of(3) {
            &unnamed[..]
        } else {
            &named[..]
        };
        scene
            .run_within(Duration::from_secs(300), "teu-build", words)
            .succeeds()
    };
    let serial: Vec<String> = (0..CONTEXTS)
        .map(|number| build(&alone, number, "it"))
        .collect();
    let scene = contexts("builds at once", Some(&alone));
    let is_over = AtomicBool::new(false);
    let hands = how_many("TEU_BUILDS", BUILDS);
    let (ids, collections) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                drop(scene.run("teu-store", ["gc"]).succeeds());
                count += 1;
            }
            count
        });
        let (scene, build) = (&scene, &build);
        let builds: Vec<_> = (0..hands)
            .map(|hand| scope.spawn(move || build(scene, hand, &format!("it{hand}"))))
            .collect();
        let ids: Vec<_> = builds
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::Relaxed);
        (ids, collector.join().unwrap())
    });
    eprintln!("{hands} builds at once, {collections} collections meanwhile");
    for (hand, id) in ids.into_iter().enumerate() {
        let id = id.unwrap();
        assert_eq!(id, serial[hand % CONTEXTS], "hand {hand}");
        if !hand.is_multiple_of(3) {
            let format = ["inspect", &format!("it{hand}")].map(str::to_owned);
            let shown = scene.run("teu-store", format).succeeds();
            assert!(shown.contains(id.trim()), "{shown}");
        }
    }
    assert_eq!(unfinished(&scene), "");
    scene.run("teu-store", ["verify"]).succeeds();
}
