//! `teu run` and what follows it: exit statuses, logs, signals, exec, stop,
//! volumes, limits; and that nothing is left whoever is killed when.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use teu_integration_tests::{Outcome, Scene, binary, missing_command, skip_unless};

/// A scene with an image `busybox`.
fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    scene
}

/// `teu run FLAGS busybox sh -c SCRIPT` without a network.
fn run(scene: &Scene, flags: &[&str], script: &str) -> Outcome {
    let words = [
        &["run", "--network", "none"],
        flags,
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    scene.run("teu", words)
}

fn teu(scene: &Scene, words: &[&str]) -> Outcome {
    scene.run("teu", words)
}

/// `teu` with its global flags, for shell scripts.
fn teu_line(scene: &Scene) -> String {
    let (data, state) = (scene.data(), scene.state());
    format!(
        "{} --root {} --state {}",
        binary("teu").display(),
        data.display(),
        state.display()
    )
}

/// Starts `teu run` in the foreground and leaves it running.
fn start(scene: &Scene, flags: &[&str], script: &str) -> Child {
    let words = [
        &["run", "--network", "none"],
        flags,
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    let mut command = scene.command("teu", words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn inspect(scene: &Scene, name: &str) -> Value {
    let shown = teu(scene, &["inspect", name]).succeeds();
    serde_json::from_str::<Value>(&shown).unwrap()[0].take()
}

fn state(scene: &Scene, name: &str) -> String {
    inspect(scene, name)["state"]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn wait_for_state(scene: &Scene, name: &str, wanted: &str) {
    scene.wait_until(&format!("{name} is {wanted}"), || {
        teu(scene, &["inspect", name]).status.success() && state(scene, name) == wanted
    });
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn kill_supervisor(scene: &Scene, name: &str) {
    let pid = inspect(scene, name)["state"]["supervisor_pid"]
        .as_u64()
        .unwrap();
    kill(u32::try_from(pid).unwrap());
}

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
fn flags_reach_the_program() {
    let scene = scene("flags");
    let flags = [
        "--rm",
        "-e",
        "ONE=1",
        "-e",
        "TEU_TEST_SCENE",
        "-w",
        "/tmp",
        "-u",
        "app",
        "--hostname",
        "ship",
        "--read-only",
        "--pids-limit",
        "50",
        "--tmpfs",
        "/scratch",
    ];
    let script = "pwd; echo $ONE; echo ${TEU_TEST_SCENE%%-*}; id -un; id -G; hostname; touch /x; touch /scratch/y && echo written";
    let shown = run(&scene, &flags, script);
    assert_eq!(
        shown.stdout, "/tmp\n1\nteu\napp\n1000 2000\nship\nwritten\n",
        "{shown}"
    );
    assert!(shown.stderr.contains("Read-only file system"), "{shown}");
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "echo",
        "busybox",
        "an",
        "argument",
    ];
    assert_eq!(teu(&scene, &words).succeeds(), "an argument");
    scene.write("variables", "# a comment\nFROM_FILE=yes\n");
    let shown = run(
        &scene,
        &["--rm", "--env-file", "variables"],
        "echo $FROM_FILE",
    );
    assert_eq!(shown.succeeds(), "yes");
}

#[test]
fn volumes_of_the_host_of_ours_and_of_the_container() {
    let scene = scene("volumes");
    scene.write("shared/file", "from the host");
    let host = format!("{}:/data", scene.path("shared").display());
    let shown = run(
        &scene,
        &["--rm", "-v", &host],
        "cat /data/file; echo back > /data/answer",
    );
    assert_eq!(shown.succeeds(), "from the host");
    assert_eq!(
        std::fs::read_to_string(scene.path("shared/answer")).unwrap(),
        "back\n"
    );
    let read_only = format!("{host}:ro");
    let _ =
        run(&scene, &["--rm", "-v", &read_only], "echo x > /data/answer").fails(1, &["Read-only"]);

    run(
        &scene,
        &["--rm", "-v", "kept:/etc"],
        "echo kept > /etc/kept",
    )
    .succeeds();
    let shown = run(
        &scene,
        &["--rm", "-v", "kept:/v"],
        "cat /v/kept; head -n 1 /v/passwd",
    );
    assert!(
        shown.succeeds().starts_with("kept\nroot:"),
        "a new volume has the image's content"
    );
    run(&scene, &["--rm", "-v", "/own"], "echo x > /own/x").succeeds();
    let volumes: Vec<_> = std::fs::read_dir(scene.data().join("volumes"))
        .unwrap()
        .collect();
    assert_eq!(volumes.len(), 1, "the container's own volume goes with it");
    let _ = run(&scene, &["--rm", "-v", "a/b:/x"], "true").fails(125, &["a/b"]);
}

#[test]
fn another_command_runs_in_a_running_container() {
    let scene = scene("exec");
    run(&scene, &["-d", "--name", "e", "-e", "BASE=b"], "sleep 300").succeeds();
    let exec = |words: &[&str]| teu(&scene, &[&["exec"], words].concat());
    assert_eq!(exec(&["e", "sh", "-c", "echo $BASE"]).succeeds(), "b");
    let words = [
        "-e",
        "ADDED=a",
        "-w",
        "/tmp",
        "-u",
        "app",
        "e",
        "sh",
        "-c",
        "echo $ADDED; pwd; id -u; id -G; echo $HOME",
    ];
    assert_eq!(
        exec(&words).succeeds(),
        "a\n/tmp\n1000\n1000 2000\n/home/app"
    );
    let _ = exec(&["e", "sh", "-c", "exit 9"]).exits(9);
    let _ = exec(&["e", "sh", "-c", "exit 255"]).exits(255);
    let _ = exec(&["e", "nosuch"]).fails(127, &["nosuch"]);
    let _ = exec(&["e", "/etc/passwd"]).fails(126, &["/etc/passwd"]);
    let _ = exec(&["-u", "nobody-here", "e", "true"]).fails(125, &["nobody-here", "/etc/passwd"]);
    let piped = scene.run_with_input("teu", ["exec", "-i", "e", "cat"], b"piped");
    assert_eq!(piped.succeeds(), "piped");
    exec(&["-d", "e", "touch", "/tmp/detached"]).succeeds();
    scene.wait_until("the detached command ran", || {
        exec(&["e", "test", "-e", "/tmp/detached"]).status.success()
    });
    teu(&scene, &["rm", "-f", "e"]).succeeds();
    let _ = exec(&["e", "true"]).fails(125, &["no such container"]);
}

#[test]
fn stop_asks_first_and_kills_those_who_do_not_listen() {
    let scene = scene("stop");
    let polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    run(&scene, &["-d", "--name", "polite"], polite).succeeds();
    scene.wait_until("the trap is set", || {
        teu(&scene, &["logs", "polite"]).stdout.contains("up")
    });
    teu(&scene, &["stop", "polite"]).succeeds();
    assert_eq!(teu(&scene, &["wait", "polite"]).succeeds(), "3");
    assert_eq!(teu(&scene, &["logs", "polite"]).succeeds(), "up\nbye");

    run(&scene, &["-d", "--name", "deaf"], "trap '' TERM; sleep 300").succeeds();
    let before = Instant::now();
    teu(&scene, &["stop", "-t", "1", "deaf"]).succeeds();
    assert!((1..6).contains(&before.elapsed().as_secs()));
    assert_eq!(teu(&scene, &["wait", "deaf"]).succeeds(), "137");

    let other = "trap 'exit 5' INT; echo up; while :; do sleep 0.05; done";
    run(
        &scene,
        &["-d", "--name", "other", "--stop-signal", "INT"],
        other,
    )
    .succeeds();
    scene.wait_until("the trap is set", || {
        teu(&scene, &["logs", "other"]).stdout.contains("up")
    });
    teu(&scene, &["stop", "other"]).succeeds();
    assert_eq!(teu(&scene, &["wait", "other"]).succeeds(), "5");
    teu(&scene, &["rm", "polite", "deaf", "other"]).succeeds();
}

#[test]
fn containers_have_names_and_are_listed() {
    let scene = scene("names");
    run(&scene, &["-d", "--name", "first"], "sleep 300").succeeds();
    let id = run(&scene, &["-d"], "sleep 300").succeeds();
    let _ = run(&scene, &["--name", "first"], "true").fails(125, &["first", "used by"]);
    let _ = run(&scene, &["--name", "../x"], "true").fails(125, &["../x"]);
    let lines = teu(&scene, &["ps", "--format", "json"]).succeeds();
    let shown: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown.len(), 2);
    assert!(
        shown
            .iter()
            .all(|line| line["status"] == "running" && line["image"] == "busybox")
    );
    let _ = teu(&scene, &["rm", &id[..12]]).fails(1, &["running", "rm -f"]);
    teu(&scene, &["rm", "-f", &id[..12], "first"]).succeeds();
    assert_eq!(teu(&scene, &["ps", "-aq"]).succeeds(), "");
    let _ = teu(&scene, &["rm", "first"]).fails(1, &["no such container"]);
    teu(&scene, &["rm", "-f", "first"]).succeeds();
}

#[test]
fn a_container_can_be_created_started_and_started_again() {
    let scene = scene("create");
    let cgroup = scene.cgroup();
    let script = "cat /count 2>/dev/null; echo x >> /count; exit 4";
    let words = [
        "create",
        "--cgroup-parent",
        &cgroup,
        "--network",
        "none",
        "--name",
        "c",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    teu(&scene, &words).succeeds();
    assert_eq!(state(&scene, "c"), "created");
    assert_eq!(teu(&scene, &["start", "-a", "c"]).exits(4).stdout, "");
    let again = teu(&scene, &["start", "-a", "c"]).exits(4);
    assert_eq!(again.stdout, "x\n", "what it has written is still there");
    assert_eq!(teu(&scene, &["logs", "c"]).succeeds(), "x");
    teu(&scene, &["rm", "c"]).succeeds();
}

#[test]
fn signals_are_passed_on() {
    let scene = scene("signals");
    let script = "trap 'exit 33' USR1; echo up; while :; do sleep 0.05; done";
    let mut child = start(&scene, &["--rm"], script);
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(33));
}

#[test]
fn a_terminal_has_a_size_and_takes_keys() {
    let scene = scene("terminal");
    skip_unless!(
        scene,
        !missing_command("script"),
        "no script(1) to make a terminal with"
    );
    let (teu, cgroup) = (teu_line(&scene), scene.cgroup());
    let run = format!("{teu} run --cgroup-parent {cgroup} --network none --rm -it busybox sh -c");
    let typed = scene.shell(&format!(
        "(sleep 2; printf 'key\\n'; sleep 1) | script -qec \"stty rows 33 cols 77; {run} 'stty size; tty; read x; echo got \\$x; exit 6'\" /dev/null || echo status $?"
    ));
    for part in ["33 77\r\n", "/dev/pts/0\r\n", "got key\r\n", "status 6"] {
        assert!(typed.contains(part), "{part:?} not in {typed:?}");
    }
    let _ = scene
        .run(
            "teu",
            ["run", "--rm", "-it", "--network", "none", "busybox", "true"],
        )
        .fails(125, &["not a terminal"]);
}

#[test]
fn running_out_of_memory_is_told() {
    let scene = scene("oom");
    skip_unless!(
        scene,
        Path::new("/sys/fs/cgroup/memory").exists()
            || Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        "no memory cgroups"
    );
    let _ = run(
        &scene,
        &["--name", "o", "-m", "24m"],
        "x=a; while :; do x=$x$x; done",
    )
    .exits(137);
    assert_eq!(inspect(&scene, "o")["state"]["exit"]["oom"], true);
    assert!(
        teu(&scene, &["ps", "-a"])
            .succeeds()
            .contains("out of memory")
    );
    teu(&scene, &["rm", "o"]).succeeds();
}

#[test]
fn a_container_outlives_the_command_that_started_it() {
    let scene = scene("kill teu");
    let mut child = start(
        &scene,
        &["--name", "k"],
        "echo one; sleep 1; echo two; exit 3",
    );
    wait_for_state(&scene, "k", "running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(teu(&scene, &["wait", "k"]).succeeds(), "3");
    assert_eq!(teu(&scene, &["logs", "k"]).succeeds(), "one\ntwo");
    teu(&scene, &["rm", "k"]).succeeds();

    let mut child = start(&scene, &["--name", "k", "--rm"], "sleep 0.5; exit 3");
    wait_for_state(&scene, "k", "running");
    child.kill().unwrap();
    child.wait().unwrap();
    scene.wait_until("the supervisor removed it", || {
        teu(&scene, &["ps", "-aq"]).stdout.is_empty()
    });
}

#[test]
fn an_orphans_status_is_true_or_unknown() {
    let scene = scene("kill shim");
    // Each ends when it is told to, however slow the machine is.
    let until_told = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3";
    let tell = |name| teu(&scene, &["exec", name, "touch", "/tmp/go"]).succeeds();
    run(&scene, &["-d", "--name", "k"], until_told).succeeds();
    kill_supervisor(&scene, "k");
    wait_for_state(&scene, "k", "unsupervised");
    tell("k");
    let waited = teu(&scene, &["wait", "k"]);
    assert!(
        ["3\n", "unknown\n"].contains(&waited.stdout.as_str()),
        "{waited}"
    );

    run(&scene, &["-d", "--name", "l"], until_told).succeeds();
    kill_supervisor(&scene, "l");
    tell("l");
    wait_for_state(&scene, "l", "lost");
    let waited = teu(&scene, &["wait", "l"]).exits(1);
    assert_eq!(waited.stdout, "unknown\n");

    run(&scene, &["-d", "--name", "m"], "sleep 300").succeeds();
    kill_supervisor(&scene, "m");
    wait_for_state(&scene, "m", "unsupervised");
    assert_eq!(
        teu(&scene, &["exec", "m", "echo", "alive"]).succeeds(),
        "alive"
    );
    teu(&scene, &["rm", "-f", "k", "l", "m"]).succeeds();
}

/// What stands in a folder of the scene's data, which may not exist yet.
fn entries(scene: &Scene, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(scene.data().join(folder))
        .into_iter()
        .flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The scene's end checks that nothing is left.
#[test]
fn whoever_is_killed_when_everything_can_be_removed() {
    let scene = scene("random kills");
    // Spread over the life of a run, and the same every time.
    for round in 0..24u64 {
        let name = format!("r{round}");
        let mut child = start(
            &scene,
            &["--name", &name, "-v", "/own"],
            "echo a; sleep 0.1; exit 7",
        );
        std::thread::sleep(Duration::from_millis(round * 37 % 290));
        if round % 3 != 1 {
            child.kill().unwrap();
        }
        if round % 3 != 0 {
            let supervisors = scene.run(
                "pgrep",
                [
                    "-f",
                    &format!("teu-shim run --root {}", scene.data().display()),
                ],
            );
            for pid in supervisors.stdout.lines() {
                let _ = scene.run("kill", ["-KILL", pid]);
            }
        }
        child.wait().unwrap();
        for id in entries(&scene, "containers") {
            teu(&scene, &["rm", "-f", &id]).succeeds();
        }
        assert_eq!(teu(&scene, &["ps", "-aq"]).succeeds(), "");
    }
    for folder in ["containers", "names", "tmp", "volumes"] {
        let left = entries(&scene, folder);
        assert!(left.is_empty(), "left in {folder}: {left:?}");
    }
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

/// Nobody but the owner reaches a supervisor: it has no abstract socket, which
/// a container on the host's network could connect to (CVE-2020-15257), and its
/// folder is closed to others.
#[test]
fn supervisors_are_reached_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene("sockets");
    run(&scene, &["-d", "--name", "closed"], "sleep 300").succeeds();
    let shown = inspect(&scene, "closed");
    let (pid, id) = (&shown["state"]["supervisor_pid"], shown["id"].as_str());
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.strip_suffix(']')?.to_owned())
        })
        .collect();
    assert!(!inodes.is_empty(), "it listens");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        if inodes.iter().any(|inode| inode == fields[6]) {
            let path = fields.get(7).copied().unwrap_or_default();
            assert!(!path.starts_with('@'), "{line}");
        }
    }
    let folder = scene.data().join("containers").join(id.unwrap());
    let mode = |path: &Path| {
        std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode(&folder) & 0o077, 0);
    for socket in ["attach", "ctl"] {
        assert_eq!(mode(&folder.join(socket)) & 0o077, 0, "{socket}");
    }
    teu(&scene, &["rm", "-f", "closed"]).succeeds();
}

/// Also after commands with a lot of output (CVE-2022-31030, CVE-2025-64329).
#[test]
fn an_idle_supervisor_is_small() {
    let scene = scene("memory");
    let script = "head -c 50000000 /dev/zero; sleep 300";
    run(&scene, &["-d", "--name", "idle"], script).succeeds();
    let pid = inspect(&scene, "idle")["state"]["supervisor_pid"].clone();
    let is_small = || {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup.lines().find(|l| l.starts_with("Private_Dirty:"));
        let private = line.unwrap().split_whitespace().nth(1).unwrap();
        // A build for development is larger in its text, not in what it writes to.
        let kib: u64 = private.parse().unwrap();
        assert!(kib <= 300, "{kib} KiB of private memory: {rollup}");
        let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let descriptors = folder.count();
        assert!(descriptors <= 20, "{descriptors} descriptors");
    };
    is_small();
    for _ in 0..10 {
        let words = ["exec", "idle", "head", "-c", "5000000", "/dev/zero"];
        assert_eq!(teu(&scene, &words).succeeds().len(), 5_000_000);
    }
    is_small();
    teu(&scene, &["rm", "-f", "idle"]).succeeds();
}
