//! What the program says and how it ends: streams, log, status.

use super::*;

#[test]
fn the_status_is_the_programs() {
    let scene = scene("statuses");
    for (script, status) in [
        ("true", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("sleep 60 & kill -TERM $!; wait $!", 143),
        ("sleep 60 & kill -KILL $!; wait $!", 137),
    ] {
        let _ = run(&scene, &["--rm"], script).exits(status);
    }
    run(&scene, &["-d", "--name", "killed"], "sleep 60").succeeds();
    teu(&scene, &["kill", "killed"]).succeeds();
    assert_eq!(teu(&scene, &["wait", "killed"]).succeeds(), "137");
    let exit = &inspect(&scene, "killed")["state"]["exit"];
    assert_eq!(
        (&exit["status"], &exit["signal"], &exit["oom"]),
        (&137.into(), &9.into(), &false.into())
    );
    teu(&scene, &["rm", "killed"]).succeeds();
}

#[test]
fn output_goes_to_its_stream_and_into_the_log() {
    let scene = scene("streams");
    let outcome = run(
        &scene,
        &["--name", "s"],
        "echo out; echo err >&2; printf unfinished",
    );
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\nunfinished", "err\n")
    );
    let logs = teu(&scene, &["logs", "s"]);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("out\nunfinished", "err\n")
    );
    let text = std::fs::read_to_string(inspect(&scene, "s")["log"].as_str().unwrap()).unwrap();
    let ends: Vec<&str> = text
        .lines()
        .map(|line| &line["2026-01-31T23:59:59.123456789Z".len()..])
        .collect();
    for end in [" stdout F out", " stderr F err", " stdout P unfinished"] {
        assert!(ends.contains(&end), "{end:?} not in {text}");
    }
    assert_eq!(
        teu(&scene, &["logs", "--tail", "1", "s"]).stdout,
        "unfinished"
    );
    assert!(teu(&scene, &["logs", "-t", "s"]).stdout.contains("Z out\n"));
    teu(&scene, &["rm", "s"]).succeeds();
}

#[test]
fn no_byte_of_the_output_is_lost() {
    let scene = scene("bytes");
    scene.shell("head -c 8000000 /dev/urandom > noise");
    let teu = teu_line(&scene);
    let folder = scene.path("noise").display().to_string();
    let cgroup = scene.cgroup();
    scene.shell(&format!(
        "{teu} run --cgroup-parent {cgroup} --network none --name n -v {folder}:/noise:ro busybox cat /noise > seen
         cmp noise seen
         {teu} logs n | cmp noise -
         {teu} rm n
         # through a pipe that nobody reads for a while, and in by standard input
         {teu} run --cgroup-parent {cgroup} --network none --rm -i busybox cat < noise | (sleep 1; cat) | cmp noise -"
    ));
}

#[test]
fn logs_can_be_followed_to_the_end() {
    let scene = scene("follow");
    run(
        &scene,
        &["-d", "--name", "f"],
        "for i in 1 2 3; do echo $i; sleep 0.2; done",
    )
    .succeeds();
    assert_eq!(teu(&scene, &["logs", "-f", "f"]).succeeds(), "1\n2\n3");
    teu(&scene, &["rm", "f"]).succeeds();
}

#[test]
fn a_full_disk_loses_neither_output_nor_status() {
    let scene = scene("full disk");
    let (teu, state, cgroup) = (
        binary("teu").display().to_string(),
        scene.state(),
        scene.cgroup(),
    );
    let (state, store) = (state.display(), binary("teu-store").display().to_string());
    let flags = format!("--cgroup-parent {cgroup} --network none");
    // In a mount namespace of its own: the file system goes with it.
    let script = format!(
        "mkdir small; mount -t tmpfs -o size=12m tmpfs small
         {store} --root small/store import busybox.tar busybox > /dev/null
         teu='{teu} --root small --state {state}'
         $teu run -d {flags} --name full busybox sh -c 'sleep 1; seq 1 400000; exit 5' > /dev/null
         sleep 4; $teu inspect full | grep -c '\"status\": \"running\"'
         mount -o remount,size=64m small; $teu wait full
         $teu logs full | cmp - expected && echo whole
         $teu rm full > /dev/null"
    );
    scene.shell("seq 1 400000 > expected");
    let shown = scene
        .run("unshare", ["-m", "sh", "-euc", &script])
        .succeeds();
    assert_eq!(shown, "1\n5\nwhole");
}
