//! What scripts written for runc look for: words, exit codes, debug lines.

use super::Container;
use serde_json::json;
use teu_integration_tests::{Outcome, Scene, skip_unless};

/// The runtime called by the name `runc`, through a link.
fn as_runc(scene: &Scene, args: &[&str]) -> Outcome {
    let link = scene.path("runc");
    if !link.exists() {
        let own = scene.command("teu-runtime", Vec::<&str>::new());
        std::os::unix::fs::symlink(own.get_program(), &link).unwrap();
    }
    scene.run(link.to_str().unwrap(), args)
}

#[test]
fn called_runc_it_answers_as_runc() {
    let scene = Scene::new("called runc");
    let version = as_runc(&scene, &["--version"]).succeeds();
    let lines: Vec<_> = version.lines().collect();
    assert!(lines[0].starts_with("runc version 1."), "{version}");
    assert!(lines[1].starts_with("commit: "), "{version}");
    assert!(lines[2].starts_with("spec: 1."), "{version}");
    let help = as_runc(&scene, &["-h"]).succeeds();
    assert_eq!(
        help.lines().nth(1),
        Some("   runc - Open Container Initiative runtime")
    );
    let help = as_runc(&scene, &["state", "-h"]).succeeds();
    assert!(help.lines().nth(1).unwrap().starts_with("   runc state - "));
    let _ = as_runc(&scene, &["foo", "-h"]).fails(3, &["No help topic for 'foo'"]);
    let _ = as_runc(&scene, &["state"])
        .fails(1, &["\\\"state\\\" requires exactly 1 argument(s)"])
        .prints("Incorrect Usage.");
    let own = scene.run("teu-runtime", ["-v"]).succeeds();
    assert!(own.starts_with("teu-runtime version "), "{own}");
}

#[test]
fn called_runc_it_fails_in_its_words() {
    let scene = Scene::new("runc failed");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/mnt", "source": "/no/such", "options": ["bind"]}));
    });
    let (bundle, id) = (container.bundle.to_str().unwrap(), container.id.as_str());
    let root = scene.path("state/runtime");
    for command in ["run", "create"] {
        let args = ["--root", root.to_str().unwrap(), command, "-b", bundle, id];
        let words = format!(
            "runc {command} failed: unable to start container process: \
             error during container init: error mounting \\\"/no/such\\\""
        );
        let _ = as_runc(&scene, &args).fails(1, &[&words]);
    }
    let args = ["--root", root.to_str().unwrap(), "exec", id, "true"];
    let _ = as_runc(&scene, &args).fails(
        255,
        &["msg=\"exec failed: container does not exist (runc list "],
    );
    // By its own name it says which container it was.
    let words = format!("run {id}: unable to start container process: error mounting");
    let _ = container.run().fails(1, &[&words]);
}

#[test]
fn misuse_is_written_to_the_log_too() {
    let scene = Scene::new("misuse in the log");
    let log = scene.path("log.json");
    let args = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let _ = scene
        .run("teu-runtime", args.iter().chain(&["start", "--nonsense"]))
        .fails(1, &["nonsense"]);
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.contains("\"level\":\"error\""), "{line}");
    assert!(line.contains("nonsense"), "{line}");
}

#[test]
fn debug_lines_tell_the_steps_of_both_processes() {
    let scene = Scene::new("debug");
    let container = Container::script(&scene, "c", "sleep 1000", |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]});
    });
    let line = container.line("--debug --log log.json --log-format json run -d");
    scene.shell(&format!("{line} >/dev/null 2>&1"));
    let log = std::fs::read_to_string(scene.path("log.json")).unwrap();
    for words in [
        "\"level\":\"debug\"",
        "runc exeseal: using /proc/self/exe clone",
        "nsexec container setup",
        "child process in init()",
        "\"seccomp filter flags: 2\"",
        "init: closing the pipe to signal completion",
    ] {
        assert!(log.contains(words), "{words:?} not in {log}");
    }
    let process = json!({"args": ["/bin/true"], "cwd": "/", "execCPUAffinity": {"initial": "0"}});
    let file = scene.write("process.json", process.to_string());
    let words = [
        "--debug",
        "exec",
        "-p",
        file.to_str().unwrap(),
        &container.id,
    ];
    let debug = scene.run("teu-runtime", words).exits(0).stderr;
    for words in [
        "level=debug",
        ": affinity: 0x1\"",
        "setns_init: about to exec",
    ] {
        assert!(debug.contains(words), "{words:?} not in {debug}");
    }
}

#[test]
fn a_process_has_all_cpus_of_its_cgroup() {
    let scene = Scene::new("cpus");
    let own = scene.shell("grep Cpus_allowed_list: /proc/self/status");
    skip_unless!(scene, own.contains(['-', ',']), "there is one CPU only");
    let script = "grep Cpus_allowed_list: /proc/self/status; sleep 1000";
    let container = Container::script(&scene, "c", script, |_| {});
    let line = container.line("run -d");
    scene.shell(&format!("taskset -c 0 {line} >out 2>&1"));
    scene.wait_until("the container has written", || {
        std::fs::read_to_string(scene.path("out")).is_ok_and(|text| text.ends_with('\n'))
    });
    assert_eq!(scene.shell("cat out"), own);
    let exec = container
        .line("exec")
        .replace(&format!(" -b {}", container.bundle.display()), "");
    let inside = scene.shell(&format!(
        "taskset -c 0 {exec} grep Cpus_allowed_list: /proc/self/status"
    ));
    assert_eq!(inside, own);
}

