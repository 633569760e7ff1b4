//! kill -9 of teu-runtime before each of its system calls: afterwards
//! `delete --force` succeeds, nothing is left, and the id can be used again:
//! the next round does so, and gets one system call further.
//!
//! A round is one run of a verb, traced (`trace::kill_at`), in which one process
//! is killed before one system call: the runtime itself, or what it made, up to
//! its execve. The rounds of a process go on until one ends without a hit, so no
//! system call is passed over. The suite prints their number beside the number
//! of system calls that strace counts.
//!
//! `TEU_KILL_STRIDE=N` looks only at every N-th system call, on slow machines.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use teu_integration_tests::trace::{End, Shot, kill_at};
use teu_integration_tests::{Scene, missing_command};

/// A container that is made again for each round.
struct Victim {
    scene: Scene,
    id: String,
    bundle: PathBuf,
}

impl Victim {
    fn new(name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let scene = Scene::new(&format!("kill -9 of {name}"));
        let bundle = scene.bundle("k", args, change);
        let id = format!("{}-k", scene.mark());
        let victim = Self { scene, id, bundle };
        // The first one also makes the cgroup that is the parent of them all.
        victim.create();
        victim.succeeds("delete", &["--force"], &[]);
        victim
    }

    fn sleeper(name: &str) -> Self {
        Self::new(name, &["/bin/sleep", "1000"], |_| ())
    }

    /// A verb on the container, with `flags` before the id and `rest` behind it.
    fn verb(&self, verb: &str, flags: &[&str], rest: &[&str]) -> Command {
        let bundle = self.bundle.to_str().unwrap();
        let bundle: &[&str] = match verb {
            "create" | "run" => &["-b", bundle],
            _ => &[],
        };
        let words = [&[verb], bundle, flags, &[&self.id], rest].concat();
        let mut command = self.scene.command("teu-runtime", words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn succeeds(&self, verb: &str, flags: &[&str], rest: &[&str]) {
        let mut command = self.verb(verb, flags, rest);
        let log = self.scene.path("stderr");
        command.stderr(std::fs::File::create(&log).unwrap());
        let status = command.status().unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{verb}: {status}: {}", said());
    }

    fn create(&self) {
        self.succeeds("create", &[], &[]);
    }

    fn run(&self) {
        self.succeeds("run", &["--detach"], &[]);
    }

    fn init(&self) -> i32 {
        let state = self.scene.run("teu-runtime", ["state", &self.id]);
        let state: Value = serde_json::from_str(&state.succeeds()).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Removes the container and looks for what is left.
    fn is_forgotten(&self, moment: &dyn std::fmt::Debug, pids: &[i32]) {
        self.succeeds("delete", &["--force"], &[]);
        let lives = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        // Who finds its parent dead ends by itself.
        self.scene
            .wait_until(&format!("processes end after {moment:?}"), || {
                !pids.iter().any(lives)
            });
        let states = std::fs::read_dir(self.scene.path("state/runtime")).unwrap();
        let states: Vec<_> = states.map(|entry| entry.unwrap().path()).collect();
        assert!(states.is_empty(), "{states:?} after {moment:?}");
        let cgroups: Vec<_> = self.cgroups().filter(|path| path.exists()).collect();
        assert!(cgroups.is_empty(), "{cgroups:?} after {moment:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = self.scene.path("");
        assert!(
            !mounts.contains(folder.to_str().unwrap()),
            "{mounts} after {moment:?}"
        );
    }

    /// Where its cgroup would be, in each hierarchy.
    fn cgroups(&self) -> impl Iterator<Item = PathBuf> {
        let below = format!("{}/k", self.scene.cgroup());
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap();
        let hierarchies = hierarchies.map(|entry| entry.unwrap().path());
        hierarchies
            .chain(["/sys/fs/cgroup".into()])
            .map(move |path| path.join(below.trim_start_matches('/')))
    }
}

/// What the rounds of a verb begin with, and the verb.
type Scenario<'a> = &'a dyn Fn() -> (Command, Option<i32>);

/// Kills in every process before every system call.
fn killed_everywhere(name: &str, victim: &Victim, scenario: Scenario<'_>) {
    let stride = std::env::var("TEU_KILL_STRIDE").map_or(1, |text| text.parse().unwrap());
    let strace = strace_counts(victim, scenario);
    let (mut rounds, mut processes, mut process) = (0, 1, 0);
    while process < processes {
        for call in (0..).step_by(stride) {
            let (mut command, beside) = scenario();
            let shot = Shot { process, call };
            let run = kill_at(&mut command, shot, beside).unwrap();
            rounds += 1;
            victim.is_forgotten(&(name, shot, &run.end), &run.pids);
            if let End::Missed { calls, success } = run.end {
                assert!(
                    success,
                    "{name} fails, undisturbed, after a round before call {call}"
                );
                processes = processes.max(calls.len());
                break;
            }
        }
        process += 1;
    }
    eprintln!("{name}: {rounds} rounds in {processes} processes; strace counts {strace:?}");
    if let (1, Some(counted)) = (stride, strace) {
        // A few calls more or less are made from run to run: what is waited for is
        // there at once or comes later.
        assert!(
            rounds + counted / 50 > counted,
            "{name}: {rounds} rounds, but {counted} system calls"
        );
    }
}

/// How many system calls strace counts, up to the execve of the container's program.
fn strace_counts(victim: &Victim, scenario: Scenario<'_>) -> Option<usize> {
    if missing_command("strace") {
        return None;
    }
    let (command, beside) = scenario();
    let file = victim.scene.path("strace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-q", "-e", "signal=none", "-o"])
        .arg(&file);
    if let Some(pid) = beside {
        strace.args(["-p", &pid.to_string()]);
    }
    strace
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    let mut child = strace
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    // It follows the container too, and ends only with that.
    victim
        .scene
        .wait_until("strace has seen the end of the verb", || {
            let text = text();
            let main = main_of(&text);
            text.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(main) && words.next() == Some("+++")
            })
        });
    victim.succeeds("delete", &["--force"], &[]);
    child.wait().unwrap();
    Some(count(&text()))
}

/// The process that strace itself started; one that it was attached to may be
/// heard of before.
fn main_of(text: &str) -> &str {
    let begin = text.lines().find(|line| line.contains(" execve("));
    begin.and_then(|line| line.split(' ').next()).unwrap_or("?")
}

/// Counts the calls in strace's output, but for the execve by which strace itself
/// becomes the first process. What another process does after an execve is the
/// container's own.
fn count(text: &str) -> usize {
    let main = main_of(text);
    let mut gone = Vec::new();
    let mut calls = 0;
    for line in text.lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        let name = call.split_once('(').map_or("", |(name, _)| name);
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            || gone.contains(&pid)
            || (pid, name) == (main, "execve")
        {
            continue;
        }
        calls += 1;
        if pid != main && name.starts_with("execve") && !call.contains("= -1") {
            gone.push(pid);
        }
    }
    calls
}

