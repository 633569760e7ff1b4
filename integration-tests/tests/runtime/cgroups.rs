//! Limits and their effect, pausing, emptying.

use super::{Container, cgroup_v1};
use serde_json::json;
use teu_integration_tests::Scene;

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
