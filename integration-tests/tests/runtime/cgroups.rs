//! Limits and their effect, pausing, emptying.

use super::{Container, cgroup_v1};
use serde_json::json;
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

#[test]
fn limits_reach_the_cgroup() {
    let scene = Scene::new("limits");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        config["linux"]["resources"]["pids"] = json!({"limit": 42});
        config["linux"]["resources"]["cpu"] =
            json!({"quota": 50_000, "period": 100_000, "shares": 512});
        config["linux"]["resources"]["cpu"]["cpus"] = json!("0");
    });
    container.run_detached();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "42");
    if cgroup_v1() {
        assert_eq!(
            container.cgroup_value("memory", "memory.limit_in_bytes"),
            "33554432"
        );
        assert_eq!(container.cgroup_value("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(container.cgroup_value("cpu", "cpu.shares"), "512");
        assert_eq!(container.cgroup_value("cpuset", "cpuset.cpus"), "0");
    } else {
        assert_eq!(container.cgroup_value("", "memory.max"), "33554432");
        assert_eq!(container.cgroup_value("", "cpu.max"), "50000 100000");
        assert_eq!(container.cgroup_value("", "cpuset.cpus"), "0");
    }
    container
        .call(
            &["update", "--pids-limit", "50", "--memory", "67108864"],
            &[],
        )
        .succeeds();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "50");
    let resources = r#"{"pids": {"limit": 60}, "cpu": {"shares": 256}}"#;
    let outcome = scene.run_with_input(
        "teu-runtime",
        ["update", "--resources", "-", &container.id],
        resources.as_bytes(),
    );
    outcome.succeeds();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "60");
    container.call(&["delete", "--force"], &[]).succeeds();
    assert!(!container.cgroup("pids").exists());
}

#[test]
fn memory_beyond_the_limit_is_killed() {
    let scene = Scene::new("memory limit");
    let container = Container::script(&scene, "c", "head -c 100m /dev/zero | tail", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16_777_216});
    });
    let outcome = container.run();
    assert_ne!(outcome.code(), 0, "{outcome}");
}

#[test]
fn devices_are_denied_unless_allowed() {
    let script = "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg; mknod /tmp/null c 1 3 && cat /tmp/null && echo null works";
    let scene = Scene::new("devices cgroup");
    needs_root!(scene, "a user namespace makes no devices");
    let container = Container::script(&scene, "c", script, |config| {
        config["root"]["readonly"] = json!(false);
        let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
        config["process"]["capabilities"] =
            json!({"bounding": caps, "effective": caps, "permitted": caps});
        config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
    });
    let outcome = container.run();
    assert!(
        outcome.stderr.contains("Operation not permitted") && outcome.stdout.contains("null works"),
        "{outcome}"
    );
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let scene = Scene::new("pause");
    let container = Container::script(
        &scene,
        "c",
        "while :; do echo x >> /tmp/beat; sleep 0.02; done",
        |config| {
            config["root"]["readonly"] = json!(false);
        },
    );
    container.run_detached();
    let beat =
        || std::fs::metadata(container.bundle.join("rootfs/tmp/beat")).map_or(0, |meta| meta.len());
    scene.wait_until("it beats", || beat() > 0);
    container.call(&["pause"], &[]).succeeds();
    assert_eq!(container.status(), "paused");
    let before = beat();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(beat(), before);
    container
        .exec("true")
        .fails(255, &["cannot exec in a paused container"]);
    container.call(&["resume"], &[]).succeeds();
    assert_eq!(container.status(), "running");
    scene.wait_until("it beats again", || beat() > before);
    container.call(&["pause"], &[]).succeeds();
    container.call(&["delete", "--force"], &[]).succeeds();
}

#[test]
fn a_shared_pid_namespace_is_emptied() {
    let scene = Scene::new("host pids");
    needs_root!(
        scene,
        "without a user namespace nothing of the host's is shared"
    );
    let container = Container::script(&scene, "c", "sleep 1001 & sleep 1001 & wait", |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}, {"type": "network"}]);
    });
    container.run_detached();
    scene.wait_until("three processes", || {
        container
            .cgroup_value("pids", "cgroup.procs")
            .lines()
            .count()
            == 3
    });
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("no process", || {
        container.cgroup_value("pids", "cgroup.procs").is_empty()
    });
}

/// The whole error, or nothing where the container ran.
fn run_with_memory(scene: &Scene, name: &str, bytes: u64) -> Option<String> {
    let container = Container::script(scene, name, "echo alive", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": bytes, "swap": bytes});
    });
    let outcome = container.run();
    if outcome.code() == 0 {
        assert_eq!(outcome.stdout, "alive\n");
        return None;
    }
    Some(outcome.stderr)
}

#[test]
fn tiny_memory_works_or_is_named() {
    let scene = Scene::new("tiny memory");
    let half = run_with_memory(&scene, "half", 512 << 10);
    for error in [half, run_with_memory(&scene, "tiny", 64 << 10)]
        .into_iter()
        .flatten()
    {
        let words = "container init was OOM-killed (memory limit too low?)";
        // A runtime that sets limits later finds that it already uses more.
        let other = "unable to set memory limit to";
        assert!(error.contains(words) || error.contains(other), "{error}");
    }
}

