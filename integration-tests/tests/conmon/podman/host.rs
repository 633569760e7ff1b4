//! What podman does with a systemd, a journal and a CRIU of the host.

use super::Podman;
use std::path::Path;
use teu_integration_tests::{Scene, skip_unless};

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn journal_is_there() -> bool {
    Path::new("/run/systemd/journal/socket").exists()
}

fn criu_works() -> bool {
    let check = std::process::Command::new("criu")
        .args(["check", "--no-default-config"])
        .output();
    check.is_ok_and(|output| output.status.success())
}

/// What the journal has of a container, entry by entry, all fields whole.
fn journal(scene: &Scene, id: &str) -> Vec<serde_json::Value> {
    let id = format!("CONTAINER_ID_FULL={id}");
    scene.run("journalctl", ["--sync"]).succeeds();
    let words = ["--quiet", "--all", "--output", "json", "--no-pager", &id];
    let text = scene.run("journalctl", words).succeeds();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A field's bytes, which journalctl gives as numbers where they are no text.
fn bytes(value: &serde_json::Value) -> Vec<u8> {
    match value {
        serde_json::Value::String(text) => text.clone().into_bytes(),
        serde_json::Value::Array(numbers) => numbers
            .iter()
            .map(|number| number.as_u64().unwrap() as u8)
            .collect(),
        other => panic!("no field: {other}"),
    }
}

#[test]
fn podman_finds_its_logs_in_the_journal() {
    let scene = Scene::new("podman and the journal");
    skip_unless!(scene, journal_is_there(), "no journal");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "echo one; sleep 0.3; echo two >&2; sleep 0.3; printf 'a\\377b\\001\\n'; sleep 0.3; printf three";
    let flags = [
        "--name",
        "one",
        "--log-driver",
        "journald",
        "--log-opt",
        "tag=mine",
    ];
    podman.run(&flags, &["sh", "-c", script]).succeeds();
    let id = podman.inspect("one", "{{.Id}}");
    let entries = journal(&scene, &id);
    let field = |index: usize, name: &str| bytes(&entries[index][name]);
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert_eq!(field(0, "MESSAGE"), b"one\n");
    for (name, value) in [
        ("CONTAINER_NAME", "one"),
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_TAG", "mine"),
        ("SYSLOG_IDENTIFIER", "mine"),
        ("PRIORITY", "6"),
    ] {
        assert_eq!(field(0, name), value.as_bytes(), "{name}");
    }
    assert_eq!(
        (field(1, "MESSAGE"), field(1, "PRIORITY")),
        (b"two\n".to_vec(), b"3".to_vec())
    );
    assert_eq!(field(2, "MESSAGE"), b"a\xffb\x01\n");
    assert_eq!(field(3, "MESSAGE"), b"three");
    assert_eq!(field(3, "CONTAINER_PARTIAL_MESSAGE"), b"true");
    let logs = podman.call(&["logs", "one"]);
    assert!(
        logs.stdout.starts_with("one\n") && logs.stdout.contains("three"),
        "{logs}"
    );
    assert_eq!(logs.stderr, "two\n");
}

#[test]
fn a_line_of_eight_megabytes_is_whole_in_the_journal() {
    let scene = Scene::new("podman and a long line in the journal");
    skip_unless!(scene, journal_is_there(), "no journal");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "head -c 8388608 /dev/zero | tr '\\0' x; echo; echo end";
    let flags = ["--name", "one", "--log-driver", "journald"];
    podman.run(&flags, &["sh", "-c", script]).succeeds();
    let id = podman.inspect("one", "{{.Id}}");
    scene.run("journalctl", ["--sync"]).succeeds();
    let count = |what: &str| {
        let line =
            format!("journalctl --quiet --all --no-pager -o cat CONTAINER_ID_FULL={id} | {what}");
        scene.shell(&line)
    };
    assert_eq!(count("tr -cd x | wc -c"), "8388608");
    assert_eq!(count("grep -c '^end$'"), "1");
    let file = scene.path("logs");
    let line = format!(
        "env {} > {}",
        podman.line(&["logs", "one"]).join(" "),
        file.display()
    );
    scene.shell(&line);
    let logs = std::fs::read(&file).unwrap();
    assert_eq!(logs.iter().filter(|byte| **byte == b'x').count(), 8_388_608);
    assert!(logs.ends_with(b"end\n"));
}

#[test]
fn systemd_makes_podmans_cgroups() {
    let scene = Scene::new("podman and systemd");
    skip_unless!(scene, systemd_runs(), "no systemd");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let slice = format!("{}.slice", scene.mark().replace('-', "_"));
    // Where podman is itself a service it makes no unit for the monitor.
    let asked = |words: &[&str]| {
        let words = [&["--cgroup-manager", "systemd"], words].concat();
        let own = ["-u", "INVOCATION_ID"].map(str::to_owned);
        scene.run("env", own.into_iter().chain(podman.line(&words)))
    };
    let run = ["run", "--network", "none", "--cgroup-parent", &slice];
    let program = ["busybox", "sleep", "1000"];
    let flags = ["-d", "--name", "one", "--memory", "64m"];
    asked(&[&run[..], &flags, &program].concat()).succeeds();
    let id = podman.inspect("one", "{{.Id}}");
    let unit = format!("libpod-{id}.scope");
    let property = |name: &str, unit: &str| {
        let words = ["show", "--value", "--property", name, unit];
        scene.run("systemctl", words).succeeds()
    };
    assert_eq!(property("ActiveState", &unit), "active");
    assert_eq!(property("MemoryMax", &unit), "67108864");
    assert!(property("ControlGroup", &unit).ends_with(&format!("/{slice}/{unit}")));
    // The monitor has a unit of its own.
    let monitor = format!("libpod-conmon-{id}.scope");
    let cgroup = property("ControlGroup", &monitor);
    let pid = podman.monitor_of("one");
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    assert!(
        own.contains(&cgroup) && !cgroup.is_empty(),
        "{own}: {cgroup}"
    );
    let _ = asked(&["exec", "one", "sh", "-c", "exit 5"]).exits(5);
    asked(&["rm", "-f", "-t", "0", "one"]).succeeds();
    for unit in [&unit, &monitor] {
        scene.wait_until("its unit is gone", || {
            property("ActiveState", unit) == "inactive"
        });
    }
    let _ = scene.run("systemctl", ["stop", &slice]);
}

#[test]
fn podman_checkpoints_and_restores() {
    let scene = Scene::new("podman checkpoint");
    skip_unless!(scene, criu_works(), "no CRIU that can work here");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let script = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.1; done";
    podman
        .run(&["-d", "--name", "one"], &["sh", "-c", script])
        .succeeds();
    let counted = |beyond: u64| {
        let mut seen = 0;
        scene.wait_until("it counts", || {
            let text = podman.call(&["exec", "one", "cat", "/dev/shm/count"]);
            seen = text.succeeds().trim().parse().unwrap_or(0);
            seen > beyond
        });
        seen
    };
    let reached = counted(3);
    podman.call(&["container", "checkpoint", "one"]).succeeds();
    assert_eq!(
        podman.inspect("one", "{{.State.Status}} {{.State.Checkpointed}}"),
        "exited true"
    );
    podman.call(&["container", "restore", "one"]).succeeds();
    counted(reached);
    assert_eq!(podman.inspect("one", "{{.State.Status}}"), "running");
    // By an archive, under another name.
    let archive = scene.path("kept.tar.gz").display().to_string();
    let export = [
        "container",
        "checkpoint",
        "--leave-running",
        "--export",
        &archive,
        "one",
    ];
    podman.call(&export).succeeds();
    podman.call(&["rm", "-f", "-t", "0", "one"]).succeeds();
    let import = ["container", "restore", "--import", &archive];
    podman.call(&import).succeeds();
    counted(reached);
    podman.call(&["stop", "-t", "0", "one"]).succeeds();
    assert_eq!(podman.inspect("one", "{{.State.ExitCode}}"), "137");
}
