//! Registries that fail and registries that lie: one row a fault, each with what must hold.
//!
//! Whatever the fault: the program ends by itself and in time, without a panic; what it
//! has named is whole and right; what it refused has left nothing visible.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]
#![allow(
    clippy::too_many_lines,
    reason = "a table has as many lines as it has rows"
)]

mod access;
mod blobs;
mod content;
mod lists;
mod manifests;
mod uploads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use teu_integration_tests::Scene;
use teu_integration_tests::command::{Outcome, run_limited};
use teu_integration_tests::faulty::{Fault, Faulty, Image, Reply, Request, digest};

/// Longest time that any row may take; rows with silences take some seconds.
const ROW_LIMIT: Duration = Duration::from_secs(60);

/// What must hold.
enum Expect {
    /// It succeeds, and all that is there is right.
    Works,
    /// It fails with these words, and nothing is there.
    Fails(&'static [&'static str]),
    /// Either: the fault may not matter.
    Ends,
}
use Expect::{Ends, Fails, Works};

/// How patient the program is told to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Six attempts, silences of ten seconds.
    Usual,
    /// Six attempts, silences of a second.
    Brisk,
    /// Two attempts, silences of a third of a second.
    Short,
}

/// One fault.
struct Row {
    name: &'static str,
    expect: Expect,
    patience: Patience,
    /// Options besides.
    flags: Vec<String>,
    fault: Fault,
    /// What the other host does.
    elsewhere: Fault,
    /// What must hold of the requests at the registry, and at the other host.
    requests: fn(&[Request], &[Request]),
}

fn row(
    name: &'static str,
    expect: Expect,
    fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Row {
    Row {
        name,
        expect,
        patience: Patience::Usual,
        flags: Vec::new(),
        fault: Box::new(fault),
        elsewhere: Box::new(|_| None),
        requests: |_, _| {},
    }
}

impl Row {
    fn short(mut self) -> Self {
        self.patience = Patience::Short;
        self
    }

    fn brisk(mut self) -> Self {
        self.patience = Patience::Brisk;
        self
    }

    fn with(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }

    fn elsewhere(
        mut self,
        fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        self.elsewhere = Box::new(fault);
        self
    }

    fn requests(mut self, check: fn(&[Request], &[Request])) -> Self {
        self.requests = check;
        self
    }
}

/// The first `times` requests of a kind are answered so, the others honestly.
fn first(
    kind: &'static str,
    times: usize,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    move |request| (request.kind == kind && request.nth < times).then(&reply)
}

/// All requests of a kind are answered so.
fn always(
    kind: &'static str,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    first(kind, usize::MAX, reply)
}

/// Nobody heard of a password.
fn no_password(requests: &[Request]) {
    let told = requests.iter().find(|request| {
        request.header("authorization").is_some() || request.header("cookie").is_some()
    });
    assert!(told.is_none(), "{told:?}");
}

/// A scene with an image to serve.
struct World {
    scene: Scene,
    image: Image,
}

impl World {
    fn new(name: &str) -> Self {
        let scene = Scene::new(name);
        scene.busybox("busybox");
        scene
            .run("teu-store", ["copy", "-q", "busybox", "oci:layout:1"])
            .succeeds();
        let blob = |digest: &str| {
            let name = format!("layout/blobs/sha256/{}", &digest["sha256:".len()..]);
            std::fs::read(scene.path(name)).unwrap()
        };
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(scene.path("layout/index.json")).unwrap())
                .unwrap();
        let manifest = blob(index["manifests"][0]["digest"].as_str().unwrap());
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let image = Image {
            config: blob(parsed["config"]["digest"].as_str().unwrap()),
            layer: blob(parsed["layers"][0]["digest"].as_str().unwrap()),
            manifest,
        };
        Self { scene, image }
    }

    fn run(&self, row: &Row, verb: &str, operands: &[&str]) -> Outcome {
        let patience: &[&str] = match row.patience {
            Patience::Usual => &[
                "--retry-delay",
                "5ms",
                "--stall-limit",
                "10s",
                "--min-rate",
                "100",
            ],
            Patience::Brisk => &[
                "--retry-delay",
                "5ms",
                "--stall-limit",
                "1s",
                "--min-rate",
                "1000",
            ],
            Patience::Short => &[
                "--retry-delay",
                "5ms",
                "--stall-limit",
                "300ms",
                "--min-rate",
                "1000",
                "--retry-times",
                "1",
            ],
        };
        let flags: Vec<&str> = row.flags.iter().map(String::as_str).collect();
        let words = [&[verb], patience, &flags, operands].concat();
        let mut command = self.scene.command("teu-store", words);
        // No file of the machine may matter.
        command
            .env("REGISTRY_AUTH_FILE", self.scene.path("nobody.json"))
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY");
        let began = Instant::now();
        let outcome = run_limited(command, b"", ROW_LIMIT);
        assert!(began.elapsed() < ROW_LIMIT, "{}: took too long", row.name);
        judge(row, outcome)
    }

    /// Pulls from a registry with each fault.
    fn pulls(&self, rows: impl Fn(&World, &Faulty) -> Vec<Row>) -> usize {
        self.scene.write("nobody.json", "{}");
        // What stands at the other host is the row's: so rows are made once for each, by their number.
        let count = rows(self, &Faulty::start(None, Box::new(|_| None))).len();
        each(count, |number| self.pull(&rows, number));
        count
    }

    fn pull(&self, rows: &impl Fn(&World, &Faulty) -> Vec<Row>, number: usize) {
        let other: std::sync::Arc<std::sync::OnceLock<Fault>> = std::sync::Arc::default();
        let script = std::sync::Arc::clone(&other);
        let elsewhere = Faulty::start(
            Some(self.image.clone()),
            Box::new(move |request| script.get().and_then(|fault| fault(request))),
        );
        let mut row = rows(self, &elsewhere).swap_remove(number);
        let _ = other.set(std::mem::replace(&mut row.elsewhere, Box::new(|_| None)));
        let fault = std::mem::replace(&mut row.fault, Box::new(|_| None));
        let registry = Faulty::start(Some(self.image.clone()), fault);
        let _ = std::fs::remove_dir_all(self.scene.store());
        let by_digest = format!(
            "{}/team/app@{}",
            registry.host,
            digest(&self.image.manifest)
        );
        let by_tag = format!("{}/team/app:1", registry.host);
        let name = if row.name.contains("by digest") {
            &by_digest
        } else {
            &by_tag
        };
        let outcome = self.run(&row, "pull", &["-q", name]);
        if outcome.code() == 0 {
            self.is_right(&row);
        } else {
            self.is_empty(&row);
        }
        (row.requests)(&registry.seen(), &elsewhere.seen());
    }

    /// What is named is whole.
    fn is_right(&self, row: &Row) {
        assert_eq!(self.names(), 1, "{}", row.name);
        let verified = self.scene.run("teu-store", ["verify"]);
        assert_eq!(verified.code(), 0, "{}: {verified}", row.name);
        if !row.name.contains("other image") {
            let config = digest(&self.image.config).replace(':', "/");
            let config = self.scene.store().join("blobs").join(config);
            assert!(config.is_file(), "{}", row.name);
        }
    }

    /// Nothing is named, and nothing stays that gc does not remove.
    fn is_empty(&self, row: &Row) {
        assert_eq!(self.names(), 0, "{}", row.name);
        self.scene.run("teu-store", ["gc"]).succeeds();
        for folder in ["blobs/sha256", "blobs/sha512", "tars/sha256", "tmp"] {
            assert_eq!(self.entries(folder), 0, "{}: {folder}", row.name);
        }
    }

    /// How many images have names.
    fn names(&self) -> usize {
        self.entries("refs")
    }

    fn entries(&self, folder: &str) -> usize {
        std::fs::read_dir(self.scene.store().join(folder)).map_or(0, Iterator::count)
    }
}

