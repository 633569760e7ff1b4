//! What is sent to containers, and who starts them again.

use super::Podman;
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::Scene;

#[test]
fn podmans_signals_arrive() {
    let scene = Scene::new("podman signals");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "trap 'echo got USR1' USR1; trap 'echo got HUP' HUP; trap 'exit 5' INT; \
                  echo ready; while :; do echo tick >> /tmp/ticks; sleep 0.02; done";
    podman.detached("one", "--stop-signal INT", script);
    let logs = || podman.say("logs one").succeeds();
    scene.wait_until("it is ready", || logs() == "ready");
    for signal in ["USR1", "HUP"] {
        podman.say(&format!("kill -s {signal} one")).succeeds();
        let word = format!("got {signal}");
        scene.wait_until(&word, || logs().ends_with(&word));
    }
    // Who is paused does nothing, and dies nevertheless.
    podman.say("pause one").succeeds();
    let pid = podman.pid("one");
    let ticks = || {
        std::fs::read(format!("/proc/{pid}/root/tmp/ticks"))
            .unwrap()
            .len()
    };
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(ticks(), before);
    let _ = podman
        .say("exec one true")
        .fails(255, &["running containers"]);
    podman.say("unpause one").succeeds();
    scene.wait_until("it goes on", || ticks() > before);
    podman.say("stop -t 30 one").succeeds();
    assert_eq!(podman.inspect("one", "{{.State.ExitCode}}"), "5");
    podman.say("start one").succeeds();
    podman.say("pause one").succeeds();
    podman.say("rm -f -t 0 one").succeeds();
    // Who does not listen is killed; who is asked as the first of an `init` ends as it was told.
    podman.detached("deaf", "", "trap '' TERM; while :; do sleep 0.1; done");
    podman.detached("asked", "--init", "exec sleep 1000");
    podman.say("stop -t 1 deaf asked").succeeds();
    for (name, code) in [("deaf", "137"), ("asked", "143")] {
        assert_eq!(podman.inspect(name, "{{.State.ExitCode}}"), code, "{name}");
    }
    let _ = podman
        .say("kill deaf")
        .fails(125, &["can only kill running"]);
    podman.say("rm deaf asked").succeeds();
}

#[test]
fn who_is_to_run_always_does_under_podman() {
    let scene = Scene::new("podman restart");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    podman.detached("always", "--restart always", "exec sleep 1000");
    let first = podman.pid("always");
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let mut second = 0;
    scene.wait_until("it runs again", || {
        second = podman.pid("always");
        second != 0 && second != first
    });
    podman.say("restart -t 0 always").succeeds();
    let third = podman.pid("always");
    assert!(third != 0 && third != second);
    podman.say("stop -t 0 always").succeeds();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let state = podman.inspect("always", "{{.State.Status}}");
    assert_eq!(state, "exited", "it was told to stop");
    podman.say("rm always").succeeds();
}
