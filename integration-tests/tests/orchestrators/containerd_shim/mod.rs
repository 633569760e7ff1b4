//! containerd-shim-teu-v2 under containerd: what a shim alone answers for.

mod options;
mod survival;

use std::process::{Child, Stdio};

use super::Shim;
use super::containerd::Containerd;
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::{Scene, missing_command, readme, skip_unless};

/// A process of the scene by a part of its command line, blanks between the words.
fn pid_of(scene: &Scene, part: &str) -> Option<i32> {
    let folder = scene.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let mut found = None;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(part) && line.contains(folder) {
            found = Some(pid);
        }
    }
    found
}

fn shim_of(scene: &Scene, id: &str) -> Option<i32> {
    pid_of(scene, &format!(" -id {id} -address"))
}

fn bundle(containerd: &Containerd<'_>, id: &str) -> std::path::PathBuf {
    let state = containerd
        .scene
        .path("containerd-run/io.containerd.runtime.v2.task");
    state.join(containerd.namespace()).join(id)
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// `ctr events` into a file.
pub(crate) struct Events<'a> {
    scene: &'a Scene,
    process: Child,
}

impl<'a> Events<'a> {
    pub(crate) fn listen(containerd: &Containerd<'a>) -> Self {
        let scene = containerd.scene;
        let file = std::fs::File::create(scene.path("events")).unwrap();
        let mut command = scene.command("ctr", containerd.own_flags());
        command.arg("events");
        let process = command.stdout(Stdio::from(file)).spawn().unwrap();
        let events = Self { scene, process };
        // It says nothing when it listens: events are made until one is heard.
        scene.wait_until("events are heard", || {
            let _ = containerd.call(&["namespace", "create", "heard"]);
            let _ = containerd.call(&["namespace", "rm", "heard"]);
            events.text().contains("/namespaces/")
        });
        events
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.scene.path("events")).unwrap()
    }

    /// Topics about tasks with `part` in them, in order: `create`, `exit 7`, `exit e 0`.
    pub(crate) fn of(&self, id: &str) -> Vec<String> {
        let mut out = Vec::new();
        for line in self.text().lines() {
            let Some((_, rest)) = line.split_once(" /tasks/") else {
                continue;
            };
            let (topic, json) = rest.split_once(' ').unwrap();
            let event: serde_json::Value = serde_json::from_str(json).unwrap();
            if event["container_id"] != id {
                continue;
            }
            let mut text = topic.to_owned();
            for field in ["exec_id", "id"] {
                if let Some(exec) = event[field].as_str().filter(|exec| *exec != id) {
                    text = format!("{text} {exec}");
                }
            }
            if topic == "exit" {
                text = format!("{text} {}", event["exit_status"].as_u64().unwrap_or(0));
            }
            out.push(text);
        }
        out
    }

    pub(crate) fn wait_for(&self, id: &str, expected: &[&str]) {
        self.scene
            .wait_until(&format!("{expected:?}, there is {:?}", self.of(id)), || {
                self.of(id) == expected
            });
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process more, `e`, that ends with 4; then a pause.
fn is_entered_and_paused(containerd: &Containerd<'_>, id: &str) {
    let _ = containerd.exec(id, "e", &["sh", "-c", "exit 4"]).exits(4);
    containerd.call(&["task", "pause", id]).succeeds();
    containerd.call(&["task", "resume", id]).succeeds();
}

#[test]
fn events_come_in_order() {
    let scene = Scene::new("shim events");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let events = Events::listen(&containerd);
    let _ = containerd
        .run(&["--rm"], "short", &["sh", "-c", "exit 7"])
        .exits(7);
    events.wait_for("short", &["create", "start", "exit 7", "delete"]);
    containerd
        .run(&["-d"], "long", &["sleep", "1000"])
        .succeeds();
    is_entered_and_paused(&containerd, "long");
    let stay = [
        "task",
        "exec",
        "-d",
        "--exec-id",
        "stays",
        "long",
        "sleep",
        "1000",
    ];
    containerd.call(&stay).succeeds();
    containerd
        .call(&["task", "kill", "-s", "9", "long"])
        .succeeds();
    let expected = [
        "create",
        "start",
        "exec-added e",
        "exec-started e",
        "exit e 4",
        "paused",
        "resumed",
        "exec-added stays",
        "exec-started stays",
        "exit stays 137",
        "exit 137",
    ];
    events.wait_for("long", &expected);
    let _ = containerd.call(&["task", "rm", "long"]);
    containerd.call(&["container", "rm", "long"]).succeeds();
}

#[test]
fn a_pod_has_one_shim() {
    let scene = Scene::new("shim pod");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    for id in ["pod", "member"] {
        let flags = ["-d", "--annotation", "io.containerd.runc.v2.group=pod"];
        containerd.run(&flags, id, &["sleep", "1000"]).succeeds();
    }
    assert!(shim_of(&scene, "pod").is_some());
    assert_eq!(
        shim_of(&scene, "member"),
        None,
        "the pod's shim looks after both"
    );
    containerd.remove("pod");
    let _ = containerd
        .exec("member", "e", &["sh", "-c", "exit 8"])
        .exits(8);
    containerd.remove("member");
    scene.wait_until("the shim leaves", || shim_of(&scene, "pod").is_none());
}

#[test]
fn nothing_is_left_of_a_container_in_the_hosts_pid_namespace() {
    let scene = Scene::new("shim host pids");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let flags = ["--rm", "--with-ns", "pid:/proc/self/ns/pid"];
    let program = ["sh", "-c", "sleep 1234 & exit 3"];
    let _ = containerd.run(&flags, "one", &program).exits(3);
    // That the sleeper is gone too, the scene's end checks.
}

#[test]
fn twenty_execs_run_side_by_side() {
    let scene = Scene::new("shim execs");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    containerd
        .run(&["-d"], "one", &["sleep", "1000"])
        .succeeds();
    let execs: Vec<_> = (0..20)
        .map(|number| {
            let (id, script) = (
                format!("e{number}"),
                format!("sleep 0.3; echo {number}; exit {number}"),
            );
            let mut command = scene.command("ctr", containerd.own_flags());
            command.args(["task", "exec", "--exec-id", &id, "one", "sh", "-c", &script]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, exec) in execs.into_iter().enumerate() {
        let out = exec.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(i32::try_from(number).unwrap()));
        assert_eq!(
            String::from_utf8_lossy(&out.stdout).trim(),
            number.to_string()
        );
    }
    containerd.remove("one");
}

#[test]
fn it_calls_runc_too() {
    let scene = Scene::new("shim runc");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let runc = std::path::Path::new("/usr/sbin/runc");
    skip_unless!(scene, runc.exists(), "no runc");
    let mut containerd = Containerd::start(&scene, Shim::Ours);
    containerd.runtime = runc.display().to_string();
    let out = containerd.run(&["--rm"], "short", &["sh", "-c", "echo said; exit 9"]);
    assert_eq!(out.exits(9).stdout.trim(), "said");
    let _ = containerd.run(&["--rm"], "none", &["nosuch"]).fails(
        1,
        &["OCI runtime create failed", "executable file not found"],
    );
    let _ = containerd.call(&["container", "rm", "none"]);
    containerd
        .run(&["-d"], "one", &["sleep", "1000"])
        .succeeds();
    is_entered_and_paused(&containerd, "one");
    containerd
        .call(&["task", "kill", "-s", "9", "one"])
        .succeeds();
    scene.wait_until("it is stopped", || {
        containerd
            .call(&["task", "ls"])
            .succeeds()
            .contains("STOPPED")
    });
    let _ = containerd
        .call(&["task", "kill", "-s", "9", "one"])
        .fails(1, &["process already finished"]);
    let _ = containerd.call(&["task", "rm", "one"]);
    containerd.call(&["container", "rm", "one"]).succeeds();
}

#[test]
fn a_container_may_ask_for_the_shim_by_its_own_name() {
    let scene = Scene::new("shim named");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let cgroup = format!("{}/one", scene.cgroup());
    let own = [
        "run",
        "--rm",
        "--runtime",
        "io.containerd.teu.v2",
        "--cgroup",
        &cgroup,
    ];
    let words = ["docker.io/library/busybox:latest", "one", "echo", "hello"];
    let out = containerd.call(&[&own[..], &words].concat());
    assert_eq!(out.succeeds(), "hello");
}

#[test]
fn the_readmes_line() {
    let scene = Scene::new("ctr readme");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let line = "ctr run --rm --runtime io.containerd.teu.v2 docker.io/library/busybox:latest one echo hello";
    let words = readme::block(line);
    let words: Vec<&str> = words.split(' ').skip(1).collect();
    assert_eq!(containerd.call(&words).succeeds(), "hello");
}