/// All rows, so that one run tells of every one that does not hold.
fn each(count: usize, row: impl Fn(usize)) {
    let failed = (0..count)
        .filter(|number| catch_unwind(AssertUnwindSafe(|| row(*number))).is_err())
        .count();
    assert_eq!(failed, 0, "so many of {count} rows do not hold");
}

/// Whether it ended as it must.
fn judge(row: &Row, outcome: Outcome) -> Outcome {
    let code = outcome.code();
    assert!(code == 0 || code == 1, "{}: {outcome}", row.name);
    match &row.expect {
        Works => assert_eq!(code, 0, "{}: {outcome}", row.name),
        Fails(words) => {
            assert_eq!(code, 1, "{}: {outcome}", row.name);
            for word in *words {
                assert!(
                    outcome.stderr.contains(word),
                    "{}: no {word:?} in {outcome}",
                    row.name
                );
            }
            assert_eq!(
                outcome.stderr.trim_end().lines().count(),
                1,
                "{}: {outcome}",
                row.name
            );
        }
        Ends => {}
    }
    outcome
}

#[test]
fn manifests() {
    let world = World::new("faults: manifests");
    assert!(world.pulls(manifests::rows) >= 45);
}

#[test]
fn what_documents_say() {
    let world = World::new("faults: content");
    assert!(world.pulls(content::rows) >= 20);
}

#[test]
fn blobs() {
    let world = World::new("faults: blobs");
    assert!(world.pulls(blobs::rows) >= 30);
}

#[test]
fn tokens_passwords_and_redirects() {
    let world = World::new("faults: access");
    assert!(world.pulls(access::rows) >= 20);
}
