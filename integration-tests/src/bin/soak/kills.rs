//! kill -9 of shims under containerd, at random moments of their containers' lives.
//!
//! containerd's contract: it executes `delete`, which ends what still runs, and
//! tells the status that this answers. What a status may be is known from
//! inside: the container leaves a mark right before it exits.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::Verdict;
use teu_integration_tests::{Scene, binary, missing_command, skipped};

/// What the container exits with by itself.
const OWN_STATUS: i32 = 7;
/// What containerd says of a status that nobody knows.
const UNKNOWN_STATUS: i32 = 255;
/// Of who was killed by `delete`.
const KILLED_STATUS: i32 = 137;

/// What became of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The true status.
    True,
    /// That nobody knows it.
    Unknown,
    /// It did not come to be, and `ctr` was told so.
    Failed,
    /// Something else than what happened.
    False,
}

pub(crate) fn run(quick: bool) -> Verdict {
    let mut verdict = Verdict::default();
    if missing_command("containerd") {
        skipped("soak: kills", "no containerd");
        return verdict;
    }
    let count = if quick { 10 } else { 200 };
    let scene = Scene::new("soak: kills");
    let containerd = Containerd::start(&scene);
    // xorshift; the seed is printed, so that a run can be repeated.
    let mut random = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_nanos() as u64 | 1);
    println!("  seed {random}");
    let mut outcomes = Vec::new();
    let mut left = Vec::new();
    for n in 0..count {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // A container lives about 300 ms from the start of its shim on.
        let moment = Duration::from_micros(random % 700_000);
        let outcome = containerd.kill_one(&format!("k{n}"), moment);
        if outcome == Outcome::False {
            println!("  false status of k{n}, killed after {moment:?}");
        }
        outcomes.push(outcome);
        left.extend(containerd.leftovers(&format!("k{n}")));
    }
    let sum = |outcome| outcomes.iter().filter(|one| **one == outcome).count();
    println!(
        "  {count} kills: {} true, {} unknown, {} never came to be, {} false; {} leftovers",
        sum(Outcome::True),
        sum(Outcome::Unknown),
        sum(Outcome::Failed),
        sum(Outcome::False),
        left.len()
    );
    for line in &left {
        println!("  {line}");
    }
    verdict.check(sum(Outcome::False) == 0, "no status is false");
    verdict.check(sum(Outcome::Unknown) == 0, "no status is unknown");
    verdict.check(left.is_empty(), "nothing is left behind");
    verdict
}

/// containerd with a busybox image, and our shim as its `io.containerd.teu.v2`.
struct Containerd<'a> {
    scene: &'a Scene,
    daemon: Child,
}

