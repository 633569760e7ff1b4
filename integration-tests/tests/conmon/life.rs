//! The life of a container and of an exec session, as its caller sees it.

use super::post::{ID, Post, ours, same};
use std::time::{Duration, Instant};
use teu_integration_tests::Scene;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};

/// What is left of a container that ended.
fn traces(post: &Post) -> Vec<String> {
    let files = ["sync", "calls", "persist/exit", "exit-command", "attach"];
    let mut traces: Vec<String> = files
        .iter()
        .map(|file| post.plain(&post.read(file)))
        .collect();
    traces.push(post.read(&format!("exits/{ID}")));
    traces.extend(post.entries());
    let mut left: Vec<String> = std::fs::read_dir(post.path("bundle"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    traces.extend(left);
    traces
}

/// An exit command that writes down its arguments.
const EXIT_COMMAND: &str = "--exit-command @/exit --exit-command-arg one --exit-command-arg two";

fn with_exit_command(post: &Post) {
    let path = post.write(
        "exit",
        "#!/bin/sh\necho \"$@\" $(ls -l /proc/$$/fd | grep -c /held) >>${0%/*}/exit-command\n",
    );
    post.scene.shell(&format!("chmod +x {}", path.display()));
}

#[test]
fn a_container_leaves_the_same_traces() {
    let scene = Scene::new("conmon's traces");
    let script = "echo out; sleep 0.2; echo err >&2; sleep 0.2; printf last; exit 7";
    let traces = same(&scene, |post| {
        with_exit_command(post);
        post.run(script, EXIT_COMMAND);
        traces(post)
    });
    assert_eq!(traces[0], "{\"data\": PID}\n");
    assert_eq!((traces[2].as_str(), traces[5].as_str()), ("7", "7"));
    assert!(traces[3].starts_with("one two"), "{traces:?}");
    assert_eq!(
        traces[6..9],
        ["stdout F out", "stderr F err", "stdout P last"]
    );
}

#[test]
fn statuses_are_those_of_the_process() {
    let scene = Scene::new("conmon's statuses");
    for (script, status) in [
        // Conmon loses the status of what ends before its runtime.
        ("sleep 0.2; exit 0", "0"),
        ("sleep 0.2; exit 255", "255"),
        ("sleep 0.2; kill -9 $$", "137"),
        ("sleep 0.2; kill -15 $$", "143"),
    ] {
        let seen = same(&scene, |post| {
            let _ = std::fs::remove_file(post.path("start"));
            post.run(script, "");
            (post.read("persist/exit"), post.read(&format!("exits/{ID}")))
        });
        assert_eq!(seen, (status.to_owned(), status.to_owned()), "{script}");
        scene.shell("rm -rf ours conmon");
    }
}

#[test]
fn a_runtime_that_refuses_is_quoted() {
    let scene = Scene::new("conmon and a failing runtime");
    let traces = same(&scene, |post| {
        with_exit_command(post);
        post.write("refuses", "oh \"no\"\n\tagain\n");
        post.start(&format!("-l @/log {EXIT_COMMAND}")).succeeds();
        post.wait();
        let mut traces = traces(post);
        // Conmon leaves the socket of a container that never was.
        traces.retain(|trace| trace != "attach");
        traces
    });
    assert_eq!(
        traces[0],
        "{\"data\": -1, \"message\": \"oh \\\"no\\\"\\n\\tagain\\n\"}\n"
    );
    assert!(traces[3].starts_with("one two"));
}

#[test]
fn the_older_protocol_has_other_keys() {
    let scene = Scene::new("conmon's older protocol");
    let seen = same(&scene, |post| {
        post.program("sleep 0.2; exit 3");
        let older = |more: &str| {
            let mut command = post.command(more);
            let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let kept = words.iter().filter(|word| *word != "--api-version");
            let mut plain = std::process::Command::new(command.get_program());
            plain.args(kept).current_dir(&post.home);
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => plain.env(name, value),
                    None => plain.env_remove(name),
                };
            }
            command = plain;
            run_limited(command, b"", TIME_LIMIT).succeeds();
            post.wait();
        };
        older("-b @/bundle -l none");
        post.write("spec", "sleep 0.2; exit 4");
        older("-e --exec-process-spec @/spec -l none");
        let sync = post.read("sync");
        let told: Vec<&str> = sync.split_inclusive(": ").collect();
        (
            told[0].to_owned(),
            sync.lines().skip(1).map(str::to_owned).collect::<Vec<_>>(),
        )
    });
    assert_eq!(
        seen,
        (
            "{\"pid\": ".to_owned(),
            vec!["{\"exit_code\": 4}".to_owned()]
        )
    );
}

