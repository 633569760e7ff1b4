//! What goes in and out: input, terminals, attaching, processes beside the first, logs.

use std::io::Write as _;
use std::process::Stdio;

use super::{Docker, LOOP};
use crate::Shim;
use teu_integration_tests::Scene;

#[test]
fn input_and_many_at_once() {
    let scene = Scene::new("docker execs");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let own = docker.own_words();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let words = ["run", "-i", "--rm", "--network", "none", "busybox", "cat"];
    let typed = scene.run_with_input("env", [&own, &words[..]].concat(), b"typed\n");
    assert_eq!(typed.succeeds(), "typed");
    docker.detached("one", "", LOOP);
    let execs: Vec<_> = (0..20)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            let mut command = docker.spawn(&["exec", "one", "sh", "-c", &script]);
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
    // Megabytes in, the same bytes out, by a process beside the first.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    scene.write("bytes", &bytes);
    let exec = ["exec", "-i", "one", "cat"];
    let mut command = docker.spawn(&exec);
    command.stdin(std::fs::File::open(scene.path("bytes")).unwrap());
    let out = command.output().unwrap();
    assert!(
        out.status.success() && out.stdout == bytes,
        "{} bytes",
        out.stdout.len()
    );
}

/// docker in a terminal of 33 lines and 77 columns; what it shows.
fn in_a_terminal(docker: &Docker<'_>, words: &str, typing: &str) -> String {
    let own = docker.own_words().join(" ");
    let script = format!("stty rows 33 cols 77; env {own} {words}");
    let line = format!("{{ {typing}; }} | timeout 60 script -qec '{script}' /dev/null");
    let out = docker.scene.run("sh", ["-c", &line]);
    assert_ne!(out.code(), 124, "{out}");
    out.stdout
}

#[test]
fn terminals() {
    let scene = Scene::new("docker terminals");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let run = "run -it --name one --network none busybox sh";
    // The client sends the window's size once the program runs.
    let typing = "sleep 2; printf \"tty; stty size; exit 3\\n\"";
    let shown = in_a_terminal(&docker, run, typing);
    assert!(
        shown.contains("/dev/pts/0") && shown.contains("33 77"),
        "{shown}"
    );
    assert_eq!(docker.inspect("one", "State.ExitCode"), "3");
    docker.line("start one").succeeds();
    let exec = "exec -it one sh -c \"sleep 1; stty size; tty\"";
    let shown = in_a_terminal(&docker, exec, "sleep 3");
    assert!(
        shown.contains("33 77") && shown.contains("/dev/pts/1"),
        "{shown}"
    );
    // Who detaches leaves it running; who attaches again goes on with it.
    let keys = "sleep 1; printf \"echo a$((1+1))\\n\"; sleep 1; printf \"\\020\"; sleep 0.3; printf \"\\021\"; sleep 1";
    let shown = in_a_terminal(&docker, "attach one", keys);
    assert!(shown.contains("a2"), "{shown}");
    assert_eq!(docker.inspect("one", "State.Status"), "running");
    let keys = "sleep 1; printf \"echo b$((1+2)); exit 4\\n\"; sleep 1";
    let shown = in_a_terminal(&docker, "attach one", keys);
    assert!(shown.contains("b3"), "{shown}");
    assert_eq!(docker.line("wait one").succeeds(), "4");
}

#[test]
fn who_attaches_sees_and_is_heard() {
    let scene = Scene::new("docker attach");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let script =
        "while read line; do [ $line = end ] && exit 6; echo got $line; echo heard $line >&2; done";
    docker
        .script("run -d -i --network none --name one busybox", script)
        .succeeds();
    let mut watcher = docker.spawn(&["attach", "--no-stdin", "one"]);
    let watcher = watcher
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut client = docker.spawn(&["attach", "one"]);
    client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut client = client.spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    input.write_all(b"one\ntwo\n").unwrap();
    scene.wait_until("it has answered", || {
        docker.line("logs one").stdout == "got one\ngot two\n"
    });
    input.write_all(b"end\n").unwrap();
    for client in [client, watcher.unwrap()] {
        let out = docker.end_of(client);
        assert_eq!(out.stdout, b"got one\ngot two\n");
        assert_eq!(out.stderr, b"heard one\nheard two\n");
        assert_eq!(out.status.code(), Some(6));
    }
}

#[test]
fn logs_have_every_byte() {
    let scene = Scene::new("docker logs");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let script = "echo one; echo two >&2; sleep 0.1; seq 1 20000; printf unfinished";
    docker.detached("one", "", script);
    let followed = docker.line("logs -f one");
    let numbers: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    let expected = format!("one\n{numbers}unfinished");
    // docker 20 ends this with the container, though it may not have read the end of its own file.
    let seen = &followed.stdout;
    assert!(expected.starts_with(seen) && seen.len() > 4, "{seen}");
    assert_eq!(followed.stderr, "two\n");
    let _ = docker.line("wait one");
    let logs = docker.line("logs one").stdout;
    let end = &logs[logs.len().saturating_sub(100)..];
    assert!(logs == expected, "{} bytes, at the end {end:?}", logs.len());
    let tail = docker.line("logs --tail 2 one").stdout;
    assert_eq!(tail, "20000\nunfinished");
    let stamped = docker.line("logs --timestamps --tail 1 one").stdout;
    assert!(stamped.ends_with("Z unfinished"), "{stamped}");
    // Bytes that are no text, and a line longer than any buffer.
    let script = "head -c 300000 /bin/busybox; head -c 200000 /dev/zero | tr '\\0' x";
    docker.detached("two", "--log-driver local", script);
    let _ = docker.line("wait two");
    let out = docker.spawn(&["logs", "two"]).output().unwrap().stdout;
    let mut expected = std::fs::read("/bin/busybox").unwrap()[..300_000].to_vec();
    expected.extend([b'x'; 200_000]);
    assert!(out == expected, "{} bytes of {}", out.len(), expected.len());
    docker.detached("three", "--log-driver none", "echo nothing");
    let _ = docker
        .line("logs three")
        .fails(1, &["configured logging driver does not support reading"]);
}
