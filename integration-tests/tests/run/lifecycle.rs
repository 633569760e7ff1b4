//! Commands on a container: exec, stop, names, start again, signals.

use super::*;

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

    let deaf = "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done";
    run(&scene, &["-d", "--name", "deaf"], deaf).succeeds();
    scene.wait_until("the trap is set", || {
        teu(&scene, &["logs", "deaf"]).stdout.contains("up")
    });
    let before = Instant::now();
    teu(&scene, &["stop", "-t", "1", "deaf"]).succeeds();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(teu(&scene, &["wait", "deaf"]).succeeds(), "137");
    // By the supervisor's own clock, a second and no more passed: nothing like the default's ten.
    let log = teu(&scene, &["logs", "--timestamps", "deaf"]).succeeds();
    let told = log.lines().find_map(|line| line.strip_suffix(" told"));
    let told: jiff::Timestamp = told.unwrap().parse().unwrap();
    let ended = inspect(&scene, "deaf")["state"]["exit"]["finished"].clone();
    let ended: jiff::Timestamp = ended.as_str().unwrap().parse().unwrap();
    assert!((ended - told).total(jiff::Unit::Second).unwrap() < 8.0);

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
    for (filter, count) in [
        ("name=first", 1),
        (
            "name=f",
            2 - usize::from(!name_of(&scene, &id).contains('f')),
        ),
        (&format!("id={}", &id[..8]), 1),
        ("image=busybox", 2),
        ("image=busy", 0),
        ("status=running", 2),
        ("status=exited", 0),
        ("exited=0", 0),
    ] {
        let shown = teu(&scene, &["ps", "-q", "--filter", filter]).succeeds();
        assert_eq!(shown.lines().count(), count, "{filter}: {shown}");
    }
    let whole = teu(&scene, &["ps", "-q", "--no-trunc", "-f", "name=first"]).succeeds();
    assert_eq!(whole.len(), 64);
    let _ = teu(&scene, &["ps", "-f", "label=x"]).fails(125, &["label=x", "name"]);
    let _ = teu(&scene, &["rm", &id[..12]]).fails(1, &["running", "rm -f"]);
    teu(&scene, &["rm", "-f", &id[..12], "first"]).succeeds();
    assert_eq!(teu(&scene, &["ps", "-aq"]).succeeds(), "");
    let _ = teu(&scene, &["rm", "first"]).fails(1, &["no such container"]);
    teu(&scene, &["rm", "-f", "first"]).succeeds();
}

fn name_of(scene: &Scene, id: &str) -> String {
    inspect(scene, id)["name"].as_str().unwrap().to_owned()
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
