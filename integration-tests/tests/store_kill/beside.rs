//! Many at one store: pulls of images that share layers, builds, imports, new configurations, bundles, gc. Nobody
//! notices the others, and what many want is fetched once.
//!
//! `TEU_BESIDE=HANDS,SECONDS` says how many hands work for how long: 64,60 is the long run; the gate's is short.

use crate::peers::Registry;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use teu_integration_tests::{Scene, needs_root};

/// Hands and seconds in the gate.
const SHORT: (usize, u64) = (12, 8);
/// Images at the registry for each second: there is always one that nobody has pulled yet.
const IMAGES_A_SECOND: u64 = 1;

fn how_much() -> (usize, u64) {
    let Ok(text) = std::env::var("TEU_BESIDE") else {
        return SHORT;
    };
    let (hands, seconds) = text.split_once(',').unwrap();
    (hands.parse().unwrap(), seconds.parse().unwrap())
}

/// What all hands have before them.
struct Work<'s> {
    scene: &'s Scene,
    /// Images that stay once they are pulled.
    names: Vec<String>,
    begin: Instant,
    length: Duration,
}

impl Work<'_> {
    fn run<S: AsRef<std::ffi::OsStr>>(&self, program: &str, words: &[S]) {
        drop(self.scene.run(program, words).succeeds());
    }

    fn store(&self, words: &[&str]) {
        self.run("teu-store", words);
    }

    /// The image whose turn it is: all who pull, pull the same.
    fn name(&self) -> &str {
        let part = self.begin.elapsed().as_secs_f64() / self.length.as_secs_f64();
        let number = (part * self.names.len() as f64) as usize;
        &self.names[number.min(self.names.len() - 1)]
    }

    /// A build on an image of the registry, every third time with a container.
    fn build(&self, own: &str, round: usize) {
        let step = match round % 3 {
            0 => format!("RUN [\"/bin/busybox\", \"touch\", \"/{round}\"]"),
            _ => format!("COPY Dockerfile /{round}"),
        };
        let folder = format!("context-{own}");
        let text = format!("FROM {}\nENV ROUND={round}\n{step}\n", self.name());
        self.scene.write(format!("{folder}/Dockerfile"), text);
        self.run("teu-build", &["build", "-q", "-t", own, &folder]);
    }

    /// What one hand does, again and again, with names of its own. Every command must succeed.
    fn hand(&self, hand: usize) -> BTreeMap<&'static str, usize> {
        let (own, id) = (format!("own{hand}"), format!("bundle{hand}"));
        let mut rounds = BTreeMap::new();
        let mut round = 0;
        while self.begin.elapsed() < self.length {
            let what = match (hand + round) % 5 {
                0 => {
                    self.store(&["pull", "-q", self.name()]);
                    self.store(&["df"]);
                    "pulls"
                }
                1 => {
                    self.build(&own, round);
                    self.store(&["rmi", &own]);
                    "builds"
                }
                2 => {
                    self.store(&["import", "-q", "shared.tar", &own]);
                    let variable = format!("ROUND={round}");
                    self.store(&["config", &own, &own, "-e", &variable]);
                    let request = ["--id", &id, "--request", "request.json"];
                    let words = [&["bundle", "create"], &request[..], &[&own, &id]].concat();
                    self.store(&words);
                    self.store(&["bundle", "release", &id]);
                    self.store(&["untag", &own]);
                    "bundles"
                }
                3 => {
                    self.store(&["import", "-q", "oci0", &own]);
                    self.store(&["history", &own]);
                    self.store(&["rmi", &own]);
                    "imports"
                }
                _ => {
                    self.store(&["gc"]);
                    "collections"
                }
            };
            *rounds.entry(what).or_insert(0) += 1;
            round += 1;
        }
        rounds
    }
}

/// How often each blob was read from the registry, from its log.
fn reads(scene: &Scene) -> BTreeMap<String, usize> {
    let log = std::fs::read_to_string(scene.path("registry.log")).unwrap();
    let mut reads = BTreeMap::new();
    for line in log
        .lines()
        .filter(|line| line.contains("\"GET ") && line.contains("teu-store"))
    {
        let Some((_, rest)) = line.split_once("/blobs/") else {
            continue;
        };
        let blob = rest.split(' ').next().unwrap().to_owned();
        *reads.entry(blob).or_insert(0) += 1;
    }
    reads
}

#[test]
fn many_hands_at_one_store() {
    let scene = Scene::new("many hands");
    needs_root!(scene, "a registry of its own needs a network of its own");
    let registry = Registry::http(&scene);
    let (hands, seconds) = how_much();
    scene.write("request.json", r#"{"args": ["true"]}"#);
    scene.shell(
        "mkdir -p base/bin && cp /bin/busybox base/bin && head -c 300K /dev/urandom > base/base && tar -C base -cf shared.tar .
        umoci init --layout base-oci && umoci new --image base-oci:x && umoci raw add-layer --image base-oci:x shared.tar",
    );
    let mut names = Vec::new();
    for number in 0..seconds * IMAGES_A_SECOND {
        let name = registry.name(&format!("team/image{number}:1"));
        scene.shell(&format!(
            "mkdir d && head -c 100K /dev/urandom > d/own{number} && tar -C d -cf {number}.tar . && rm -r d
            cp -r base-oci oci{number} && umoci raw add-layer --image oci{number}:x {number}.tar
            skopeo copy -q --dest-tls-verify=false oci:oci{number}:x docker://{name}; test {number} = 0 || rm -r oci{number} {number}.tar"
        ));
        names.push(name);
    }
    let work = Work {
        scene: &scene,
        names,
        begin: Instant::now(),
        length: Duration::from_secs(seconds),
    };
    let mut rounds = BTreeMap::new();
    std::thread::scope(|threads| {
        let work = &work;
        let all: Vec<_> = (0..hands)
            .map(|hand| threads.spawn(move || work.hand(hand)))
            .collect();
        for hand in all {
            for (what, count) in hand.join().unwrap() {
                *rounds.entry(what).or_insert(0) += count;
            }
        }
    });
    for name in &work.names {
        scene.run("teu-store", ["pull", "-q", name]).succeeds();
    }
    let reads = reads(&scene);
    eprintln!(
        "{hands} hands in {seconds} s: {rounds:?}, {} blobs",
        reads.len()
    );
    assert_eq!(rounds.len(), 5);
    // Of each image a layer and the configuration; the layer that all share was imported, or is one more.
    let least = 2 * work.names.len();
    assert!((least..=least + 1).contains(&reads.len()), "{reads:?}");
    assert_eq!(reads.values().max(), Some(&1), "{reads:?}");
    scene.run("teu-store", ["verify", "-q"]).succeeds();
    scene.run("teu-store", ["prune", "--all"]).succeeds();
    // The builder's cache goes, too.
    scene.run("teu-store", ["gc", "--all"]).succeeds();
    let left = scene.shell("cd data/store && find blobs tars index dirs images layers packed refs roots tmp -mindepth 2 ! -type d");
    assert_eq!(left, "");
}
