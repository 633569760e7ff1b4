//! What holds when others are killed.

use super::Podman;
use std::process::Stdio;
use teu_integration_tests::Scene;

#[test]
fn a_container_outlives_the_podman_that_started_it() {
    let scene = Scene::new("kill -9 of podman");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let cgroup = scene.cgroup();
    let words = [
        "run",
        "--network",
        "none",
        "--cgroup-parent",
        &cgroup,
        "--name",
        "one",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /tmp/end ]; do echo tick; sleep 0.1; done; exit 6",
    ];
    let mut client = scene
        .command("env", podman.line(&words))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    scene.wait_until("it runs", || {
        podman.call(&["logs", "one"]).stdout.contains("tick")
    });
    client.kill().unwrap();
    client.wait().unwrap();
    let ticks = || podman.call(&["logs", "one"]).stdout.matches("tick").count();
    let before = ticks();
    scene.wait_until("it goes on", || ticks() > before + 5);
    podman
        .call(&["exec", "one", "touch", "/tmp/end"])
        .succeeds();
    assert_eq!(podman.call(&["wait", "one"]).succeeds(), "6");
    assert_eq!(
        podman.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 6"
    );
}

/// Nobody is there to write the exit status down. Podman must not take the
/// container for one that runs, and no status is made up by us.
#[test]
fn without_its_monitor_a_container_is_not_lost() {
    let scene = Scene::new("kill -9 of our conmon");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    podman
        .run(&["-d", "--name", "one"], &["sleep", "1000"])
        .succeeds();
    let monitor = podman.monitor_of("one");
    scene.shell(&format!("kill -9 {monitor}"));
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
    podman.call(&["exec", "one", "true"]).succeeds();
    let stopped = podman.call(&["stop", "-t", "1", "one"]);
    let state = podman.inspect("one", "{{.State.Status}} {{.State.ExitCode}}");
    eprintln!(
        "after the monitor's death podman stop says {:?}, then: {state}",
        stopped.stderr
    );
    assert!(!state.starts_with("running"), "{state}");
    podman.call(&["rm", "-f", "-t", "0", "one"]).succeeds();
    assert_eq!(podman.call(&["ps", "-a", "-q"]).succeeds(), "");
    podman.run(&["--rm", "--name", "one"], &["true"]).succeeds();
}

#[test]
fn who_detaches_can_attach_again() {
    let scene = Scene::new("podman detach");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let cgroup = scene.cgroup();
    let words = [
        "run",
        "--network",
        "none",
        "--cgroup-parent",
        &cgroup,
        "-it",
        "--name",
        "one",
        "busybox",
        "sh",
    ];
    let script = |words: &[&str], typed: &[&str]| {
        let line: Vec<String> = podman
            .line(words)
            .iter()
            .map(|word| format!("'{word}'"))
            .collect();
        // Keys that detach must come by themselves.
        let typed = typed.iter().map(|keys| format!("printf '{keys}'; sleep 1"));
        let typed = typed.collect::<Vec<_>>().join("; ");
        let line = line.join(" ");
        let typing = "{ sleep 2; TYPED; } | timeout 30 script -qec \"env LINE\" /dev/null";
        let typing = typing.replace("TYPED", &typed).replace("LINE", &line);
        let out = scene.run("sh", ["-c", &typing]);
        assert_ne!(out.code(), 124, "{out}");
        out.stdout
    };
    let out = script(&words, &["echo a$((1+1))\\n", "\\020", "\\021"]);
    assert!(out.contains("a2"), "{out}");
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
    let out = script(&["attach", "one"], &["echo b$((1+2))\\nexit 4\\n"]);
    assert!(out.contains("b3"), "{out}");
    assert_eq!(podman.call(&["wait", "one"]).succeeds(), "4");
}
