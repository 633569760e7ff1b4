//! containerd-shim-teu-v2 under dockerd: what users see of a shim.

use std::process::Stdio;

use super::Shim;
use super::docker::Docker;
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::{Scene, missing_command, readme, skip_unless};

/// Ends dockerd and the containerd that it started, both without a word.
fn kill_daemons(docker: &mut Docker<'_>) {
    let pid = docker.scene.path("docker-run/containerd/containerd.pid");
    let pid: i32 = std::fs::read_to_string(pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
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

#[test]
fn dockerd_and_containerd_may_die_and_come_back() {
    let scene = Scene::new("docker outlived");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let mut docker = Docker::start(&scene, Shim::Ours);
    let line = "run -d --network none --name";
    let script = "echo before; trap 'echo after; exit 6' USR1; while :; do sleep 0.1; done";
    run(&docker, &format!("{line} stays busybox"), script);
    let script = "trap 'exit 5' USR1; while :; do sleep 0.1; done";
    run(&docker, &format!("{line} ends busybox"), script);
    let inspect = |docker: &Docker<'_>, name: &str, field: &str| {
        let field = format!("{{{{.State.{field}}}}}");
        docker.call(&["inspect", "-f", &field, name]).succeeds()
    };
    let init: i32 = inspect(&docker, "ends", "Pid").parse().unwrap();
    kill_daemons(&mut docker);
    scene.wait_until("it has ended", || {
        // The first process of a pid namespace gets a signal only once it has a handler for it.
        let _ = kill_process(Pid::from_raw(init).unwrap(), Signal::USR1);
        !is_there(init)
    });
    docker.resume();
    scene.wait_until("docker knows", || {
        inspect(&docker, "ends", "Status") == "exited"
    });
    assert_eq!(inspect(&docker, "ends", "ExitCode"), "5");
    assert_eq!(inspect(&docker, "stays", "Status"), "running");
    let _ = docker
        .call(&["exec", "stays", "sh", "-c", "exit 3"])
        .exits(3);
    docker.call(&["kill", "-s", "USR1", "stays"]).succeeds();
    let _ = docker.call(&["wait", "stays"]);
    assert_eq!(inspect(&docker, "stays", "ExitCode"), "6");
    assert_eq!(docker.call(&["logs", "stays"]).succeeds(), "before\nafter");
}

/// `docker LINE sh -c SCRIPT`.
fn run(docker: &Docker<'_>, line: &str, script: &str) {
    let mut words: Vec<&str> = line.split(' ').collect();
    words.extend(["sh", "-c", script]);
    docker.call(&words).succeeds();
}

#[test]
fn restarts_and_health_checks() {
    let scene = Scene::new("docker health");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, Shim::Ours);
    let line = "run -d --network none --restart on-failure:3 --name again busybox";
    run(&docker, line, "sleep 0.2; exit 1");
    let inspect = |field: &str, name: &str| docker.call(&["inspect", "-f", field, name]).succeeds();
    scene.wait_until("it was restarted three times", || {
        inspect("{{.RestartCount}} {{.State.Status}}", "again") == "3 exited"
    });
    let words = "run -d --network none --name checked --health-interval 100ms --health-retries 1 --health-cmd";
    let mut words: Vec<&str> = words.split(' ').collect();
    let script = "mkdir -p /tmp; while :; do sleep 0.1; done";
    words.extend(["test -e /tmp/well", "busybox", "sh", "-c", script]);
    docker.call(&words).succeeds();
    let health = || inspect("{{.State.Health.Status}}", "checked");
    scene.wait_until("it is not well", || health() == "unhealthy");
    docker
        .call(&["exec", "checked", "touch", "/tmp/well"])
        .succeeds();
    scene.wait_until("it is well", || health() == "healthy");
    docker.call(&["stop", "-t", "0", "checked"]).succeeds();
}

#[test]
fn the_readmes_lines() {
    let scene = Scene::new("docker readme");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, Shim::Ours);
    let link =
        "ln -s /usr/local/bin/containerd-shim-teu-v2 /usr/local/sbin/containerd-shim-runc-v2";
    let peers = scene.path("peers").display().to_string();
    let line = readme::block(link)
        .replace("/usr/local/bin", &peers)
        .replace("/usr/local/sbin", &peers);
    scene.shell(&format!("rm peers/containerd-shim-runc-v2 && {line}"));
    let words = "run --rm --network none busybox echo hello".split(' ');
    assert_eq!(docker.call(&words.collect::<Vec<_>>()).succeeds(), "hello");

    let line = "docker run --rm --network none --runtime io.containerd.teu.v2 busybox echo hello";
    let line = readme::block(line);
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let version = docker
        .call(&["version", "-f", "{{.Server.Version}}"])
        .succeeds();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    skip_unless!(
        scene,
        major >= 23,
        "docker {version} knows its own shims only"
    );
    assert_eq!(docker.call(&words).succeeds(), "hello");
}

#[test]
fn input_and_many_at_once() {
    let scene = Scene::new("docker execs");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, Shim::Ours);
    let own = docker.own_words();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let words = ["run", "-i", "--rm", "--network", "none", "busybox", "cat"];
    let typed = scene.run_with_input("env", [&own, &words[..]].concat(), b"typed\n");
    assert_eq!(typed.succeeds(), "typed");
    run(
        &docker,
        "run -d --network none --name one busybox",
        "while :; do sleep 0.1; done",
    );
    let execs: Vec<_> = (0..20)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            let words = [&own, &["exec", "one", "sh", "-c", &script][..]].concat();
            let mut command = scene.command("env", words);
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
}
