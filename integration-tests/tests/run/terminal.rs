//! Leaving a container's terminal, and coming back.

use super::*;

#[test]
fn who_types_the_keys_leaves_it_running_and_can_come_back() {
    let scene = scene("detach keys");
    let (teu_line, cgroup) = (teu_line(&scene), scene.cgroup());
    let run = format!("{teu_line} run --cgroup-parent {cgroup} --network none -it");
    let script = "while read x; do echo got $x; done";
    let mut terminal = Terminal::line(&scene, &format!("{run} --name d busybox sh -c '{script}'"));
    terminal.takes_keys();
    terminal.types("one\n");
    terminal.see("got one");
    // A key of the row alone is the container's.
    terminal.types("\u{10}two\n");
    terminal.see("two\r\ngot ");
    terminal.types("\u{10}");
    terminal.types("\u{11}");
    terminal.ends_with(0);
    assert_eq!(state(&scene, "d"), "running");
    let attach = |flags: &str| {
        let mut terminal = Terminal::line(&scene, &format!("{teu_line} attach {flags} d"));
        terminal.takes_keys();
        terminal
    };
    let mut terminal = attach("--detach-keys ctrl-x,y");
    terminal.types("\u{10}\u{11}three\n");
    terminal.see("three\r\ngot ");
    terminal.types("\u{18}y");
    terminal.ends_with(0);
    assert_eq!(state(&scene, "d"), "running");
    // Without any, all are the container's: its terminal ends its input.
    let mut terminal = attach("--detach-keys ''");
    terminal.types("\u{10}\u{11}\n");
    terminal.see("got ");
    terminal.types("\u{4}");
    terminal.ends_with(0);
    wait_for_state(&scene, "d", "exited");
    teu(&scene, &["rm", "d"]).succeeds();
    let wrong = ["run", "-it", "--detach-keys", "ctrl-?", "busybox", "true"];
    let _ = teu(&scene, &wrong).fails(125, &["ctrl-?"]);
}

/// A container that sleeps, and the line that runs a program of it in a terminal.
fn sleeper(scene: &Scene) -> String {
    run(scene, &["-d", "--name", "e"], "sleep 300").succeeds();
    format!("{} exec -it", teu_line(scene))
}

#[test]
fn an_exec_session_is_left_in_the_same_way() {
    let scene = scene("detach keys of exec");
    let exec = sleeper(&scene);
    let loops = "while read x; do echo got $x; echo $x >> /tmp/read; done";
    let mut terminal = Terminal::line(&scene, &format!("{exec} e sh -c 'stty size; {loops}'"));
    terminal.see("33 77");
    terminal.takes_keys();
    terminal.types("one\n");
    terminal.see("got one");
    terminal.types("\u{10}two\n");
    terminal.see("two\r\ngot ");
    terminal.types("\u{10}");
    terminal.types("\u{11}");
    terminal.ends_with(0);
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
    scene.wait_until("both lines are read, and it lives", || {
        let script = "grep -c . /tmp/read; ps | grep -q '[w]hile read' && echo lives";
        reads(script).stdout == "2\nlives\n"
    });
    // It is ours from its first moment, and lets go of what it does not hold soon after.
    let files = || match &holders()[..] {
        [one] => scene.shell(&format!("ls -l /proc/{one}/fd; readlink /proc/{one}/cwd")),
        all => format!("{all:?}"),
    };
    scene.wait_until("one process holds the terminal alone", || {
        let files = files();
        files.matches(" -> ").count() == 3
            && files.matches(" -> /dev/null").count() == 2
            && files.contains("-> /dev/pt")
            && files.ends_with("\n/")
    });
    // What it says meanwhile is nobody's, and does not stop it.
    reads("head -c 300000 /dev/zero > /dev/pts/0").succeeds();
    teu(&scene, &["rm", "-f", "e"]).succeeds();
    scene.wait_until("nothing holds it any more", || holders().is_empty());
}

#[test]
fn an_exec_sessions_terminal_tells_how_it_ended() {
    let scene = scene("exec terminals");
    let exec = sleeper(&scene);
    let start = |words: &str| Terminal::line(&scene, &format!("{exec} {words}"));
    let typing = |words: &str| {
        let mut terminal = start(words);
        terminal.takes_keys();
        terminal
    };
    let shown = start("e sh -c 'printf unfinished; exit 7'").ends_with(7);
    assert!(shown.ends_with("unfinished"), "{shown}");
    start("e sh -c 'kill -9 $$'").ends_with(137);
    let shown = start("e nosuch").ends_with(127);
    assert!(
        shown.starts_with("teu: ") && shown.contains("nosuch"),
        "{shown}"
    );
    let mut terminal = typing("e cat");
    terminal.types("typed\n");
    terminal.see("typed\r\ntyped\r\n");
    terminal.types("\u{4}");
    terminal.ends_with(0);
    let mut terminal = typing("e sleep 100");
    terminal.types("\u{3}");
    terminal.ends_with(130);
    let mut terminal = typing("--detach-keys '' e cat");
    terminal.types("\u{10}\u{11}\n");
    terminal.types("\u{4}");
    terminal.ends_with(0);
    // Who stops it and comes back types keys, not lines; also into the first process.
    let first = "run -it --rm --network none busybox";
    for words in ["exec -it e", first] {
        let words = words.split(' ').chain(["cat"]);
        let mut terminal = Terminal::run(&scene.command("teu", words));
        terminal.takes_keys();
        terminal.stops_and_goes_on();
        terminal.takes_keys();
        terminal.types("\u{4}");
        terminal.ends_with(0);
    }
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
    // Who types more than a terminal holds for a program that does not listen can still leave.
    let mut terminal = typing("e sleep 100");
    for _ in 0..18 {
        terminal.types(&"line\n".repeat(640));
    }
    terminal.types("\u{10}\u{11}");
    terminal.ends_with(0);
    teu(&scene, &["rm", "-f", "e"]).succeeds();
}
