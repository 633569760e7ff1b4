//! Under containerd, at random moments of their containers' lives.
//!
//! containerd's contract: it executes `delete`, which ends what still runs, and
//! tells the status that this answers. What a status may be is known from
//! inside: the container leaves a mark right before it exits.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::{Moment, OWN_STATUS, Outcome, Tally, Verdict, truth_of};
use teu_integration_tests::{Scene, binary, missing_command, skipped};

/// What containerd says of a status that nobody knows.
const UNKNOWN_STATUS: u32 = 255;
/// Of who was killed by `delete`.
const KILLED_STATUS: u32 = 137;

/// What was told of a container that ended with the status `truth`.
fn judge(told: &[u32], truth: u32) -> Outcome {
    let all = |status| told.iter().all(|one| *one == status);
    if told.is_empty() && truth == KILLED_STATUS {
        Outcome::Failed
    } else if told.is_empty() {
        Outcome::Lost
    } else if all(truth) {
        Outcome::True
    } else if all(UNKNOWN_STATUS) {
        Outcome::Unknown
    } else {
        Outcome::False
    }
}

pub(super) fn run(quick: bool) -> Verdict {
    let mut verdict = Verdict::default();
    if missing_command("containerd") {
        skipped("soak: kills", "no containerd");
        return verdict;
    }
    let count = if quick { 10 } else { 200 };
    let scene = Scene::new("soak: kills");
    let containerd = Containerd::start(&scene);
    let mut tally = Tally::new();
    for n in 0..count {
        let (id, moment) = (format!("k{n}"), tally.moment(n));
        let outcome = containerd.kill_one(&id, moment);
        tally.note(outcome, containerd.leftovers(&id));
    }
    tally.judge(&mut verdict);
    verdict.check(tally.sum(Outcome::Unknown) == 0, "no status is unknown");
    verdict
}

/// containerd with a busybox image, and our shim as its `io.containerd.teu.v2`.
struct Containerd<'a> {
    scene: &'a Scene,
    daemon: Child,
    /// `ctr events`, into the scene's file `events`.
    listener: Option<Child>,
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
        let mut containerd = Self {
            scene,
            daemon,
            listener: None,
        };
        scene.wait_until("containerd answers", || {
            containerd.ctr(&["version"]).code() == 0
        });
        containerd
            .ctr(&["image", "import", "busybox.tar"])
            .succeeds();
        let events = std::fs::File::create(scene.path("events")).expect("make a file");
        let socket = scene.path("containerd.sock").display().to_string();
        let mut listener = scene.command("ctr", ["-a", &socket, "events"]);
        let listener = listener.stdout(events).stdin(Stdio::null()).spawn();
        containerd.listener = Some(listener.expect("start ctr"));
        // It says nothing when it listens.
        std::thread::sleep(Duration::from_millis(500));
        containerd
    }

    fn words<'b>(&self, socket: &'b str, words: &[&'b str]) -> Vec<&'b str> {
        [&["-a", socket], words].concat()
    }

    fn ctr(&self, words: &[&str]) -> teu_integration_tests::Outcome {
        let socket = self.scene.path("containerd.sock").display().to_string();
        self.scene.run("ctr", self.words(&socket, words))
    }

    /// Runs a container, kills its shim at `moment`, and says what `ctr` was told.
    fn kill_one(&self, id: &str, moment: Moment) -> Outcome {
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
            .stderr(Stdio::null())
            .spawn()
            .expect("start ctr");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && shims(id).is_empty() {
            std::thread::sleep(Duration::from_micros(500));
        }
        let init = self.wait_for(id, moment, begin, &marks);
        for pid in shims(id) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        wait(&mut ctr, Duration::from_secs(30));
        let exits = marks.join("exits").exists();
        let told = self.statuses(id, exits);
        // Now that containerd has told, it is over.
        let exits = marks.join("exits").exists();
        let truth = init.and_then(|init| truth_of(&init));
        let truth = truth.unwrap_or(if exits { OWN_STATUS } else { KILLED_STATUS });
        let outcome = judge(&told, truth);
        if matches!(outcome, Outcome::False | Outcome::Unknown) {
            println!("  {id}: told {told:?}, in truth {truth}, the shim killed {moment:?}");
        }
        outcome
    }

    /// Waits until the shim is to be killed. The container's first process, if there is one by then.
    fn wait_for(&self, id: &str, moment: Moment, begin: Instant, marks: &Path) -> Option<OwnedFd> {
        let bundle = self
            .scene
            .path("containerd-run/io.containerd.runtime.v2.task/default");
        let pid_file = bundle.join(id).join("init.pid");
        let mut init = None;
        let from = Instant::now();
        let mut marked: Option<Instant> = None;
        loop {
            if init.is_none()
                && let Ok(text) = std::fs::read_to_string(&pid_file)
                && let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw)
            {
                init = pidfd_open(pid, PidfdFlags::empty()).ok();
            }
            if marked.is_none() && marks.join("exits").exists() {
                marked = Some(Instant::now());
            }
            let is_time = match moment {
                Moment::AfterStart(time) => from.elapsed() >= time,
                Moment::AfterMark(time) => marked.is_some_and(|at| at.elapsed() >= time),
            };
            if is_time || begin.elapsed() > Duration::from_secs(5) {
                return init;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// What containerd told of the container's end, as often as it did; the shim
    /// may tell, and containerd itself once it has cleaned up.
    fn statuses(&self, id: &str, expected: bool) -> Vec<u32> {
        let told = || {
            let text = std::fs::read_to_string(self.scene.path("events")).unwrap_or_default();
            let exits = text
                .lines()
                .filter_map(|line| line.split_once("/tasks/exit "));
            let exits = exits.filter_map(|(_, json)| serde_json::from_str::<Value>(json).ok());
            exits
                .filter(|event| event["id"] == id)
                // A status of 0 is left out.
                .map(|event| event["exit_status"].as_u64().unwrap_or(0) as u32)
                .collect::<Vec<_>>()
        };
        let patience = Duration::from_secs(if expected { 10 } else { 1 });
        let until = Instant::now() + patience;
        while told().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        told()
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
        if let Some(mut listener) = self.listener.take() {
            let _ = listener.kill();
            let _ = listener.wait();
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        self.scene.remove_cgroups();
    }
}

/// Waits for the end of a process; one that does not end in time is killed.
fn wait(child: &mut Child, limit: Duration) {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
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
                .any(|word| *word == b"start" || *word == b"delete" || *word == b"keep")
    };
    pids.filter(serves)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}
