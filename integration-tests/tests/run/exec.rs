//! `teu exec`: what it says, and what becomes of its process.

use super::*;
use std::process::Child;

#[test]
fn what_goes_wrong_is_teus_to_say_and_what_is_said_is_the_processs() {
    let scene = scene("exec words");
    run(&scene, &["-d", "--name", "e"], "sleep 300").succeeds();
    let exec = |words: &[&str]| teu(&scene, &[&["exec", "e"], words].concat());
    let failed = exec(&["nosuch"]).exits(127);
    let lines: Vec<&str> = failed.stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("teu: ") && lines[0].contains("nosuch"),
        "{failed}"
    );
    // At once, long after the start, and with nothing else but what was said.
    let said = exec(&[
        "sh",
        "-c",
        "printf 1 >&2; sleep 0.3; printf 2 >&2; exit 255",
    ])
    .exits(255);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "12"));
    let much = exec(&["sh", "-c", "head -c 300000 /dev/zero >&2"]);
    assert_eq!(much.stderr.len(), 300_000);
    // What goes on with its streams keeps nobody waiting.
    let before = Instant::now();
    exec(&["sh", "-c", "sleep 60 & echo done >&2"]).succeeds();
    assert!(before.elapsed() < Duration::from_secs(30));
    let folder = inspect(&scene, "e")["log"].as_str().unwrap().to_owned();
    let folder = Path::new(&folder).parent().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("exec-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    teu(&scene, &["rm", "-f", "e"]).succeeds();
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Who ends the one ends the other.
#[test]
fn an_interrupted_exec_leaves_no_process() {
    use rustix::process::Signal;
    let scene = scene("exec signals");
    run(&scene, &["-d", "--name", "e"], "sleep 300").succeeds();
    for (sent, name) in [
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
    ] {
        let script =
            format!("trap 'echo told; exit 9' {name}; echo up; while :; do sleep 0.05; done");
        let mut command = scene.command("teu", ["exec", "e", "sh", "-c", &script]);
        let mut child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 3]).unwrap();
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "told\n", "{name}, once");
    }
    // One that listens to nothing is killed.
    let mut child = scene
        .command("teu", ["exec", "e", "sleep", "77.25"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let sleeps = || scene.run("pgrep", ["-xf", "sleep 77.25"]).code() == 0;
    scene.wait_until("it is there", sleeps);
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!sleeps(), "it is gone");
    teu(&scene, &["rm", "-f", "e"]).succeeds();
}

/// The supervisor and `teu exec` take signals from descriptors; neither the runtime nor
/// what it starts may find them blocked. runc hands on what it was given.
#[test]
fn no_signal_is_blocked_in_a_container() {
    let scene = scene("signal masks");
    let runtimes = [binary("teu-runtime"), "runc".into()];
    for runtime in runtimes {
        let runtime = runtime.display().to_string();
        if missing_command(&runtime) {
            teu_integration_tests::skipped(scene.name(), &format!("no {runtime}"));
            continue;
        }
        let flags = ["-d", "--name", "m", "--runtime", &runtime];
        run(&scene, &flags, "grep SigBlk /proc/self/status; sleep 300").succeeds();
        let exec = teu(
            &scene,
            &["exec", "m", "grep", "SigBlk", "/proc/self/status"],
        );
        let nothing = "SigBlk:\t0000000000000000";
        assert_eq!(exec.succeeds(), nothing, "{runtime}");
        assert_eq!(teu(&scene, &["logs", "m"]).succeeds(), nothing, "{runtime}");
        teu(&scene, &["rm", "-f", "m"]).succeeds();
    }
}
