//! Containers, one by one.

use super::Podman;
use teu_integration_tests::Scene;

#[test]
fn podman_runs_containers_and_hears_how_they_end() {
    let scene = Scene::new("podman run");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    assert_eq!(
        podman.run(&["--rm"], &["echo", "hello"]).succeeds(),
        "hello"
    );
    let out = podman
        .run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"])
        .exits(7);
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
    let _ = podman
        .run(&["--rm"], &["nosuch"])
        .fails(127, &["not found"]);
    let _ = podman
        .run(&["--rm"], &["/tmp"])
        .fails(126, &["permission denied"]);
    let _ = podman
        .run(&["--rm"], &["sh", "-c", "kill -9 $$; sleep 5"])
        .exits(0);
    podman
        .run(&["-d", "--name", "one"], &["sleep", "1000"])
        .succeeds();
    podman.call(&["kill", "one"]).succeeds();
    assert_eq!(podman.call(&["wait", "one"]).succeeds(), "137");
    assert_eq!(
        podman.inspect("one", "{{.State.ExitCode}} {{.State.OOMKilled}}"),
        "137 false"
    );
    let input = podman.line(&[
        "run",
        "--network",
        "none",
        "--cgroup-parent",
        &scene.cgroup(),
        "-i",
        "--rm",
        "busybox",
        "cat",
    ]);
    assert_eq!(
        scene.run_with_input("env", input, b"typed\n").succeeds(),
        "typed"
    );
}

#[test]
fn podman_reads_logs_of_each_driver() {
    let scene = Scene::new("podman logs");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "echo one; echo two >&2; printf three";
    podman
        .run(
            &["--name", "file", "--log-driver", "k8s-file"],
            &["sh", "-c", script],
        )
        .succeeds();
    let logs = podman.call(&["logs", "file"]);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("one\nthree", "two\n")
    );
    let stamped = podman.call(&["logs", "--timestamps", "file"]).succeeds();
    let first = stamped.lines().next().unwrap();
    assert!(
        first.starts_with("20") && first.ends_with(" one"),
        "{stamped}"
    );
    podman
        .run(
            &["--name", "json", "--log-driver", "json-file"],
            &["sh", "-c", script],
        )
        .succeeds();
    assert!(podman.call(&["logs", "json"]).stdout.starts_with("one\n"));
    let out = podman.run(&["--rm", "--log-driver", "none"], &["echo", "nowhere"]);
    assert_eq!(out.succeeds(), "nowhere");
    let out = podman.run(
        &["--rm", "--log-driver", "passthrough"],
        &["echo", "through"],
    );
    assert_eq!(out.succeeds(), "through");
    // Where there is a journal, podman's default is that.
    let small = "--name small --log-driver k8s-file --log-opt max-size=10kb";
    let small: Vec<&str> = small.split(' ').collect();
    podman.run(&small, &["seq", "1", "5000"]).succeeds();
    let path = podman.inspect("small", "{{.HostConfig.LogConfig.Path}}");
    assert!(std::fs::metadata(path).unwrap().len() <= 10_000);
    assert!(
        podman
            .call(&["logs", "small"])
            .stdout
            .ends_with("\n4999\n5000\n")
    );
}

/// It follows the name, which leads to a new file now and then; what was in a full one
/// that it had not read by then is gone.
#[test]
fn podman_follows_a_log_that_begins_anew() {
    let scene = Scene::new("podman logs -f");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let flags = "-d --name f --log-driver k8s-file --log-opt max-size=8kb";
    let flags: Vec<&str> = flags.split(' ').collect();
    let script =
        "i=0; while [ $i -lt 2000 ]; do seq $i $((i + 49)); i=$((i + 50)); sleep 0.1; done";
    podman.run(&flags, &["sh", "-c", script]).succeeds();
    let shown = podman.call(&["logs", "-f", "f"]).succeeds();
    let lines: Vec<u32> = shown.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.is_sorted_by(|one, next| one < next), "{lines:?}");
    assert_eq!(lines.last(), Some(&1999));
    let path = podman.inspect("f", "{{.HostConfig.LogConfig.Path}}");
    assert!(std::fs::metadata(path).unwrap().len() <= 8_000);
}

