//! Containers from their start to their end: pauses, signals, restarts, health.

use super::{Docker, LOOP};
use crate::{Shim, under_both_shims};
use teu_integration_tests::Scene;

under_both_shims! { lives_with_a_container }

fn lives_with_a_container(shim: Shim) {
    let scene = Scene::new(&format!("docker lifecycle {shim:?}"));
    let Some(docker) = Docker::new(&scene, shim) else {
        return;
    };
    docker
        .line("run -d --name one -m 64m busybox sleep 1000")
        .succeeds();
    let _ = docker.script("exec one", "exit 3").exits(3);
    let _ = docker
        .line("exec one nosuch")
        .prints("executable file not found");
    docker.line("pause one").succeeds();
    assert_eq!(docker.inspect("one", "State.Status"), "paused");
    docker.line("unpause one").succeeds();
    assert!(docker.line("top one").succeeds().contains("sleep 1000"));
    docker
        .line("update -m 128m --memory-swap 256m one")
        .succeeds();
    let stats = "stats --no-stream --format {{.MemUsage}} one";
    assert!(docker.line(stats).succeeds().ends_with("/ 128MiB"));
    docker.line("stop -t 1 one").succeeds();
    assert_eq!(docker.inspect("one", "State.ExitCode"), "137");
    docker.line("start one").succeeds();
    assert_eq!(docker.inspect("one", "State.Status"), "running");
    docker.line("kill -s KILL one").succeeds();
    docker.line("rm -f one").succeeds();
}

#[test]
fn who_is_paused_does_nothing() {
    let scene = Scene::new("docker pause");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.detached("one", "", "while :; do echo tick; sleep 0.02; done");
    let ticks = || docker.line("logs one").succeeds().lines().count();
    scene.wait_until("it ticks", || ticks() > 3);
    docker.line("pause one").succeeds();
    let _ = docker
        .line("exec one true")
        .fails(1, &["is paused, unpause the container"]);
    // What was written before is read once more.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(ticks(), before);
    docker.line("unpause one").succeeds();
    scene.wait_until("it ticks again", || ticks() > before);
    docker.line("pause one").succeeds();
    docker.line("kill one").succeeds();
    scene.wait_until("it ends though it was paused", || {
        docker.inspect("one", "State.Status") == "exited"
    });
    assert_eq!(docker.inspect("one", "State.ExitCode"), "137");
}

#[test]
fn signals_arrive() {
    let scene = Scene::new("docker signals");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let script =
        "trap 'echo got USR1' USR1; trap 'echo got HUP' HUP; trap 'exit 5' TERM; echo ready; ";
    docker.detached("one", "", &format!("{script}{LOOP}"));
    let logs = || docker.line("logs one").succeeds();
    scene.wait_until("it is ready", || logs() == "ready");
    for signal in ["USR1", "HUP"] {
        docker.line(&format!("kill -s {signal} one")).succeeds();
        let word = format!("got {signal}");
        scene.wait_until(&word, || logs().ends_with(&word));
    }
    docker.line("stop -t 30 one").succeeds();
    assert_eq!(docker.inspect("one", "State.ExitCode"), "5");
    let _ = docker.line("kill one").fails(1, &["is not running"]);
    // The client passes on what it gets itself.
    let script = "trap 'exit 9' TERM; echo ready; ";
    let script = format!("{script}{LOOP}");
    let words = "run --network none --name two busybox sh -c".split(' ');
    let words: Vec<&str> = words.chain([script.as_str()]).collect();
    let mut client = docker.spawn(&words);
    let mut client = client.stdout(std::process::Stdio::null()).spawn().unwrap();
    scene.wait_until("it is ready", || {
        docker.line("logs two").stdout == "ready\n"
    });
    let pid = rustix::process::Pid::from_child(&client);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(9));
}

#[test]
fn restarts_and_health_checks() {
    let scene = Scene::new("docker health");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.detached("again", "--restart on-failure:3", "sleep 0.2; exit 1");
    let state = |name: &str| docker.inspect(name, "State.Status");
    scene.wait_until("it was restarted three times", || {
        docker.inspect("again", "RestartCount") == "3" && state("again") == "exited"
    });
    let words = "run -d --network none --name checked --health-interval 100ms --health-retries 1 --health-cmd";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["test -e /tmp/well", "busybox", "sh", "-c", LOOP]);
    docker.call(&words).succeeds();
    let health = || docker.inspect("checked", "State.Health.Status");
    scene.wait_until("it is not well", || health() == "unhealthy");
    docker.line("exec checked touch /tmp/well").succeeds();
    scene.wait_until("it is well", || health() == "healthy");
    docker.line("stop -t 0 checked").succeeds();
}

#[test]
fn who_is_to_run_always_does() {
    let scene = Scene::new("docker restart");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    for policy in ["always", "unless-stopped"] {
        docker.detached(policy, &format!("--restart {policy}"), "sleep 1000");
    }
    let pids = || ["always", "unless-stopped"].map(|name| docker.pid(name));
    let first = pids();
    for pid in first {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    scene.wait_until("both run again", || {
        let now = pids();
        now.iter()
            .zip(first)
            .all(|(now, first)| *now != 0 && *now != first)
    });
    let second = docker.pid("always");
    docker.line("restart -t 0 always").succeeds();
    let third = docker.pid("always");
    assert!(third != 0 && third != second);
    docker.line("stop -t 0 always unless-stopped").succeeds();
    std::thread::sleep(std::time::Duration::from_millis(500));
    for name in ["always", "unless-stopped"] {
        assert_eq!(
            docker.inspect(name, "State.Status"),
            "exited",
            "{name} was told to stop"
        );
    }
}
