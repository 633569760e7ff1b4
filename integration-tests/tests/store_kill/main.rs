//! kill -9 of teu-store before its system calls, and a disk that is full at any of them: afterwards the store is
//! sound, the next command works, and nothing is left that `gc` does not remove.
//!
//! A round is one run of a command, killed (`trace::kill_at`) before one system call of one of its threads, or with
//! one system call failing (strace's fault injection). The rounds go on until one ends undisturbed.
//!
//! `TEU_KILL_STRIDE=N` looks at every N-th system call only; 1 looks at all and takes half an hour. The gate looks at
//! few, and at others in each run.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod beside;
mod full;
#[path = "../peers/mod.rs"]
mod peers;

use peers::Registry;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use teu_integration_tests::trace::{End, Shot, kill_at};
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// Every how many system calls the gate looks.
const STRIDE: usize = 29;
/// Threads of a program beyond these do the same as others.
const THREADS_MAX: usize = 4;
/// The calls that can meet a full disk.
const WRITING: [&str; 14] = [
    "write",
    "pwrite64",
    "openat",
    "mkdir",
    "rename",
    "renameat2",
    "linkat",
    "symlinkat",
    "mknodat",
    "fsync",
    "syncfs",
    "ftruncate",
    "copy_file_range",
    "fsetxattr",
];

/// A store on one back-end.
struct Victim {
    // Ends before its scene does.
    registry: Option<Registry>,
    scene: Scene,
    backend: &'static str,
}

fn stride() -> usize {
    std::env::var("TEU_KILL_STRIDE").map_or(STRIDE, |text| text.parse().unwrap())
}

/// Somewhere in the first stride.
fn offset(stride: usize) -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.subsec_nanos() as usize / 1000 % stride
}

