//! `update`: one limit after another, and those that bound each other.

use super::{Container, cgroup_v1};
use serde_json::{Value, json};
use teu_integration_tests::{Scene, skip_unless};

/// A container as runc's own tests of `update` begin.
fn container<'a>(scene: &'a Scene, change: impl FnOnce(&mut Value)) -> Container<'a> {
    let container = Container::new(scene, "c", &["/bin/sleep", "1000"], |config| {
        let resources = &mut config["linux"]["resources"];
        resources["memory"] = json!({"limit": 33_554_432, "reservation": 25_165_824});
        resources["cpu"] = json!({"shares": 100, "quota": 500_000, "period": 1_000_000});
        resources["pids"] = json!({"limit": 20});
        change(config);
    });
    container.run_detached();
    container
}

impl Container<'_> {
    fn update(&self, words: &[&str]) {
        let verb: Vec<&str> = ["update"].iter().chain(words).copied().collect();
        self.call(&verb, &[]).succeeds();
    }

    fn update_from(&self, resources: Value) -> teu_integration_tests::Outcome {
        let words = ["update", "--resources", "-", &self.id];
        self.scene
            .run_with_input("teu-runtime", words, resources.to_string().as_bytes())
    }

    /// Quota and period, -1 for no quota.
    fn quota(&self) -> String {
        if cgroup_v1() {
            let quota = self.cgroup_value("cpu", "cpu.cfs_quota_us");
            format!("{quota} {}", self.cgroup_value("cpu", "cpu.cfs_period_us"))
        } else {
            self.cgroup_value("", "cpu.max").replace("max", "-1")
        }
    }

    fn memory(&self) -> String {
        let v2 = || self.cgroup_value("", "memory.max");
        let v1 = || self.cgroup_value("memory", "memory.limit_in_bytes");
        if cgroup_v1() { v1() } else { v2() }
    }
}

#[test]
fn quota_and_period_change_alone_and_together() {
    let scene = Scene::new("update cpu");
    let container = container(&scene, |_| {});
    for (words, quota) in [
        (&["--cpu-period", "900000"][..], "500000 900000"),
        (&["--cpu-quota", "600000"], "600000 900000"),
        (&["--cpu-quota", "-1"], "-1 900000"),
        (
            &["--cpu-period", "100000", "--cpu-quota", "50000"],
            "50000 100000",
        ),
        (
            &["--cpu-period", "10000", "--cpu-quota", "3000"],
            "3000 10000",
        ),
        (
            &["--cpu-period", "900000", "--cpu-quota", "600000"],
            "600000 900000",
        ),
        (
            &["--cpu-quota", "-1", "--cpu-period", "100000"],
            "-1 100000",
        ),
    ] {
        container.update(words);
        assert_eq!(container.quota(), quota, "{words:?}");
    }
    container.update(&["--cpu-share", "200"]);
    let weight = if cgroup_v1() {
        ("cpu.shares", "200")
    } else {
        ("cpu.weight", "29")
    };
    assert_eq!(container.cgroup_value("cpu", weight.0), weight.1);
}

#[test]
fn a_period_needs_no_quota() {
    let scene = Scene::new("period alone");
    let container = container(&scene, |config| {
        config["linux"]["resources"]["cpu"] = json!({});
    });
    container.update(&["--cpu-period", "50000"]);
    assert_eq!(container.quota(), "-1 50000");
    container.update(&["--cpu-quota", "30000"]);
    assert_eq!(container.quota(), "30000 50000");
}

#[test]
fn a_quota_fits_under_that_of_the_parent() {
    let scene = Scene::new("pod quota");
    skip_unless!(
        scene,
        cgroup_v1(),
        "cgroup v1 alone refuses more than the parent has"
    );
    let container = container(&scene, |config| {
        config["linux"]["resources"]["cpu"] = json!({});
    });
    let pod = container.cgroup("cpu").parent().unwrap().to_owned();
    std::fs::write(pod.join("cpu.cfs_quota_us"), "50000").unwrap();
    let too_much = container.call(&["update", "--cpu-quota", "60000"], &[]);
    let _ = too_much.fails(1, &["cpu.cfs_quota_us"]);
    container.update(&["--cpu-quota", "50000"]);
    // The old quota over the new period would be more than the parent has.
    container.update(&["--cpu-period", "10000", "--cpu-quota", "3000"]);
    assert_eq!(container.quota(), "3000 10000");
}

#[test]
fn burst_and_idle_stay_what_they_are_set_to() {
    let scene = Scene::new("burst and idle");
    let container = container(&scene, |_| {});
    let burst = if cgroup_v1() {
        "cpu.cfs_burst_us"
    } else {
        "cpu.max.burst"
    };
    let there = container.cgroup("cpu").join(burst).exists()
        && container.cgroup("cpu").join("cpu.idle").exists();
    skip_unless!(scene, there, "no cpu burst or idle (Linux 5.15)");
    container.update(&["--cpu-period", "900000", "--cpu-burst", "400000"]);
    assert_eq!(container.cgroup_value("cpu", burst), "400000");
    container.update(&["--memory", "100M"]);
    assert_eq!(container.cgroup_value("cpu", burst), "400000");
    container.update(&["--cpu-burst", "0"]);
    assert_eq!(container.cgroup_value("cpu", burst), "0");
    for value in ["1", "0", "1"] {
        container.update(&["--cpu-idle", value]);
        assert_eq!(container.cgroup_value("cpu", "cpu.idle"), value);
    }
    for value in ["-1", "2"] {
        let flag = format!("--cpu-idle={value}");
        let _ = container
            .call(&["update", &flag], &[])
            .fails(1, &["cpu.idle"]);
    }
    container.update(&["--cpu-period", "10000"]);
    assert_eq!(container.cgroup_value("cpu", "cpu.idle"), "1");
    // Weights are refused while idle, so the two are written in the right order.
    container.update(&["--cpu-idle", "0", "--cpu-share", "300"]);
    container.update(&["--cpu-idle", "1", "--cpu-share", "200"]);
    assert_eq!(container.cgroup_value("cpu", "cpu.idle"), "1");
}

