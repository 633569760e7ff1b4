//! In conmon's place, called as podman calls it, with our runtime and a real container.
//!
//! conmon's contract: a monitor that was killed tells nothing; its caller finds no exit
//! file, asks the runtime, and says that it does not know. The container may go on, and
//! the runtime removes it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Moment, OWN_STATUS, Outcome, Tally, Verdict, kill, process_in, processes, truth_of, what_stays,
};
use teu_integration_tests::{Scene, binary};

/// How long a container that nobody watches may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(count: u32) -> Verdict {
    let mut verdict = Verdict::default();
    let scene = Scene::new("soak: kills of monitors");
    scene.shell("mkdir exits");
    let mut tally = Tally::new();
    for n in 0..count {
        let container = Container::new(&scene, format!("kill{n:03}"));
        let moment = tally.moment(n);
        let outcome = container.kill(moment);
        tally.note(outcome, container.leftovers());
    }
    tally.judge(&mut verdict);
    verdict
}

/// One container and its monitor.
struct Container<'a> {
    scene: &'a Scene,
    id: String,
    bundle: PathBuf,
}

impl<'a> Container<'a> {
    /// Sleeps, leaves a mark, and exits.
    fn new(scene: &'a Scene, id: String) -> Self {
        let script = format!("sleep 0.3; : >/marks/exits; exit {OWN_STATUS}");
        let marks = scene.path(format!("{id}.marks"));
        std::fs::create_dir(&marks).expect("make a folder");
        let cgroup = format!("{}/{id}", scene.cgroup());
        let bundle = scene.bundle(&id, &["sh", "-c", &script], |config| {
            config["linux"]["cgroupsPath"] = json!(cgroup);
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(json!({
                    "destination": "/marks", "type": "bind", "source": marks,
                    "options": ["rbind", "rw"],
                }));
            }
        });
        Self { scene, id, bundle }
    }

    fn exits(&self) -> bool {
        self.scene.path(format!("{}.marks/exits", self.id)).exists()
    }

    fn runtime(&self, words: &[&str]) -> teu_integration_tests::Outcome {
        let root = self.scene.path("runtime-root").display().to_string();
        let program = binary("teu-runtime").display().to_string();
        self.scene
            .run(&program, [&["--root", &root], words].concat())
    }

    /// Starts it as podman does, and kills its monitor.
    fn kill(&self, moment: Moment) -> Outcome {
        let (id, bundle) = (&self.id, self.bundle.display());
        let at = |name: &str| self.scene.path(name).display().to_string();
        let words = format!(
            "--sync --api-version 1 -c {id} -u {id} -n {id} -r {} -b {bundle} -p {bundle}/pid \
             --runtime-arg --root --runtime-arg {} --exit-dir {} --persist-dir {bundle} --full-attach -l k8s-file:{bundle}/log",
            binary("teu-runtime").display(),
            at("runtime-root"),
            at("exits"),
        );
        let mut command = self.scene.command("teu-shim", words.split_whitespace());
        let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [stdin, stdout, stderr] = streams;
        let mut monitor = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("start the monitor");
        let begin = Instant::now();
        let (mut init, mut started, mut marked) = (None, false, None);
        while !moment.is_now(begin, marked) && begin.elapsed() < END_LIMIT {
            if init.is_none() {
                init = process_in(&self.bundle.join("pid")).map(|(_, pidfd)| pidfd);
            } else if !started {
                // As podman: it starts what conmon has made.
                started = self.runtime(&["start", id]).code() == 0;
            }
            if marked.is_none() && self.exits() {
                marked = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let _ = monitor.kill();
        let _ = monitor.wait();
        let init = init.or_else(|| Some(process_in(&self.bundle.join("pid"))?.1));
        if started {
            wait_for_end(init.as_ref());
        }
        let outcome = self.judge(init.as_ref());
        if matches!(outcome, Outcome::False | Outcome::Lost) {
            println!("  {id}: {outcome:?}, the monitor killed {moment:?}");
        }
        outcome
    }

    /// What both exit files say, against what happened.
    fn judge(&self, init: Option<&OwnedFd>) -> Outcome {
        let read = |path: PathBuf| std::fs::read_to_string(path).ok();
        let files = [
            self.scene.path("exits").join(&self.id),
            self.bundle.join("exit"),
        ];
        let told: Vec<String> = files.into_iter().filter_map(read).collect();
        if told.is_empty() {
            // The caller says that it does not know.
            return if self.exits() {
                Outcome::Unknown
            } else {
                Outcome::Failed
            };
        }
        let truth = init.and_then(truth_of);
        let truth = truth.unwrap_or(OWN_STATUS).to_string();
        if told.iter().all(|status| *status == truth) {
            Outcome::True
        } else {
            Outcome::False
        }
    }

    /// Removes what is left as podman does, and says what is still there.
    fn leftovers(&self) -> Vec<String> {
        // The runtime that it had called dies with it, but not at once: what it made last may
        // come to be after it was looked for.
        let until = Instant::now() + END_LIMIT;
        while !processes(&[&self.bundle.display().to_string()]).is_empty() && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let removed = self.runtime(&["delete", "--force", &self.id]);
        let mut left: Vec<String> = Vec::new();
        if removed.code() != 0 {
            left.push(format!("{}: delete --force: {removed}", self.id));
        }
        left.extend(what_stays(|| {
            let mut left = Vec::new();
            let state = self.scene.path("runtime-root").join(&self.id);
            let cgroups = ["pids", "memory", "unified", ""].map(|hierarchy| {
                let root = Path::new("/sys/fs/cgroup").join(hierarchy);
                PathBuf::from(format!(
                    "{}{}/{}",
                    root.display(),
                    self.scene.cgroup(),
                    self.id
                ))
            });
            for path in [state].iter().chain(&cgroups).filter(|path| path.exists()) {
                left.push(format!("{}", path.display()));
            }
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let bundle = self.bundle.display().to_string();
            let mounts = table.lines().filter(|line| line.contains(&bundle));
            left.extend(mounts.map(str::to_owned));
            for pid in processes(&[&self.bundle.display().to_string()]) {
                left.push(format!("process {pid:?} of {}", self.id));
            }
            left
        }));
        for pid in processes(&[&self.bundle.display().to_string()]) {
            kill(pid);
        }
        left
    }
}

/// Waits until the process is no more, though others may be its parent.
fn wait_for_end(init: Option<&OwnedFd>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(init) = init else { return };
    let limit = Timespec {
        tv_sec: END_LIMIT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let _: rustix::io::Result<usize> = poll(&mut [PollFd::new(init, PollFlags::IN)], Some(&limit));
}
