//! What changes while a build runs, and what a step must not take along.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use teu_integration_tests::{Outcome, Scene};

fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    scene
}

fn build(scene: &Scene, dockerfile: &str, arguments: &[&str]) -> Outcome {
    scene.write("context/Dockerfile", dockerfile);
    let all = [&["build", "--progress", "plain"], arguments, &["context"]].concat();
    scene.run("teu-build", all)
}

/// The step sees the user's own file, which changes after its key was computed.
#[test]
fn what_a_step_saw_of_a_context_that_changed_is_not_remembered() {
    let scene = scene("changing");
    scene.write("context/a.txt", "old\n");
    let dockerfile = "FROM busybox\nRUN --mount=type=bind,source=a.txt,target=/a --mount=type=cache,target=/k until [ -e /k/go ]; do sleep 0.05; done; cat /a > /seen\n";
    scene.write("context/Dockerfile", dockerfile);
    let arguments = ["build", "--progress", "plain", "-o", "out", "context"];
    let child = scene
        .command("teu-build", arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let caches = scene.path("data/store/cache/mounts");
    let cache = || std::fs::read_dir(&caches).ok()?.flatten().next();
    scene.wait_until("the step waits", || {
        cache().is_some_and(|entry| entry.path().join("0").is_dir())
    });
    scene.write("context/a.txt", "new\n");
    std::fs::write(cache().unwrap().path().join("0/go"), "").unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains("the context changed while the step"),
        "{said}"
    );
    assert_eq!(scene.shell("cat out/seen"), "new");
    // The old content has its own result, and the new one, too.
    for (content, cached) in [("old", 0), ("new", 0), ("old", 1)] {
        scene.write("context/a.txt", format!("{content}\n"));
        let outcome = build(&scene, dockerfile, &["-o", "out"]).exits(0);
        let found = outcome.stderr.matches("CACHED").count();
        assert_eq!(found, cached, "{}", outcome.stderr);
        assert_eq!(scene.shell("cat out/seen"), content);
    }
}

#[test]
fn files_bound_for_writing_keep_their_owner_and_pipes_are_refused() {
    let scene = scene("bound files");
    scene.write("context/f", "f\n");
    scene.shell("chown 7:8 context/f && chmod 4711 context/f && mkfifo context/p");
    let seen = "RUN --mount=type=bind,source=f,target=/f,rw [ $(stat -c %a:%u:%g /f) = 4711:7:8 ] && echo g >> /f && [ $(wc -l < /f) = 2 ]";
    let _ = build(&scene, &format!("FROM busybox\n{seen}\n"), &[]).exits(0);
    assert_eq!(
        scene.shell("cat context/f"),
        "f",
        "the context is as it was"
    );
    let pipe = "FROM busybox\nRUN --mount=type=bind,source=p,target=/p,rw true\n";
    build(&scene, pipe, &[]).fails(1, &["only files and directories can be bound for writing"]);
}

#[test]
fn secrets_end() {
    let scene = scene("secrets");
    let asks = "FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s | wc -c\n";
    build(&scene, asks, &["--secret", "id=s,src=/dev/zero"]).fails(1, &["more than 512000 bytes"]);
    scene.shell("mkfifo pipe; (printf 12345 > pipe) > /dev/null 2>&1 &");
    let outcome = build(&scene, asks, &["--secret", "id=s,src=pipe"]).exits(0);
    assert!(outcome.stderr.contains(" 5\n"), "{}", outcome.stderr);
}

#[test]
fn certificates_are_neither_copied_nor_seen_in_times() {
    let scene = scene("kept certificates");
    let certificate = |word: &str| {
        format!("-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n").repeat(2000)
    };
    scene.write("ours.pem", certificate("b3Vycw=="));
    scene.write("context/certs", certificate("dGhlaXJz"));
    let base = "FROM busybox\nCOPY certs /etc/ssl/certs/ca-certificates.crt\n";
    let with = |more: &str| {
        build(
            &scene,
            &format!("{base}RUN {more}\n"),
            &["--ca-bundle", "ours.pem"],
        )
    };
    for takes in [
        "cp /etc/ssl/certs/ca-certificates.crt /mine",
        "mv /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/old.crt",
        "mkdir /x && cat $SSL_CERT_FILE > /x/y",
        "chmod 600 /etc/ssl/certs/ca-certificates.crt",
    ] {
        with(takes).fails(1, &["the certificates of --ca-bundle in"]);
    }
    // Where the base has no bundle, too.
    let without = "FROM busybox\nRUN cp $CURL_CA_BUNDLE /mine\n";
    build(&scene, without, &["--ca-bundle", "ours.pem"]).fails(1, &["\"/mine\""]);
    let _ = with("head -c 100000 /etc/ssl/certs/ca-certificates.crt > /part").exits(0);
    // Directories that are copied up from above the bundle are as old as the base's.
    let old = "touch -d @5 /etc/ssl/certs/x /etc/ssl/certs";
    let dockerfile = format!("{base}RUN touch -d @5 /etc/ssl\nRUN {old}\n");
    let trusting = ["--no-cache", "--ca-bundle", "ours.pem"];
    let with = build(&scene, &dockerfile, &trusting).exits(0).stdout;
    let without = build(&scene, &dockerfile, &trusting[..1]).exits(0).stdout;
    assert_eq!(with, without);
}

/// Keys of files serve a step as an agent does, and nothing of ours stays behind.
#[test]
fn key_files_become_an_agent() {
    let scene = scene("key files");
    scene.shell("ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -q -t ed25519 -N secret -f locked && chmod 644 key");
    let asks = "FROM busybox\nRUN --mount=type=ssh,required [ -S $SSH_AUTH_SOCK ] && { printf '\\0\\0\\0\\1\\13'; sleep 1; } | nc local:$SSH_AUTH_SOCK | wc -c\nRUN --mount=type=ssh,id=x [ -z \"$SSH_AUTH_SOCK\" ]\n";
    let outcome = build(&scene, asks, &["--ssh", "default=key"]).exits(0);
    let socket = scene.shell("find data/store/tmp -name 'agent*' | wc -l");
    assert_eq!(socket, "0", "{}", outcome.stderr);
    build(&scene, asks, &["--ssh", "default=locked"]).fails(1, &["passphrase", "locked"]);
    build(&scene, asks, &["--ssh", "default=context/Dockerfile"])
        .fails(1, &["ssh-add does not take it"]);
    build(&scene, asks, &["--ssh", "default=none"]).fails(1, &["--ssh", "No such file"]);
    let mode = std::fs::metadata(scene.path("key")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o644, "the key is left as it is");
    let image = scene.shell("grep -rl 'OPENSSH PRIVATE' data || true");
    assert_eq!(image, "", "the key is in no file of ours");
}