impl<'a> Containerd<'a> {
    fn start(scene: &'a Scene) -> Self {
        let at = |name: &str| scene.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("containerd"),
            at("containerd-run"),
            at("containerd.sock"),
            at("containerd.sock.ttrpc")
        );
        let config = scene.write("containerd.toml", config);
        scene.busybox("busybox");
        let words = [
            "export",
            "-q",
            "--format",
            "oci-archive",
            "-o",
            "busybox.tar",
            "busybox",
        ];
        scene.run("teu-store", words).succeeds();
        let shim = binary("containerd-shim-teu-v2");
        let runtime = binary("teu-runtime");
        let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let path = format!(
            "{}:{}:/usr/bin:/usr/sbin:/bin:/sbin",
            folder(&shim).display(),
            folder(&runtime).display()
        );
        let log = std::fs::File::create(scene.path("containerd.log")).expect("make a log");
        let daemon = scene
            .command("containerd", ["-c".as_ref(), config.as_os_str()])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Self { scene, daemon };
        scene.wait_until("containerd answers", || {
            containerd.ctr(&["version"]).code() == 0
        });
        containerd
            .ctr(&["image", "import", "busybox.tar"])
            .succeeds();
        containerd
    }

    fn words<'b>(&self, socket: &'b str, words: &[&'b str]) -> Vec<&'b str> {
        [&["-a", socket], words].concat()
    }

    fn ctr(&self, words: &[&str]) -> teu_integration_tests::Outcome {
        let socket = self.scene.path("containerd.sock").display().to_string();
        self.scene.run("ctr", self.words(&socket, words))
    }

    /// Runs a container, kills its shim after `moment`, and says what `ctr` was told.
    fn kill_one(&self, id: &str, moment: Duration) -> Outcome {
        let marks = self.scene.path(format!("marks-{id}"));
        std::fs::create_dir(&marks).expect("make a folder");
        let socket = self.scene.path("containerd.sock").display().to_string();
        let cgroup = format!("{}/{id}", self.scene.cgroup());
        let mount = format!(
            "type=bind,src={},dst=/marks,options=rbind:rw",
            marks.display()
        );
        let script = format!("sleep 0.3; : >/marks/exits; exit {OWN_STATUS}");
        let words = [
            "run",
            "--null-io",
            "--runtime",
            "io.containerd.teu.v2",
            "--cgroup",
            &cgroup,
            "--mount",
            &mount,
            "docker.io/library/busybox:latest",
            id,
            "sh",
            "-c",
            &script,
        ];
        let mut ctr = self
            .scene
            .command("ctr", self.words(&socket, &words))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start ctr");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && shims(id).is_empty() {
            std::thread::sleep(Duration::from_micros(500));
        }
        std::thread::sleep(moment);
        for pid in shims(id) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let status = wait(&mut ctr, Duration::from_secs(30));
        let exits = marks.join("exits").exists();
        match status {
            Some(OWN_STATUS) if exits => Outcome::True,
            Some(KILLED_STATUS) if !exits => Outcome::True,
            Some(UNKNOWN_STATUS) => Outcome::Unknown,
            // ctr's own, for what failed before there was a status.
            Some(1) if !exits => Outcome::Failed,
            other => {
                println!(
                    "  {id}: ctr ended with {other:?}, the container {}",
                    if exits { "exited" } else { "was killed" }
                );
                Outcome::False
            }
        }
    }

    /// Removes what is containerd's own, and says what else is still there.
    fn leftovers(&self, id: &str) -> Vec<String> {
        let _ = self.ctr(&["task", "rm", "-f", id]);
        let _ = self.ctr(&["container", "rm", id]);
        let left = || {
            let mut left = Vec::new();
            let run = self.scene.path("containerd-run");
            let bundle = run.join("io.containerd.runtime.v2.task/default").join(id);
            let state = Path::new("/run/containerd/runc/default").join(id);
            let state_of_ours = run.join("runc/default").join(id);
            for path in [bundle, state, state_of_ours] {
                if path.exists() {
                    left.push(format!("{}", path.display()));
                }
            }
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let name = format!("/{id}/rootfs ");
            left.extend(
                table
                    .lines()
                    .filter(|line| line.contains(&name))
                    .map(str::to_owned),
            );
            left.extend(shims(id).iter().map(|pid| format!("shim {pid:?} of {id}")));
            let cgroup = PathBuf::from(format!("/sys/fs/cgroup/pids{}/{id}", self.scene.cgroup()));
            if cgroup.exists() {
                left.push(format!("{}", cgroup.display()));
            }
            left
        };
        let until = Instant::now() + Duration::from_secs(5);
        while !left().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        left()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        self.scene.shell(&format!(
            "find /sys/fs/cgroup/*{0} /sys/fs/cgroup{0} -depth -type d -exec rmdir {{}} + 2>/dev/null || true",
            self.scene.cgroup()
        ));
    }
}

/// The exit status of a process that ends in time.
fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The processes that serve the container `id`: neither `start` nor `delete`.
fn shims(id: &str) -> Vec<rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let serves = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words
            .first()
            .is_some_and(|name| name.ends_with(b"containerd-shim-teu-v2"))
            && words
                .windows(2)
                .any(|pair| pair == [b"-id".as_slice(), id.as_bytes()])
            && !words
                .iter()
                .any(|word| *word == b"start" || *word == b"delete")
    };
    pids.filter(serves)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}
