//! dockerd and its containerd are killed; containers live on.

use super::{Docker, LOOP};
use crate::{Shim, cgroup_file};
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::Scene;

/// The containerd that dockerd started.
fn containerd_of(docker: &Docker<'_>) -> i32 {
    let pid = docker.scene.path("docker-run/containerd/containerd.pid");
    let pid = std::fs::read_to_string(pid).unwrap();
    pid.trim().parse().unwrap()
}

/// Ends dockerd and the containerd that it started, both without a word.
fn kill_daemons(docker: &mut Docker<'_>) {
    let pid = containerd_of(docker);
    docker.daemon.take().unwrap().kill();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // dockerd takes a containerd that was not reaped for one that lives.
    docker
        .scene
        .wait_until("containerd is gone", || !is_there(pid));
}

fn is_there(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends USR1 until the first process of a pid namespace, that gets a signal only once it has a
/// handler for it, has ended.
fn end(docker: &Docker<'_>, pid: i32) {
    docker.scene.wait_until("it has ended", || {
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1);
        !is_there(pid)
    });
}

#[test]
fn dockerd_and_containerd_may_die_and_come_back() {
    let scene = Scene::new("docker outlived");
    let Some(mut docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let script = format!("echo before; trap 'echo after; exit 6' USR1; {LOOP}");
    // On docker's bridge: of one without a network docker 28 shows no usage afterwards, with any shim.
    let line = "run -d -m 64m --name stays busybox";
    docker.script(line, &script).succeeds();
    docker.detached("ends", "", &format!("trap 'exit 5' USR1; {LOOP}"));
    let exec = "exec -d stays sh -c";
    let words: Vec<&str> = exec.split(' ').chain(["sleep 1234; sleep 1"]).collect();
    docker.call(&words).succeeds();
    let (stays, ends) = (docker.pid("stays"), docker.pid("ends"));
    kill_daemons(&mut docker);
    end(&docker, ends);
    docker.resume();
    let state = |docker: &Docker<'_>, name: &str| {
        let status = docker.inspect(name, "State.Status");
        format!("{status} {}", docker.inspect(name, "State.ExitCode"))
    };
    scene.wait_until("docker knows", || state(&docker, "ends") == "exited 5");
    assert_eq!(state(&docker, "stays"), "running 0");
    assert_eq!(docker.pid("stays"), stays);
    // Everything works on the one that lives.
    let _ = docker.script("exec stays", "exit 3").exits(3);
    let top = docker.line("top stays").succeeds();
    assert!(top.contains("sleep 1234"), "{top}");
    docker
        .line("update -m 96m --memory-swap 128m stays")
        .succeeds();
    assert_eq!(
        cgroup_file(stays, "memory", "memory.limit_in_bytes", "memory.max"),
        "100663296"
    );
    let stats = "stats --no-stream --format {{.MemUsage}} stays";
    let usage = docker.line(stats).succeeds();
    assert!(usage.ends_with("/ 96MiB"), "{usage}");
    docker.line("pause stays").succeeds();
    docker.line("unpause stays").succeeds();
    docker.line("kill -s USR1 stays").succeeds();
    assert_eq!(docker.line("wait stays").succeeds(), "6");
    assert_eq!(docker.line("logs stays").succeeds(), "before\nafter");
    // Both can be had again.
    docker.line("start ends").succeeds();
    assert_eq!(state(&docker, "ends").split(' ').next(), Some("running"));
    docker.line("rm -f stays ends").succeeds();
}

#[test]
fn containerd_alone_may_die_under_dockerd() {
    let scene = Scene::new("docker without containerd");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.detached("stays", "", LOOP);
    docker.detached("ends", "", &format!("trap 'exit 5' USR1; {LOOP}"));
    let ends = docker.pid("ends");
    let first = containerd_of(&docker);
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    end(&docker, ends);
    // dockerd starts it again.
    scene.wait_until("docker hears of the end", || {
        docker.inspect("ends", "State.Status") == "exited"
    });
    assert_eq!(docker.inspect("ends", "State.ExitCode"), "5");
    assert_ne!(containerd_of(&docker), first);
    let _ = docker.script("exec stays", "exit 3").exits(3);
    docker.line("stop -t 0 stays").succeeds();
    scene.wait_until("docker has heard of both ends", || {
        docker.events("die", "exitCode") == ["5", "137"]
    });
}