#[test]
fn a_program_that_cannot_be_executed_is_one_line() {
    let scene = Scene::new("execve error");
    let container = Container::new(&scene, "c", &["/run.sh"], |_| {});
    let script = container.bundle.join("rootfs/run.sh");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    scene.shell(&format!("chmod +x {}", script.display()));
    let outcome = container.run();
    assert_eq!(outcome.stderr, "exec /run.sh: no such file or directory\n");
    let log = scene.path("log");
    let bundle = container.bundle.to_str().unwrap();
    let args = ["--log", log.to_str().unwrap(), "run", "-b", bundle];
    let _ = scene
        .run("teu-runtime", args.iter().chain(&[container.id.as_str()]))
        .fails(1, &["exec /run.sh: no such file or directory"]);
    let whole = std::fs::read_to_string(log).unwrap();
    assert!(whole.contains("/no/such/interpreter"), "{whole}");
}

#[test]
fn descriptors_are_named_and_counted() {
    let scene = Scene::new("descriptors");
    let container = Container::script(&scene, "c", "true", |_| {});
    let _ = container
        .call(
            &[
                "run",
                "--preserve-fds",
                "2",
                "-b",
                container.bundle.to_str().unwrap(),
            ],
            &[],
        )
        .fails(1, &["preserved-fd 0"]);
    let container = Container::new(&scene, "d", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let exec = container
        .line("exec -p /dev/fd/7")
        .replace(&format!(" -b {}", container.bundle.display()), "");
    let process = json!({"args": ["/bin/echo", "read"], "cwd": "/"});
    let file = scene.write("process.json", process.to_string());
    let out = scene.shell(&format!("{exec} 7<{}", file.display()));
    assert_eq!(out, "read");
}

#[test]
fn a_stopped_container_can_be_looked_at() {
    let scene = Scene::new("stopped");
    let container = Container::script(&scene, "c", "true", |_| {});
    container.leave_behind("run --keep");
    assert_eq!(container.status(), "stopped");
    let table = container.call(&["ps"], &[]).succeeds();
    assert!(
        table.contains("PID") && table.lines().count() == 1,
        "{table}"
    );
    let _ = container
        .call(&["kill"], &["0"])
        .fails(1, &["container not running"]);
    container.call(&["kill", "-a"], &["0"]).succeeds();
}

#[test]
fn a_full_output_is_an_error() {
    let scene = Scene::new("full output");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    for verb in [
        "list",
        "list -q",
        "list -f json",
        "features",
        "--version",
        "--help",
    ] {
        let command = scene.command("teu-runtime", verb.split(' '));
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|word| word.to_str().unwrap())
            .collect();
        let _ = scene
            .run("sh", ["-c", &format!("{} >/dev/full", words.join(" "))])
            .fails(1, &["no space left on device"]);
    }
}

#[test]
fn a_created_container_ends_when_asked_to() {
    let scene = Scene::new("term while created");
    let container = Container::script(&scene, "c", "sleep 1000", |_| {});
    container.create();
    container.call(&["kill"], &["TERM"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
}

#[test]
fn sockets_of_socket_activation_are_passed_on() {
    let scene = Scene::new("socket activation");
    // Names are not passed on: runc's containers do not hear of them either.
    let script = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3";
    let container = Container::script(&scene, "c", script, |_| {});
    let file = scene.write("passed", "through 3\n");
    let line = format!(
        "exec 3<{}; export LISTEN_FDS=1 LISTEN_FDNAMES=web; exec sh -c 'LISTEN_PID=$$ exec {}'",
        file.display(),
        container.line("run")
    );
    assert_eq!(scene.shell(&line), "1 1\nthrough 3");
    // Meant for another process: neither passed nor told.
    let line = line.replace("LISTEN_PID=$$", "LISTEN_PID=1");
    let outcome = scene.run("sh", ["-c", &line]);
    assert!(!outcome.stdout.contains("through"), "{outcome}");
    // Nor are they for what joins a container.
    let sleeper = Container::script(&scene, "sleeper", "exec sleep 1000", |_| {});
    sleeper.run_detached();
    let bundle = format!(" -b {}", sleeper.bundle.display());
    let exec = sleeper.line("exec").replace(&bundle, "");
    let line = format!(
        "exec 3<{}; export LISTEN_FDS=1; exec sh -c 'LISTEN_PID=$$ exec {exec} env'",
        file.display()
    );
    assert!(!scene.shell(&line).contains("LISTEN"));
    let line = line.replace(" env'", " ls -l /proc/self/fd'");
    assert!(!scene.shell(&line).contains("passed"));
}
