//! What is said on the command line, and the answers to what cannot be.

use super::post::{ID, ours, same};
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Outcome, Scene};

/// Runs a monitor with these words alone.
fn said(post: &super::post::Post, words: &str) -> Outcome {
    let home = post.home.display().to_string();
    let words = words.replace('@', &home);
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut command = post.scene.command(post.monitor.to_str().unwrap(), words);
    command.current_dir(&post.home);
    run_limited(command, b"", TIME_LIMIT)
}

#[test]
fn what_is_wrong_is_answered_as_conmon_does() {
    let scene = Scene::new("conmon's command line");
    let known = format!("-c {ID} -u {ID} -r @/runtime");
    let lines = [
        "",
        "--bogus",
        "-z",
        "-cx",
        "-t=3",
        "--cid",
        "-it -c",
        "-T abc",
        "--log-size-max 10k",
        "--exit-delay 99999999999",
        "--exit-delay=",
        "-- --version",
        "-c x -u y -r /tmp --log-level foo -l none",
        &format!("{known} -l k8s-file"),
        &format!("{known} -l k8s-file:"),
        &format!("{known} -l foo:bar"),
        &format!("{known} -l @/log -l foo:"),
        &format!("{known} -l :"),
    ];
    same(&scene, |post| {
        let answers = lines.iter().map(|line| {
            let outcome = said(post, line);
            (
                line.to_owned(),
                outcome.code(),
                outcome.stdout,
                outcome.stderr,
            )
        });
        answers.collect::<Vec<_>>()
    });
    // Where conmon writes "[conmon:e] WORDS" and we "[conmon:e]: WORDS" everywhere.
    let lines = [
        "-c x".to_owned(),
        "-c x -u y".to_owned(),
        "-c x -u y -r /nonexistent".to_owned(),
        known.clone(),
        format!("{known} --exec"),
        format!("{known} --exec-attach"),
        format!("{known} --exec --exec-attach"),
        format!("{known} --exec --restore x"),
        format!("{known} --exit-delay -3 -l none"),
        format!("{known} -l @/log --log-tag x"),
        "-c short -u y -r @/runtime -l journald".to_owned(),
    ];
    same(&scene, |post| {
        let answers = lines.iter().map(|line| {
            let outcome = said(post, line);
            let words = outcome.stderr.replace("]:", "]");
            let words = words
                .split(" No such file")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
            (
                line.clone(),
                outcome.code(),
                outcome.stdout,
                words.replace(": ", " "),
            )
        });
        answers.collect::<Vec<_>>()
    });
}

#[test]
fn a_version_that_callers_parse() {
    let scene = Scene::new("conmon --version");
    let post = ours(&scene);
    let text = said(&post, "--log-tag=äöüß --version").succeeds();
    let mut lines = text.lines();
    let version = lines
        .next()
        .unwrap()
        .strip_prefix("conmon version ")
        .unwrap();
    let numbers: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(numbers >= vec![2, 1, 6], "{numbers:?}");
    assert!(lines.next().unwrap().starts_with("commit: "));
    let help = said(&post, "--help").succeeds();
    for option in [
        "--exec-process-spec",
        "-b, --bundle",
        "--log-rotate",
        "--sdnotify-socket",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

/// Options that conmon has since 2.1.6, and their words.
#[test]
fn newer_options_are_checked_in_the_same_words() {
    let scene = Scene::new("conmon's newer options");
    let post = ours(&scene);
    let known = format!("-c {ID} -u {ID} -r @/runtime");
    for (line, words) in [
        (
            "-l journald: --log-label A",
            "Container labels must be in format LABEL=VALUE",
        ),
        (
            "-l journald: --log-label A=b=c",
            "Container labels must be in format LABEL=VALUE",
        ),
        (
            "-l journald: --log-label =b",
            "Container labels must be in format LABEL=VALUE",
        ),
        (
            "-l journald: --log-label A%=b",
            "only uppercase letters, numbers and underscore",
        ),
        (
            "-l @/log --log-label A=b",
            "k8s-file doesn't support --log-label",
        ),
        (
            "-l @/log --log-rotate --log-max-files -1",
            "log-max-files must be non-negative",
        ),
        (
            "-l @/log --log-rotate --log-max-files 1001",
            "log-max-files cannot exceed 1000",
        ),
        (
            "-l @/log --log-rotate --log-max-files 0",
            "must be at least 1 when log-rotate is enabled",
        ),
        (
            "-l @/log --log-allowlist-dirs /proc",
            "--log-allowlist-dirs",
        ),
        ("-l /nonexistent/x", "Failed to open log file"),
    ] {
        let _ = said(&post, &format!("{known} {line}")).fails(1, &[words]);
    }
    post.program("true");
    let warned = post.start("-l @/log --no-container-partial-message");
    assert!(
        warned.stderr.contains("no effect without journald"),
        "{warned}"
    );
    warned.succeeds();
    post.wait();
    let mode = scene.shell(&format!("stat -c %a {}", post.path("log").display()));
    assert_eq!(mode, "640");
}

/// Asked for what only a plugin could do, it does what a conmon without seccomp does.
#[test]
fn seccomp_plugins_are_refused_before_anything_is_done() {
    let scene = Scene::new("conmon's seccomp plugins");
    let post = ours(&scene);
    post.program("true");
    let socket = "-b @/bundle -l none --sync --seccomp-notify-socket @/seccomp";
    for (line, words) in [
        (socket.to_owned(), "specified without any plugin"),
        (
            format!("{socket} --seccomp-notify-plugins a.so:b.so"),
            "seccomp support not present",
        ),
    ] {
        let _ = run_limited(post.command(&line), b"", TIME_LIMIT).fails(1, &[words]);
    }
    assert_eq!(post.read("calls"), "");
    let help = said(&post, "--help").succeeds();
    assert!(!help.contains("seccomp"), "{help}");
    // Nobody would ask them.
    post.start("-l none --seccomp-notify-plugins a.so")
        .succeeds();
    post.wait();
    assert!(post.read("calls").contains("create"));
}

#[test]
fn nothing_is_done_where_the_socket_is_missing_that_was_promised() {
    let scene = Scene::new("conmon without its attach pipe");
    let post = ours(&scene);
    let mut command =
        post.command("-b @/bundle -l none --sync -e --exec-process-spec @/x --exec-attach");
    command.env_remove("_OCI_ATTACHPIPE");
    let _ = run_limited(command, b"", TIME_LIMIT)
        .fails(1, &["--attach specified but _OCI_ATTACHPIPE was not"]);
    assert_eq!(post.read("calls"), "");
}
