//! What flags give the program: user, limits, volumes, a terminal.

use super::*;

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
fn a_terminal_has_a_size_and_takes_keys() {
    let scene = scene("terminal");
    let (teu, cgroup) = (teu_line(&scene), scene.cgroup());
    let run = format!("{teu} run --cgroup-parent {cgroup} --network none --rm -it busybox sh -c");
    let script = "stty size; tty; read x; echo got $x; exit 6";
    let mut terminal = Terminal::line(&scene, &format!("{run} '{script}'"));
    terminal.see("33 77\r\n");
    terminal.see("/dev/pts/0\r\n");
    terminal.types("key\n");
    terminal.see("got key\r\n");
    terminal.ends_with(6);
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

// `teu` names them without knowing them: a verb that its program has not would
// show only when someone types it.
#[test]
fn every_verb_of_its_help_has_a_help_of_its_own() {
    let scene = Scene::new("run verbs");
    let help = teu(&scene, &["--help"]).succeeds();
    let lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // What does not fit goes on in a line that is indented further.
    let verbs: Vec<_> = lines
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 30 && verbs.contains(&"copy"), "{verbs:?}");
    for verb in verbs {
        if verb != "help" {
            let _ = teu(&scene, &[verb, "--help"]).succeeds();
        }
    }
}