#[test]
fn memory_and_swap_grow_and_shrink() {
    let scene = Scene::new("update memory");
    let container = container(&scene, |_| {});
    container.update(&["--memory", "50M"]);
    assert_eq!(container.memory(), "52428800");
    container.update(&["--memory-reservation", "33554432"]);
    let swap = if cgroup_v1() {
        "memory.memsw.limit_in_bytes"
    } else {
        "memory.swap.max"
    };
    let swaps = container.cgroup("memory").join(swap).exists();
    let both = |memory: u64, swap: u64| if cgroup_v1() { swap } else { swap - memory };
    for (memory, total) in [
        (30 << 20, 50 << 20),
        (60 << 20, 80 << 20),
        (20 << 20, 20 << 20),
    ] {
        let (memory_text, swap_text) = (memory.to_string(), total.to_string());
        let words = ["--memory", &memory_text, "--memory-swap", &swap_text];
        if swaps {
            container.update(&words);
            let now = container.cgroup_value("memory", swap);
            assert_eq!(now, both(memory, total).to_string());
            assert_eq!(container.memory(), memory_text);
        }
    }
    if swaps {
        container.update(&["--memory-swap", "96468992"]);
    }
    container.update(&["--memory", "-1"]);
    let unlimited = if cgroup_v1() {
        "9223372036854771712"
    } else {
        "max"
    };
    assert_eq!(container.memory(), unlimited);
    if swaps {
        assert_eq!(container.cgroup_value("memory", swap), unlimited);
    }
}

#[test]
fn a_paused_container_is_updated_and_stays_paused() {
    let scene = Scene::new("update paused");
    let container = container(&scene, |_| {});
    container.call(&["pause"], &[]).succeeds();
    container.update(&["--pids-limit", "30"]);
    assert_eq!(container.status(), "paused");
    assert_eq!(container.cgroup_value("pids", "pids.max"), "30");
    container.call(&["resume"], &[]).succeeds();
    container.update(&["--pids-limit", "-1"]);
    assert_eq!(container.cgroup_value("pids", "pids.max"), "max");
}

#[test]
fn old_and_absent_features_are_answered_as_runc_does() {
    let scene = Scene::new("update flags");
    let container = container(&scene, |_| {});
    let outcome = container.call(
        &["update", "--kernel-memory", "50M", "--kernel-memory-tcp=-1"],
        &[],
    );
    assert!(
        outcome
            .stderr
            .contains("Kernel memory settings are ignored"),
        "{outcome}"
    );
    outcome.succeeds();
    let help = scene.run("teu-runtime", ["update", "--help"]).succeeds();
    assert!(
        !help.contains("kernel-memory") && help.contains("--l3-cache-schema"),
        "{help}"
    );
    if !std::path::Path::new("/sys/fs/resctrl/info").exists() {
        let words = "Intel RDT/CAT: l3 cache schema is not enabled";
        let refused = container.call(&["update", "--l3-cache-schema", "L3:0=f"], &[]);
        let _ = refused.fails(1, &[words]);
        let words = "Intel RDT/MBA: memory bandwidth schema is not enabled";
        let refused = container.call(&["update", "--mem-bw-schema", "MB:0=20"], &[]);
        let _ = refused.fails(1, &[words]);
    }
    let wrong = container.call(&["update", "--cpu-period", "much"], &[]);
    let _ = wrong.fails(1, &["invalid value for cpu-period"]);
    let wrong = container.call(&["update", "--memory", "much"], &[]);
    let _ = wrong.fails(1, &["invalid value for memory: invalid size"]);
}

#[test]
fn a_limit_below_the_usage_is_refused_when_asked() {
    let scene = Scene::new("check before update");
    let container = container(&scene, |_| {});
    if cgroup_v1() {
        let refused = container.update_from(json!({"memory": {"limit": 1024}}));
        let _ = refused.fails(1, &["unable to set memory limit to 1024 (current usage: "]);
        return;
    }
    let check = |memory: Value, words: &str| {
        let refused = container.update_from(json!({ "memory": memory }));
        let _ = refused.fails(1, &[words]);
        assert_eq!(container.status(), "running");
    };
    check(
        json!({"limit": 1024, "checkBeforeUpdate": true}),
        "rejecting memory limit 1024 <= usage",
    );
    check(
        json!({"limit": 1024, "swap": 2048, "checkBeforeUpdate": true}),
        "rejecting memory+swap limit 2048 <= usage",
    );
}

#[test]
fn names_may_be_spelled_as_encoders_in_go_do() {
    let scene = Scene::new("update names");
    let container = container(&scene, |_| {});
    container
        .update_from(json!({"CPU": {"Cpus": "0", "Mems": "0"}}))
        .succeeds();
    assert_eq!(container.cgroup_value("cpuset", "cpuset.cpus"), "0");
}