/// Where there is hardly any memory, a process of `exec` may be killed before its
/// program: that is said, in runc's words, and never passes for success.
#[test]
fn an_exec_that_is_killed_early_is_named() {
    let scene = Scene::new("exec killed early");
    skip_unless!(scene, !missing_command("strace"), "strace kills it in time");
    needs_root!(scene, "under strace newuidmap has no privilege");
    let limit = 3 << 20;
    let container = Container::script(&scene, "c", "exec sleep 1000", |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": limit, "swap": limit});
    });
    container.run_detached();
    let killed = |flags: &str| {
        let bundle = format!(" -b {}", container.bundle.display());
        let exec = container.line(&format!("exec{flags}")).replace(&bundle, "");
        let line = format!("strace -f -qq -o log -e inject=capset:signal=KILL {exec} /bin/true");
        scene.run("sh", ["-c", &line])
    };
    let words = "exec failed: unable to start container process: it was killed";
    for flags in ["", " --detach"] {
        let outcome = killed(flags).fails(255, &[words]);
        assert!(!outcome.stderr.contains("OOM"), "{outcome}");
    }
    // After a shortage it may have been that.
    let fill = container.exec("exec head -c 9999999 /dev/zero > /dev/shm/full");
    assert_ne!(fill.code(), 0, "{fill}");
    let full = format!("/proc/{}/root/dev/shm/full", container.state()["pid"]);
    if std::fs::remove_file(full).is_err() {
        return eprintln!("SKIPPED exec killed early: init was the victim");
    }
    let _ = killed("").fails(255, &[words, "(possibly OOM-killed)"]);
}

#[test]
fn a_used_or_frozen_cgroup_is_refused() {
    let scene = Scene::new("used cgroup");
    let first = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    first.run_detached();
    let path = format!("{}/c", scene.cgroup());
    let second = Container::new(&scene, "d", &["/bin/true"], |config| {
        config["linux"]["cgroupsPath"] = json!(path);
    });
    let _ = second.run().fails(1, &["container's cgroup is not empty"]);
    first.call(&["delete", "--force"], &[]).succeeds();
    let (freezer, state) = if cgroup_v1() {
        ("freezer.state", "FROZEN")
    } else {
        ("cgroup.freeze", "1")
    };
    let folder = first.cgroup("freezer");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(freezer), state).unwrap();
    let refused = second.run();
    std::fs::remove_dir(&folder).unwrap();
    let _ = refused.fails(1, &["container's cgroup unexpectedly frozen"]);
}

#[test]
fn what_shares_its_pids_is_killed_and_deleted_after_its_init() {
    for verb in [&["kill"][..], &["delete"], &["delete", "--force"]] {
        let scene = Scene::new("init gone");
        needs_root!(
            scene,
            "without a user namespace nothing of the host's is shared"
        );
        let container =
            Container::script(&scene, "c", "sleep 1001 & sleep 1001 & wait", |config| {
                config["linux"]["namespaces"] =
                    json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
            });
        container.run_detached();
        let processes = || {
            container
                .cgroup_value("pids", "cgroup.procs")
                .lines()
                .count()
        };
        scene.wait_until("three processes", || processes() == 3);
        let init = container.state()["pid"].to_string();
        scene.shell(&format!("kill -9 {init}"));
        scene.wait_until("stopped", || container.status() == "stopped");
        assert_eq!(processes(), 2);
        let signal = if verb == ["kill"] { &["KILL"][..] } else { &[] };
        container.call(verb, signal).succeeds();
        scene.wait_until("nobody is left", || {
            std::fs::read_to_string(container.cgroup("pids").join("cgroup.procs"))
                .map_or(true, |list| list.is_empty())
        });
        container.call(&["delete", "--force"], &[]).succeeds();
    }
}

#[test]
fn a_stopped_container_has_no_processes() {
    let scene = Scene::new("ps stopped");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    let table = container.call(&["ps"], &[]).succeeds();
    assert!(
        table.starts_with("UID") && table.lines().count() == 1,
        "{table}"
    );
    container.call(&["kill", "--all"], &["0"]).succeeds();
    let _ = container
        .call(&["kill"], &["0"])
        .fails(1, &["container not running"]);
}

#[test]
fn cgroups_made_inside_are_deleted_too() {
    let scene = Scene::new("nested cgroups");
    let script = if cgroup_v1() {
        "cd /sys/fs/cgroup && for c in memory freezer; do mkdir $c/sub && echo $$ > $c/sub/tasks; done; echo FROZEN > freezer/sub/freezer.state; sleep 1000"
    } else {
        "cd /sys/fs/cgroup && mkdir -p a/b && echo 1 > a/b/cgroup.procs && exec sleep 1000"
    };
    let container = Container::script(&scene, "c", script, |config| {
        config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    });
    container.run_detached();
    let sub = if cgroup_v1() { "sub" } else { "a/b" };
    scene.wait_until("a cgroup below", || {
        let procs = container.cgroup("freezer").join(sub).join("cgroup.procs");
        std::fs::read_to_string(procs).is_ok_and(|list| !list.is_empty())
    });
    container.call(&["delete", "--force"], &[]).succeeds();
    assert!(!container.cgroup("freezer").exists() && !container.cgroup("memory").exists());
}
