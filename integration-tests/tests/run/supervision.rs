//! The supervisor: outlived, killed, reached by its owner only, small.

use super::*;

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
    // Each ends when it is told to, however slow the machine is, and after who tells it.
    let until_told = "while [ ! -e /tmp/go ]; do sleep 0.05; done; sleep 0.5; exit 3";
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

/// `--rm` is kept by who comes next: the name is free, and nothing is left. Who lives is not touched.
#[test]
fn what_was_to_go_with_its_end_goes_though_its_supervisor_died() {
    let scene = scene("kill shim of --rm");
    let flags = |name| ["-d", "--rm", "--name", name];
    run(&scene, &flags("dead"), "sleep 300").succeeds();
    run(&scene, &flags("alive"), "sleep 300").succeeds();
    let pid = inspect(&scene, "dead")["state"]["pid"].as_i64().unwrap();
    for name in ["dead", "alive"] {
        kill_supervisor(&scene, name);
        wait_for_state(&scene, name, "unsupervised");
    }
    let create = ["create", "--rm", "--network", "none", "--name", "unstarted"];
    let program = ["--cgroup-parent", &scene.cgroup(), "busybox", "true"];
    teu(&scene, &[&create[..], &program].concat()).succeeds();
    kill_supervisor(&scene, "unstarted");
    scene.shell(&format!("kill -9 {pid}"));
    wait_for_state(&scene, "dead", "lost");
    run(&scene, &flags("dead"), "sleep 300").succeeds();
    let names = teu(&scene, &["ps", "-a", "--format", "json"]).succeeds();
    let mut names: Vec<String> = names
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|container| container["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["alive", "dead", "unstarted"]);
    assert_eq!(state(&scene, "dead"), "running");
    assert_eq!(state(&scene, "alive"), "unsupervised");
    teu(&scene, &["stop", "-t", "0", "alive"]).succeeds();
    teu(&scene, &["rm", "-f", "dead", "unstarted"]).succeeds();
    assert_eq!(teu(&scene, &["ps", "-aq"]).succeeds(), "");
}

/// Nobody can start what it had made: it is neither waited for nor kept.
#[test]
fn a_supervisor_killed_before_the_start_leaves_nothing_to_wait_for() {
    let scene = scene("kill early");
    let cgroup = scene.cgroup();
    let create = |name: &str| {
        let flags = ["create", "--cgroup-parent", &cgroup, "--network", "none"];
        let program = ["--name", name, "busybox", "sh", "-c", "exit 4"];
        teu(&scene, &[&flags[..], &program].concat()).succeeds();
        kill_supervisor(&scene, name);
        wait_for_state(&scene, name, "lost");
    };
    create("c");
    let waited = teu(&scene, &["wait", "c"]).exits(1);
    assert_eq!(waited.stdout, "unknown\n");
    let _ = teu(&scene, &["start", "-a", "c"]).exits(4);
    assert_eq!(teu(&scene, &["wait", "c"]).succeeds(), "4");
    create("d");
    // The same, where it was killed when it had said that it starts it.
    create("e");
    let log = inspect(&scene, "e")["log"].as_str().unwrap().to_owned();
    let file = Path::new(&log).with_file_name("state.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"starting\":false"), "{text}");
    let text = text.replace("\"starting\":false", "\"starting\":true");
    std::fs::write(&file, text).unwrap();
    assert_eq!(state(&scene, "e"), "unsupervised");
    assert_eq!(teu(&scene, &["wait", "e"]).exits(1).stdout, "unknown\n");
    assert_eq!(state(&scene, "e"), "lost");
    teu(&scene, &["rm", "c", "d", "e"]).succeeds();
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
