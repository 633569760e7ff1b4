//! `teu run` and what follows it: exit statuses, logs, signals, exec, stop,
//! volumes, limits; and that nothing is left whoever is killed when.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use teu_integration_tests::{Outcome, Scene, Terminal, binary, missing_command, skip_unless};

mod exec;
mod flags;
mod lifecycle;
mod logs;
mod output;
mod signals;
mod sockets;
mod supervision;
mod terminal;

/// A scene with an image `busybox`.
fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    scene
}

/// `teu run FLAGS busybox sh -c SCRIPT` without a network.
fn run(scene: &Scene, flags: &[&str], script: &str) -> Outcome {
    let words = [
        &["run", "--network", "none"],
        flags,
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    scene.run("teu", words)
}

fn teu(scene: &Scene, words: &[&str]) -> Outcome {
    scene.run("teu", words)
}

/// `teu` with its global flags, for shell scripts.
fn teu_line(scene: &Scene) -> String {
    let (data, state) = (scene.data(), scene.state());
    format!(
        "{} --root {} --state {}",
        binary("teu").display(),
        data.display(),
        state.display()
    )
}

/// Starts `teu run` in the foreground and leaves it running.
fn start(scene: &Scene, flags: &[&str], script: &str) -> Child {
    let words = [
        &["run", "--network", "none"],
        flags,
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    let mut command = scene.command("teu", words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn inspect(scene: &Scene, name: &str) -> Value {
    let shown = teu(scene, &["inspect", name]).succeeds();
    serde_json::from_str::<Value>(&shown).unwrap()[0].take()
}

fn state(scene: &Scene, name: &str) -> String {
    inspect(scene, name)["state"]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn wait_for_state(scene: &Scene, name: &str, wanted: &str) {
    scene.wait_until(&format!("{name} is {wanted}"), || {
        teu(scene, &["inspect", name]).status.success() && state(scene, name) == wanted
    });
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn kill_supervisor(scene: &Scene, name: &str) {
    let pid = inspect(scene, name)["state"]["supervisor_pid"]
        .as_u64()
        .unwrap();
    kill(u32::try_from(pid).unwrap());
}
