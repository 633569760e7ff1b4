//! Leaving a container's terminal, and coming back.

use super::*;

/// Types, with pauses, into what script(1) makes a terminal for; what is shown in it.
fn typed(scene: &Scene, keys: &[&str], command: &str) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|keys| format!("sleep 1; printf '{keys}'; "))
        .collect();
    scene.shell(&format!(
        "({}sleep 1) | script -qec \"{command}\" /dev/null && echo status 0 || echo status $?",
        keys.concat()
    ))
}

#[test]
fn who_types_the_keys_leaves_it_running_and_can_come_back() {
    let scene = scene("detach keys");
    skip_unless!(
        scene,
        !missing_command("script"),
        "no script(1) to make a terminal with"
    );
    let (teu_line, cgroup) = (teu_line(&scene), scene.cgroup());
    let run = format!("{teu_line} run --cgroup-parent {cgroup} --network none -it");
    let script = "while read x; do echo got \\$x; done";
    // A key of the row alone is the container's.
    let shown = typed(
        &scene,
        &["one\\n", "\\020two\\n", "\\020", "\\021"],
        &format!("{run} --name d busybox sh -c '{script}'"),
    );
    assert!(
        shown.contains("got one") && shown.contains("two"),
        "{shown}"
    );
    assert!(shown.contains("status 0"), "{shown}");
    assert_eq!(state(&scene, "d"), "running");
    let keys = "--detach-keys ctrl-x,y";
    let shown = typed(
        &scene,
        &["\\020\\021three\\n", "\\030y"],
        &format!("{teu_line} attach {keys} d"),
    );
    assert!(
        shown.contains("three") && shown.contains("status 0"),
        "{shown}"
    );
    assert_eq!(state(&scene, "d"), "running");
    // Without any, all are the container's: its terminal ends its input.
    let shown = typed(
        &scene,
        &["\\020\\021\\n", "\\004"],
        &format!("{teu_line} attach --detach-keys '' d"),
    );
    assert!(shown.contains("status 0"), "{shown}");
    wait_for_state(&scene, "d", "exited");
    teu(&scene, &["rm", "d"]).succeeds();
    let wrong = ["run", "-it", "--detach-keys", "ctrl-?", "busybox", "true"];
    let _ = teu(&scene, &wrong).fails(125, &["ctrl-?"]);
}

#[test]
fn an_exec_session_is_left_in_the_same_way() {
    let scene = scene("detach keys of exec");
    skip_unless!(
        scene,
        !missing_command("script"),
        "no script(1) to make a terminal with"
    );
    run(&scene, &["-d", "--name", "e"], "sleep 300").succeeds();
    let exec = format!("{} exec -it", teu_line(&scene));
    let loops = "while read x; do echo got \\$x; echo \\$x >> /tmp/read; done";
    let command = format!("stty rows 33 cols 77; {exec} e sh -c 'stty size; {loops}'");
    let shown = typed(
        &scene,
        &["one\\n", "\\020two\\n", "\\020", "\\021"],
        &command,
    );
    for part in ["33 77", "got one", "two", "status 0"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // Brackets: what looks for them is none of them.
    let pattern = format!("{exec} e").replacen("/teu ", "/[t]eu ", 1);
    let holders = || {
        let list = scene.shell(&format!("pgrep -f '{pattern}' || true"));
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // It goes on, with its terminal, which one process of ours holds and nothing else.
    let reads = |script: &str| teu(&scene, &["exec", "e", "sh", "-c", script]);
    let found = reads("grep -c . /tmp/read; ps | grep -q '[w]hile read' && echo lives");
    assert_eq!(found.succeeds(), "2\nlives");
    let held = holders();
    assert_eq!(held.len(), 1, "{held:?}");
    let files = scene.shell(&format!("ls -l /proc/{}/fd", held[0]));
    assert!(
        files.contains("-> /dev/pts/") || files.contains("-> /dev/ptmx"),
        "{files}"
    );
    assert_eq!(files.matches(" -> ").count(), 3, "{files}");
    // What it says meanwhile is nobody's, and does not stop it.
    reads("head -c 300000 /dev/zero > /dev/pts/0").succeeds();
    teu(&scene, &["rm", "-f", "e"]).succeeds();
    scene.wait_until("nothing holds it any more", || holders().is_empty());
}

#[test]
fn an_exec_sessions_terminal_tells_how_it_ended() {
    let scene = scene("exec terminals");
    skip_unless!(
        scene,
        !missing_command("script"),
        "no script(1) to make a terminal with"
    );
    run(&scene, &["-d", "--name", "e"], "sleep 300").succeeds();
    let exec = format!("{} exec -it", teu_line(&scene));
    let cases = [
        (
            "",
            "sh -c 'printf unfinished; exit 7'",
            &[][..],
            &["unfinished", "status 7"][..],
        ),
        ("", "sh -c 'kill -9 \\$\\$'", &[], &["status 137"]),
        ("", "nosuch", &[], &["teu: ", "nosuch", "status 127"]),
        ("", "cat", &["typed\\n", "\\004"], &["typed", "status 0"]),
        ("", "sleep 100", &["\\003"], &["status 130"]),
        (
            "--detach-keys ''",
            "cat",
            &["\\020\\021\\n", "\\004"],
            &["status 0"],
        ),
    ];
    std::thread::scope(|threads| {
        for (options, program, keys, parts) in cases {
            let (scene, exec) = (&scene, &exec);
            threads.spawn(move || {
                let shown = typed(scene, keys, &format!("{exec} {options} e {program}"));
                for part in parts {
                    assert!(shown.contains(part), "{part} in {shown}");
                }
            });
        }
    });
    // Without input, and with a reader that has no terminal.
    let out = teu(&scene, &["exec", "-t", "e", "sh", "-c", "tty; exit 3"]).exits(3);
    assert_eq!(out.stdout, "/dev/pts/0\r\n");
    let wrong = teu(&scene, &["exec", "-it", "e", "true"]);
    let _ = wrong.fails(125, &["not a terminal"]);
    let folder = inspect(&scene, "e")["log"].as_str().unwrap().to_owned();
    let left = scene.shell(&format!(
        "ls {}",
        Path::new(&folder).parent().unwrap().display()
    ));
    assert!(!left.contains("exec-"), "{left}");
    teu(&scene, &["rm", "-f", "e"]).succeeds();
}
