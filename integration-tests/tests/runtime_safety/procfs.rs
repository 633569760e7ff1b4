//! What the runtime writes to procfs, and what a container may mount over it.

use serde_json::{Value, json};

use super::{Attack, bind, push};

/// R6, R18: a directory of the attacker's over /proc or a part of it that the
/// runtime writes to (CVE-2019-16884, CVE-2025-52881).
#[test]
fn r06_r18_procfs_is_procfs() {
    let attack = Attack::new("R6 R18");
    let fake = attack.scene.path("fake");
    for name in ["self/attr", "thread-self/attr", "sys/net/ipv4", "1"] {
        std::fs::create_dir_all(fake.join(name)).unwrap();
    }
    for name in [
        "self/attr/exec",
        "self/oom_score_adj",
        "sys/net/ipv4/ip_forward",
        "sysrq-trigger",
    ] {
        std::fs::write(fake.join(name), "").unwrap();
    }
    for destination in [
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/proc/sys/net/ipv4",
        "/proc/1",
        "/proc/../proc/self",
    ] {
        let container = attack.container("true", |config| {
            push(config, "mounts", bind(&fake, destination));
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            config["process"]["oomScoreAdj"] = json!(500);
            config["process"]["apparmorProfile"] = json!("");
        });
        let _ = container.run().fails(1, &["/proc"]);
    }
    let written = attack
        .scene
        .shell(&format!("find {} -type f -size +0", fake.display()));
    assert_eq!(written, "");
}

/// R6: numbers that tools show may be covered, as lxcfs does.
#[test]
fn r06_harmless_files_may_be_covered() {
    let attack = Attack::new("R6 lxcfs");
    let file = attack.scene.write("uptime", "1.00 1.00\n");
    let container = attack.container("cat /proc/uptime", |config| {
        push(config, "mounts", bind(&file, "/proc/uptime"));
    });
    assert_eq!(container.run().succeeds(), "1.00 1.00");
}

/// R31: a sysctl is one value for one file of a namespace of the container
/// (CVE-2022-0811, GHSA-w2j5-3rcx-vx7x).
#[test]
fn r31_sysctls_do_not_reach_the_host() {
    let attack = Attack::new("R31");
    let read = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = (
        read(),
        std::fs::read_to_string("/proc/sys/kernel/shmmax").unwrap(),
    );
    let value = "1+kernel.core_pattern=owned";
    for (key, value) in [
        ("kernel.shm_rmid_forced", value),
        ("net.ipv4.ip_forward", value),
        ("kernel.core_pattern", "owned"),
        ("kernel/core_pattern", "owned"),
        ("net.ipv4/../../kernel/core_pattern", "owned"),
        ("net/../kernel/core_pattern", "owned"),
        ("kernel.shmmax\u{0}", "1"),
        ("fs.mqueue./../../kernel/core_pattern", "owned"),
        ("", "1"),
        (".", "1"),
        ("net", "1"),
    ] {
        let container = attack.container("true", |config| {
            config["linux"]["sysctl"] = json!({key: value});
        });
        assert_eq!(container.run_or_refuse(), None, "{key:?} = {value:?}");
    }
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.shmmax"),
        ("uts", "kernel.domainname"),
    ] {
        let container = attack.container("true", |config: &mut Value| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
            config.as_object_mut().unwrap().remove("hostname");
            config["linux"]["sysctl"] = json!({key: "1"});
        });
        let _ = container.run().fails(1, &["namespace"]);
    }
    assert_eq!(
        before,
        (
            read(),
            std::fs::read_to_string("/proc/sys/kernel/shmmax").unwrap()
        )
    );
}