#[test]
fn an_exec_session_tells_pid_and_status() {
    let scene = Scene::new("conmon's exec session");
    let traces = same(&scene, |post| {
        post.write("spec", "echo hello; sleep 0.2; exit 9");
        post.start("-e --exec-process-spec @/spec -l @/log")
            .succeeds();
        post.wait();
        traces(post)
    });
    assert_eq!(traces[0], "{\"data\": PID}\n{\"data\": 9}\n");
    assert_eq!(
        traces[1],
        format!("exec --pid-file @/pid --process @/spec --detach {ID}\n")
    );
}

#[test]
fn an_attached_exec_session_waits_for_its_caller() {
    let scene = Scene::new("conmon's attached exec session");
    same(&scene, |post| {
        post.write("spec", "echo hello; sleep 0.2");
        let mut command =
            post.command("-b @/bundle -e --exec-attach --exec-process-spec @/spec -l none");
        command.env("_OCI_STARTPIPE", "4");
        let monitor = std::thread::spawn(move || run_limited(command, b"", TIME_LIMIT));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(post.read("monitor"), "", "nothing before the first word");
        std::fs::write(post.path("start"), "go").unwrap();
        monitor.join().unwrap().succeeds();
        post.wait_for("attach", "{\"data\": 0}");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(post.read("calls"), "", "nothing before the second word");
        let client = super::doors::Client::connect(&post.path("bundle/attach"));
        std::fs::write(post.path("start"), "go").unwrap();
        assert_eq!(client.output(), ("hello\n".into(), String::new()));
        post.wait();
        assert_eq!(
            post.plain(&post.read("sync")),
            "{\"data\": PID}\n{\"data\": 0}\n"
        );
    });
}

#[test]
fn what_takes_too_long_is_killed_and_said() {
    let scene = Scene::new("conmon's time limit");
    let sync = same(&scene, |post| {
        post.write("spec", "sleep 100 & wait");
        let begin = Instant::now();
        post.start("-e --exec-process-spec @/spec -l none -T 1")
            .succeeds();
        post.wait();
        assert!(begin.elapsed() < Duration::from_secs(8));
        post.plain(&post.read("sync"))
    });
    assert_eq!(
        sync,
        "{\"data\": PID}\n{\"data\": -1, \"message\": \"command timed out\"}\n"
    );
}

#[test]
fn signals_reach_the_container() {
    let scene = Scene::new("signals to conmon");
    let status = same(&scene, |post| {
        post.program("trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done");
        post.start("-l @/log").succeeds();
        post.wait_for("log", "ready");
        scene.shell(&format!("kill {}", post.pid()));
        post.wait();
        post.read("persist/exit")
    });
    assert_eq!(status, "42");
}

#[test]
fn the_exit_command_waits_as_long_as_it_should() {
    let scene = Scene::new("conmon's exit delay");
    let post = ours(&scene);
    with_exit_command(&post);
    post.program("true");
    post.start(&format!("-l none --exit-delay 2 {EXIT_COMMAND}"))
        .succeeds();
    post.wait_for("persist/exit", "0");
    let begin = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(post.read("exit-command"), "");
    post.wait_for("exit-command", "one two").wait();
    assert!(begin.elapsed() > Duration::from_millis(1500));
}

#[test]
fn in_sync_mode_it_stays_and_ends_with_the_status() {
    let scene = Scene::new("conmon --sync");
    let code = same(&scene, |post| {
        post.program("sleep 0.2; exit 5");
        post.start("--sync -l none").code()
    });
    assert_eq!(code, 5);
}

