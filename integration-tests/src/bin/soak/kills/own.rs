//! Under teu itself.
//!
//! Its contract: the container of a killed supervisor goes on. `teu wait` tells its true
//! status, which the kernel remembers for who watches, or `unknown`; `teu rm -f` removes
//! all that is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::{Moment, OWN_STATUS, Outcome, Tally, Verdict, kill, processes, truth_of, what_stays};
use teu_integration_tests::Scene;

/// How long a container may take to come to its end.
const END_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(count: u32) -> Verdict {
    let mut verdict = Verdict::default();
    let scene = Scene::new("soak: kills of supervisors");
    scene.busybox("busybox");
    let mut tally = Tally::new();
    for n in 0..count {
        let moment = tally.moment(n);
        let outcome = kill_one(&scene, &format!("k{n}"), moment);
        tally.note(outcome, leftovers(&scene, &format!("k{n}")));
    }
    tally.judge(&mut verdict);
    verdict
}

/// Runs a container, kills its supervisor, and judges what `teu wait` tells.
fn kill_one(scene: &Scene, name: &str, moment: Moment) -> Outcome {
    let marks = scene.path(format!("marks-{name}"));
    std::fs::create_dir(&marks).expect("make a folder");
    let volume = format!("{}:/marks", marks.display());
    let script = format!("sleep 0.3; : >/marks/exits; exit {OWN_STATUS}");
    let words = [
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        name,
        "-v",
        &volume,
        "busybox",
        "sh",
        "-c",
        &script,
    ];
    let teu = scene
        .command("teu", words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start teu");
    let (shim, init) = kill_at(scene, moment, &marks);
    let outcome = judge(scene, name, teu, init, &marks);
    if matches!(outcome, Outcome::False | Outcome::Lost) {
        println!("  {name}: {outcome:?}, the supervisor {shim:?} killed {moment:?}");
    }
    outcome
}

/// Kills the supervisor at that moment. It, and the container's first process, if there is one by then.
fn kill_at(
    scene: &Scene,
    moment: Moment,
    marks: &Path,
) -> (Option<Pid>, Option<std::os::fd::OwnedFd>) {
    let spawned = Instant::now();
    let (mut begin, mut shim, mut init, mut marked) = (spawned, None, None, None);
    while spawned.elapsed() < END_LIMIT && (shim.is_none() || !moment.is_now(begin, marked)) {
        let state = state(scene);
        let pid = |who: &str| {
            let pid = state.as_ref()?[who]["pid"].as_i64()?;
            Pid::from_raw(pid.try_into().ok()?)
        };
        if shim.is_none() {
            shim = pid("shim");
            begin = Instant::now();
        }
        if init.is_none() {
            init = pid("init").and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        }
        if marked.is_none() && marks.join("exits").exists() {
            marked = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    if let Some(shim) = shim {
        kill(shim);
    }
    (shim, init)
}

/// What the only container says of itself.
fn state(scene: &Scene) -> Option<Value> {
    let folders = std::fs::read_dir(scene.data().join("containers")).ok()?;
    let folder = folders.flatten().next()?.path();
    serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()
}

fn judge(
    scene: &Scene,
    name: &str,
    mut teu: Child,
    init: Option<std::os::fd::OwnedFd>,
    marks: &Path,
) -> Outcome {
    let _ = teu.wait();
    let waited = scene.run("teu", ["wait", name]);
    let truth = init.as_ref().and_then(truth_of);
    let exits = marks.join("exits").exists();
    match waited.stdout.trim() {
        "" if !exits => Outcome::Failed,
        "" => {
            println!("  {name}: teu wait: {waited}");
            Outcome::Lost
        }
        "unknown" if !exits => Outcome::Failed,
        "unknown" => Outcome::Unknown,
        status if Some(status) == truth.map(|truth| truth.to_string()).as_deref() => Outcome::True,
        status if truth.is_none() && exits && status == OWN_STATUS.to_string() => Outcome::True,
        _ => Outcome::False,
    }
}

/// Removes the container, and says what is still there.
fn leftovers(scene: &Scene, name: &str) -> Vec<String> {
    let mut left = Vec::new();
    let folders = || -> Vec<PathBuf> {
        let of = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let data = ["containers", "names", "tmp", "volumes"].map(|name| scene.data().join(name));
        let state = ["runtime", "netns"].map(|name| scene.state().join(name));
        let all = data.into_iter().chain(state).flat_map(of);
        all.map(|entry| entry.path()).collect()
    };
    for folder in std::fs::read_dir(scene.data().join("containers"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let id = folder.file_name().display().to_string();
        let removed = scene.run("teu", ["rm", "-f", &id]);
        if removed.code() != 0 {
            left.push(format!("{name}: teu rm -f: {removed}"));
        }
    }
    left.extend(what_stays(|| {
        let mut left: Vec<String> = folders()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let data = scene.data().display().to_string();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let containers = format!("{data}/containers");
        left.extend(
            table
                .lines()
                .filter(|line| line.contains(&containers))
                .map(str::to_owned),
        );
        for pid in processes(&[&data]) {
            left.push(format!("process {pid:?} of {name}"));
        }
        left
    }));
    left
}