#[test]
fn podman_executes_attaches_and_resizes() {
    let scene = Scene::new("podman exec");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "while read line; do echo got $line; done";
    podman
        .run(&["-d", "-i", "--name", "one"], &["sh", "-c", script])
        .succeeds();
    let out = podman
        .call(&["exec", "one", "sh", "-c", "echo out; echo err >&2; exit 9"])
        .exits(9);
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
    let _ = podman
        .call(&["exec", "one", "nosuch"])
        .fails(127, &["not found"]);
    let cat = podman.line(&["exec", "-i", "one", "cat"]);
    assert_eq!(
        scene.run_with_input("env", cat, b"typed").succeeds(),
        "typed"
    );
    podman
        .call(&["exec", "-d", "one", "touch", "/tmp/detached"])
        .succeeds();
    scene.wait_until("the detached process has run", || {
        podman
            .call(&["exec", "one", "test", "-e", "/tmp/detached"])
            .code()
            == 0
    });
    let attach = podman.line(&["attach", "one"]);
    let out = scene.run_with_input("env", attach, b"hello\n");
    assert!(out.stdout.starts_with("got hello\n"), "{out}");
    assert_eq!(podman.call(&["wait", "one"]).succeeds(), "0");
    let line = podman.line(&[
        "run",
        "--network",
        "none",
        "--cgroup-parent",
        &scene.cgroup(),
        "-t",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "sleep 0.5; stty size",
    ]);
    let script = format!("stty rows 33 cols 77; {}", shell_words("env", &line));
    let out = scene.run("script", ["-qec", &script, "/dev/null"]);
    assert!(out.stdout.contains("33 77"), "{out}");
}

/// A command line for a shell.
fn shell_words(program: &str, words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{word}'"));
    std::iter::once(program.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn podman_executes_twenty_at_once() {
    let scene = Scene::new("twenty podman exec");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    podman
        .run(&["-d", "--name", "one"], &["sleep", "1000"])
        .succeeds();
    std::thread::scope(|threads| {
        for number in 0..20 {
            let podman = &podman;
            threads.spawn(move || {
                let script = format!("echo said {number}; exit {number}");
                let out = podman
                    .call(&["exec", "one", "sh", "-c", &script])
                    .exits(number);
                assert_eq!(out.stdout, format!("said {number}\n"));
            });
        }
    });
}

#[test]
fn podman_pauses_stops_and_restarts() {
    let scene = Scene::new("podman stop");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
    podman
        .run(&["-d", "--name", "one"], &["sh", "-c", script])
        .succeeds();
    podman.call(&["pause", "one"]).succeeds();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "paused");
    podman.call(&["unpause", "one"]).succeeds();
    podman.call(&["stop", "one"]).succeeds();
    assert_eq!(
        podman.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    podman.call(&["start", "one"]).succeeds();
    podman.call(&["restart", "-t", "0", "one"]).succeeds();
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
    podman.call(&["rm", "-f", "-t", "0", "one"]).succeeds();
    let again = ["-d", "--name", "again", "--restart", "on-failure:2"];
    podman
        .run(&again, &["sh", "-c", "echo ran; exit 5"])
        .succeeds();
    scene.wait_until("it was restarted twice", || {
        podman
            .call(&["logs", "again"])
            .stdout
            .matches("ran")
            .count()
            == 3
    });
    scene.wait_until("it is left alone then", || {
        podman.inspect("again", "{{.State.Status}} {{.State.ExitCode}}") == "exited 5"
    });
}

#[test]
fn podman_sees_who_was_killed_for_memory() {
    let scene = Scene::new("podman and OOM");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let flags = ["--name", "one", "--memory", "20m"];
    let hog = "x=a; while :; do x=$x$x; done";
    let _ = podman.run(&flags, &["sh", "-c", hog]).exits(137);
    // Conmon 2.1.6 writes `oom` where nobody looks: podman shows false.
    assert_eq!(
        podman.inspect("one", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    assert!(!scene.path("oom").exists());
    let child = "(x=a; while :; do x=$x$x; done); exit 4";
    podman.call(&["rm", "one"]).succeeds();
    let _ = podman.run(&flags, &["sh", "-c", child]).exits(4);
    assert_eq!(
        podman.inspect("one", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 4"
    );
}

#[test]
fn podman_asks_for_health() {
    let scene = Scene::new("podman health");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let flags = [
        "-d",
        "--name",
        "one",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-retries",
        "1",
        "--health-interval",
        "disable",
    ];
    podman.run(&flags, &["sleep", "1000"]).succeeds();
    let _ = podman.call(&["healthcheck", "run", "one"]).exits(1);
    assert_eq!(
        podman.inspect("one", "{{.State.Health.Status}}"),
        "unhealthy"
    );
    podman
        .call(&["exec", "one", "touch", "/tmp/well"])
        .succeeds();
    podman.call(&["healthcheck", "run", "one"]).succeeds();
    assert_eq!(podman.inspect("one", "{{.State.Health.Status}}"), "healthy");
}