#[test]
fn the_runtime_is_called_with_all_that_was_given() {
    let scene = Scene::new("conmon's runtime call");
    let calls = same(&scene, |post| {
        post.run(
            "sleep 0.2",
            "-s --no-pivot --no-new-keyring --runtime-arg --a --runtime-arg=--b --runtime-opt --preserve-fds --runtime-opt 1",
        );
        post.run(
            "true",
            "--restore /checkpoint --runtime-opt --tcp-established",
        );
        post.plain(&post.read("calls"))
    });
    assert!(
        calls.starts_with("--systemd-cgroup --a --b create"),
        "{calls}"
    );
}

#[test]
fn socket_activation_names_the_runtime() {
    let scene = Scene::new("conmon's LISTEN_PID");
    let seen = same(&scene, |post| {
        let runtime = post.read("runtime");
        post.write(
            "runtime",
            runtime.replace(
                "exec 9",
                "echo $((LISTEN_PID - $$)) $LISTEN_FDS >>$home/listen\nexec 9",
            ),
        );
        post.program("sleep 0.2");
        for more in ["--replace-listen-pid", ""] {
            let mut command = post.command(&format!("-b @/bundle -l none {more}"));
            command
                .env("LISTEN_PID", "1000000000")
                .env("LISTEN_FDS", "1");
            run_limited(command, b"", TIME_LIMIT).succeeds();
            post.wait();
        }
        let listen = post.read("listen");
        (
            listen.lines().next().unwrap().to_owned(),
            listen.lines().count(),
        )
    });
    assert_eq!(seen, ("0 1".to_owned(), 2));
}

#[test]
fn published_ports_are_held_until_the_end_and_not_longer() {
    let scene = Scene::new("conmon's inherited descriptors");
    same(&scene, |post| {
        post.write("held", "");
        with_exit_command(post);
        post.program("echo ready; sleep 0.6");
        let mut command = post.command(&format!("-b @/bundle -l @/log {EXIT_COMMAND}"));
        let line = r#"exec 8<"$HOME_OF_TEST/held"; exec "$0" "$@""#;
        let mut wrapped = scene.command("sh", ["-c", line]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.current_dir(&post.home);
        command = wrapped;
        run_limited(command, b"", TIME_LIMIT).succeeds();
        post.wait_for("log", "ready");
        let held = || {
            let files = scene.shell(&format!(
                "ls -l /proc/{}/fd 2>/dev/null || true",
                post.pid()
            ));
            files.contains("/held")
        };
        assert!(held());
        post.wait();
        assert_eq!(post.read("exit-command"), "one two 0\n");
    });
}

#[test]
fn what_it_says_of_itself_reaches_syslog_to_the_end() {
    let scene = Scene::new("conmon --syslog");
    let post = ours(&scene);
    let syslog = std::os::unix::net::UnixDatagram::bind(post.path("syslog")).unwrap();
    syslog.set_nonblocking(true).unwrap();
    post.write("refuses", "no such thing");
    let command = post.command("-b @/bundle -l none --syslog --log-level debug");
    // In a mount namespace of its own: the host's /dev/log is not touched.
    let place = r#"mount --rbind /dev "$HOME_OF_TEST/bundle"; mount -t tmpfs tmpfs /dev
        for name in null full; do touch /dev/$name; mount --bind "$HOME_OF_TEST/bundle/$name" /dev/$name; done
        umount -l "$HOME_OF_TEST/bundle"; ln -s "$HOME_OF_TEST/syslog" /dev/log; exec "$0" "$@""#;
    let mut wrapped = scene.command("unshare", ["-m", "sh", "-euc", place]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
        .current_dir(&post.home)
        .env("HOME_OF_TEST", &post.home);
    run_limited(wrapped, b"", TIME_LIMIT).succeeds();
    let mut said = String::new();
    scene.wait_until("the refusal is said", || {
        let mut text = [0; 4096];
        while let Ok(n) = syslog.recv(&mut text) {
            said.push_str(&String::from_utf8_lossy(&text[..n]));
        }
        said.contains("no such thing")
    });
    assert!(
        said.contains("<error>: ") && said.contains("<debug>: calling"),
        "{said}"
    );
    post.wait();
}