#[test]
fn create() {
    let victim = Victim::sleeper("create");
    killed_everywhere("create", &victim, &|| {
        (victim.verb("create", &[], &[]), None)
    });
}

/// Everything that makes further processes, messages and files.
fn rich(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.extend([json!({"type": "user"}), json!({"type": "time"})]);
    config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 5}});
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    config["linux"]["resources"]["pids"] = json!({"limit": 100});
    let never = json!({"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"});
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [never]});
    let hook = json!([{"path": "/bin/true"}]);
    config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststop": hook});
}

#[test]
fn create_with_everything() {
    let victim = Victim::new("create with everything", &["/bin/sleep", "1000"], rich);
    killed_everywhere("create with everything", &victim, &|| {
        (victim.verb("create", &[], &[]), None)
    });
}

#[test]
fn run() {
    let victim = Victim::new("run", &["/bin/true"], |_| ());
    killed_everywhere("run", &victim, &|| (victim.verb("run", &[], &[]), None));
}

#[test]
fn start() {
    let victim = Victim::sleeper("start");
    killed_everywhere("start", &victim, &|| {
        victim.create();
        (victim.verb("start", &[], &[]), Some(victim.init()))
    });
}

#[test]
fn exec() {
    let victim = Victim::sleeper("exec");
    killed_everywhere("exec", &victim, &|| {
        victim.run();
        (victim.verb("exec", &[], &["/bin/true"]), None)
    });
}

#[test]
fn update() {
    let victim = Victim::sleeper("update");
    let limits = [
        "--pids-limit",
        "100",
        "--memory",
        "67108864",
        "--cpu-share",
        "512",
    ];
    killed_everywhere("update", &victim, &|| {
        victim.run();
        (victim.verb("update", &limits, &[]), None)
    });
}

#[test]
fn pause() {
    let victim = Victim::sleeper("pause");
    killed_everywhere("pause", &victim, &|| {
        victim.run();
        (victim.verb("pause", &[], &[]), None)
    });
}

#[test]
fn resume() {
    let victim = Victim::sleeper("resume");
    killed_everywhere("resume", &victim, &|| {
        victim.run();
        victim.succeeds("pause", &[], &[]);
        (victim.verb("resume", &[], &[]), None)
    });
}

#[test]
fn delete() {
    let victim = Victim::sleeper("delete");
    killed_everywhere("delete", &victim, &|| {
        victim.create();
        (victim.verb("delete", &[], &[]), None)
    });
}

#[test]
fn delete_of_a_running_container() {
    let victim = Victim::sleeper("delete --force");
    killed_everywhere("delete --force", &victim, &|| {
        victim.run();
        (victim.verb("delete", &["--force"], &[]), None)
    });
}
