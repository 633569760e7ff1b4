//! What the runtime's caller does with signals is not the container's affair.

use super::Container;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use teu_integration_tests::{Outcome, Scene};

/// Starts a command that ignores and blocks all signals that can be: as under
/// nohup(1), or in the background of a shell, but more.
const DEAF: [&str; 2] = ["--ignore-signal", "--block-signal"];

/// Shows what a program ignores and blocks. Busybox's shell ignores SIGQUIT for a
/// last command, which it executes in its own place.
const SHOW: &str = "{ grep -E '^Sig(Ign|Blk)' /proc/self/status; :; }";

const NONE: &str = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000";

/// `teu-runtime`, called by one who hears no signal.
fn deaf(container: &Container<'_>, words: &[&str]) -> Outcome {
    container.scene.run_deaf("teu-runtime", words)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

#[test]
fn programs_begin_with_default_signals() {
    let scene = Scene::new("default signals");
    let hook = |name: &str| {
        let script = format!("{SHOW} > {}", scene.path(name).display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let container = Container::script(&scene, "c", &format!("{SHOW}; exit 7"), |config| {
        let script = format!("{SHOW} > /tmp/inside");
        config["root"]["readonly"] = json!(false);
        config["hooks"] = json!({
            "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "poststop": hook("poststop"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
        });
    });
    let bundle = container.bundle.to_str().unwrap();
    // With SIGCHLD ignored the end of a child is not told, unless it is asked for.
    let outcome = deaf(&container, &["run", "-b", bundle, &container.id]);
    assert_eq!(outcome.exits(7).stdout.trim_end(), NONE);
    for name in ["createRuntime", "createContainer", "poststop"] {
        assert_eq!(read(&scene.path(name)), NONE, "{name}");
    }
    let inside = container.bundle.join("rootfs/tmp/inside");
    assert_eq!(read(&inside), NONE);
}

#[test]
fn a_created_container_and_exec_hear_signals() {
    let scene = Scene::new("signals after create");
    // A shell cannot trap what was ignored when it began.
    let script = "trap 'exit 5' TERM; trap 'echo heard > /tmp/heard' HUP; echo > /tmp/ready; \
        while :; do sleep 0.1; done";
    let container = Container::script(&scene, "c", script, |config| {
        config["root"]["readonly"] = json!(false);
    });
    let bundle = container.bundle.to_str().unwrap();
    let line = format!(
        "env {} {} </dev/null >/dev/null 2>{}",
        DEAF.join(" "),
        container.line("create"),
        container.log().display()
    );
    assert_eq!(scene.run("sh", ["-c", &line]).code(), 0, "{bundle}");
    deaf(&container, &["start", &container.id]).succeeds();
    let file = |name: &str| container.bundle.join("rootfs/tmp").join(name);
    scene.wait_until("it traps", || file("ready").exists());
    let shown = deaf(&container, &["exec", &container.id, "/bin/sh", "-c", SHOW]);
    assert_eq!(shown.succeeds().trim_end(), NONE);
    let code = deaf(
        &container,
        &["exec", &container.id, "/bin/sh", "-c", "exit 9"],
    );
    assert_eq!(code.code(), 9);
    deaf(&container, &["kill", &container.id, "HUP"]).succeeds();
    scene.wait_until("it has heard", || file("heard").exists());
    deaf(&container, &["kill", &container.id, "TERM"]).succeeds();
    scene.wait_until("it ends", || container.status() == "stopped");
    deaf(&container, &["delete", &container.id]).succeeds();
}

#[test]
fn a_foreground_passes_on_what_its_caller_ignores() {
    let scene = Scene::new("signals of the foreground");
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let container = Container::script(&scene, "c", script, |_| {});
    let runtime = container.line("run");
    let out = scene.path("out");
    let mut command = scene.command("env", DEAF);
    command.args(runtime.split(' ')).stdin(Stdio::null());
    let mut child = command
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    scene.wait_until("it traps", || {
        std::fs::read_to_string(&out).unwrap().contains("ready")
    });
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