impl Victim {
    fn new(name: &str, backend: &'static str) -> Self {
        let scene = Scene::new(&format!("{name} on {backend}"));
        scene.shell(
            "mkdir -p one/tmp two/tmp && chmod 1777 one/tmp && head -c 5000 /dev/urandom > one/noise && ln one/noise one/hard && echo 2 > two/tmp/file
            tar -C one -cf one.tar . && tar -C two -cf two.tar tmp/file
            umoci init --layout oci && umoci new --image oci:x && umoci raw add-layer --image oci:x one.tar && umoci raw add-layer --image oci:x two.tar",
        );
        let victim = Self {
            registry: None,
            scene,
            backend,
        };
        // What only the first command of a store does (its folders, the probe) is no round's.
        victim.does(&["images"]);
        victim.does(&["import", "-q", "oci", "first"]);
        victim.forget("first");
        victim
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words = [&["--backend", self.backend], arguments].concat();
        let mut command = self.scene.command("teu-store", words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn does(&self, arguments: &[&str]) -> String {
        let words = [&["--backend", self.backend], arguments].concat();
        self.scene.run("teu-store", words).succeeds()
    }

    /// Takes the image's name away, if it is there, and everything with it.
    fn forget(&self, name: &str) {
        let _ = self.command(&["rmi", "-f", name]).status().unwrap();
        // A file that was to be renamed next is left for a day, in case its writer is only slow.
        self.scene
            .shell("find data/store/tmp -maxdepth 1 -type f -exec touch -d '2 days ago' {} +");
        self.does(&["gc"]);
    }

    /// What is there is whole, and goes; `name` may be there or not.
    fn is_sound(&self, name: &str, moment: &dyn std::fmt::Debug) {
        let verified = self
            .scene
            .run("teu-store", ["--backend", self.backend, "verify", "-q"]);
        assert_eq!(verified.code(), 0, "{moment:?}: {verified}");
        self.forget(name);
        let left = self.scene.shell(
            "cd data/store && find blobs tars index dirs images layers packed refs roots tmp -mindepth 1 ! -path '*/sha256' ! -path '*/sha512' ! -name base",
        );
        assert_eq!(left, "", "left after {moment:?}");
        assert!(
            !std::fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains(self.scene.path("data").to_str().unwrap()),
            "mounts after {moment:?}"
        );
    }

    /// Kills `arguments` everywhere. `prepare` comes before each round, `name` is what the command may make.
    fn killed_everywhere(&self, prepare: &dyn Fn(), arguments: &[&str], name: &str) {
        let stride = stride();
        let (mut rounds, mut threads, mut thread) = (0, 1, 0);
        while thread < threads.min(THREADS_MAX) {
            for call in (offset(stride)..).step_by(stride) {
                prepare();
                let shot = Shot {
                    process: thread,
                    call,
                };
                let run = kill_at(&mut self.command(arguments), shot, None).unwrap();
                rounds += 1;
                self.is_sound(name, &(arguments, shot, &run.end));
                if let End::Missed { calls, success } = run.end {
                    assert!(success, "{arguments:?} fails undisturbed");
                    threads = threads.max(calls.len());
                    break;
                }
            }
            thread += 1;
        }
        eprintln!(
            "{arguments:?} on {}: {rounds} rounds in {threads} threads",
            self.backend
        );
        assert!(rounds > 2, "{rounds}");
    }

    /// Lets each writing system call fail once.
    fn full_everywhere(&self, prepare: &dyn Fn(), arguments: &[&str], name: &str) {
        let log = self.scene.path("strace.log");
        let (mut rounds, mut refused) = (0, 0);
        for call in WRITING {
            // Of one kind there are few.
            let stride = stride().div_ceil(10);
            for when in (1 + offset(stride)..).step_by(stride) {
                prepare();
                let command = self.command(arguments);
                let mut strace = Command::new("strace");
                strace
                    .args(["-f", "-qq", "-e", "signal=none", "-o"])
                    .arg(&log);
                strace.args([
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &format!("inject={call}:error=ENOSPC:when={when}"),
                    "--",
                ]);
                strace.arg(command.get_program()).args(command.get_args());
                strace
                    .current_dir(self.scene.path(""))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                let status = strace.status().unwrap();
                rounds += 1;
                let moment = (call, when);
                assert!(
                    status.code().is_some_and(|code| code <= 1),
                    "{moment:?}: {status}"
                );
                refused += usize::from(!status.success());
                self.is_sound(name, &moment);
                if !std::fs::read_to_string(&log).unwrap().contains("INJECTED") {
                    assert!(
                        status.success(),
                        "{arguments:?} fails undisturbed after {moment:?}"
                    );
                    break;
                }
            }
        }
        eprintln!(
            "{arguments:?} on {}: {rounds} rounds, {refused} of them refused",
            self.backend
        );
        assert!(refused > 0);
    }
}

/// How a command is disturbed.
type Rounds = fn(&Victim, &dyn Fn(), &[&str], &str);

fn import(backend: &'static str, rounds: Rounds) {
    let victim = Victim::new("import", backend);
    needs_root!(
        victim.scene,
        "system calls of a user's programs are the same"
    );
    rounds(&victim, &|| (), &["import", "-q", "oci", "x"], "x");
}

fn pull(backend: &'static str, rounds: Rounds) {
    let mut victim = Victim::new("pull", backend);
    needs_root!(
        victim.scene,
        "a registry of its own needs a network of its own"
    );
    let registry = Registry::http(&victim.scene);
    let name = registry.name("team/x:1");
    victim.scene.shell(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:oci:x docker://{name}"
    ));
    victim.registry = Some(registry);
    rounds(&victim, &|| (), &["pull", "-q", &name], &name);
}

#[test]
fn a_killed_import() {
    import("erofs", Victim::killed_everywhere);
    import("directory", Victim::killed_everywhere);
}

#[test]
fn a_killed_pull() {
    pull("erofs", Victim::killed_everywhere);
    pull("directory", Victim::killed_everywhere);
}

fn gc(backend: &'static str, rounds: Rounds) {
    let victim = Victim::new("gc", backend);
    let prepare = || {
        victim.does(&["import", "-q", "oci", "x"]);
        victim.does(&["untag", "x"]);
    };
    rounds(&victim, &prepare, &["gc"], "x");
}

#[test]
fn a_killed_gc() {
    gc("erofs", Victim::killed_everywhere);
    gc("directory", Victim::killed_everywhere);
}

#[test]
fn a_full_disk() {
    for backend in ["erofs", "directory"] {
        let scene = Scene::new("full disk");
        skip_unless!(
            scene,
            !missing_command("strace"),
            "strace lets system calls fail"
        );
        drop(scene);
        import(backend, Victim::full_everywhere);
    }
    pull("erofs", Victim::full_everywhere);
    gc("directory", Victim::full_everywhere);
}

#[test]
fn a_name_that_is_being_given() {
    for rounds in [Victim::killed_everywhere, Victim::full_everywhere] as [Rounds; 2] {
        let victim = Victim::new("tag", "directory");
        let prepare = || drop(victim.does(&["import", "-q", "oci", "x"]));
        // An id takes both names away.
        victim.does(&["import", "-q", "oci", "x"]);
        let id = victim.does(&["inspect", "--format", "{id}", "x"]);
        rounds(&victim, &prepare, &["tag", "x", "y"], &id);
    }
}
