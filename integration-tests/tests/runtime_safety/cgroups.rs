//! Limits that must hold, and cgroups that must stay where they belong.

use serde_json::json;
use std::path::Path;
use teu_integration_tests::skip_unless;

use super::{Attack, all_powerful};

/// R12: the cgroup mount of a container without a cgroup namespace shows its own
/// part, and where asked for only to read (CVE-2023-25809).
#[test]
fn r12_the_hosts_cgroups_are_not_writable() {
    let attack = Attack::new("R12");
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/made 2>/dev/null && echo made $d; done; \
        for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do echo 1 > $f 2>/dev/null && echo wrote $f; done; true";
    let container = attack.container(script, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    attack.scene.shell(&format!(
        "chmod 711 . && chown -R 100000:100000 {}",
        container.root("").display()
    ));
    let outcome = container.run();
    assert_eq!(outcome.stdout, "", "{outcome}");
}

/// R13: no device rule, or none at all, is not "all devices" (GHSA-g54h-m393-cpwq).
#[test]
fn r13_devices_are_denied_by_default() {
    let attack = Attack::new("R13");
    let script = "mknod /kmsg c 1 11 && head -c 1 /kmsg; mknod /sda b 8 0 && head -c 1 /sda; true";
    let rules = [
        ("empty", Some(json!([]))),
        ("none", None),
        ("deny all", Some(json!([{"allow": false, "access": "rwm"}]))),
    ];
    for (name, rules) in rules {
        let container = attack.container(script, |config| {
            all_powerful(config);
            match rules {
                Some(rules) => config["linux"]["resources"]["devices"] = rules,
                None => drop(config["linux"].as_object_mut().unwrap().remove("resources")),
            }
        });
        let outcome = container.run();
        let refusals = outcome.stderr.matches("Operation not permitted").count();
        assert_eq!(refusals, 2, "{name}: {outcome}");
    }
}

/// R32: annotations and paths do not move a container out of its parent
/// (CVE-2024-3154, CVE-2023-6476).
#[test]
fn r32_cgroup_paths_and_annotations_stay_below() {
    let attack = Attack::new("R32");
    for path in [
        "../../x",
        "/../x",
        "a/../../x",
        "/teu-x/../../y",
        "/",
        "..",
        ".",
        &"x/".repeat(2500),
        &format!("/{}", "y".repeat(300)),
    ] {
        let container = attack.container("true", |config| {
            config["linux"]["cgroupsPath"] = json!(path);
        });
        let _ = container.run();
        // Where it is accepted, it is a path below, and gone with the container.
        assert!(!Path::new("/sys/fs/cgroup/x").exists() && !Path::new("/sys/fs/x").exists());
    }
    let odd = [
        "/bin/sh",
        "'",
        "[(\"a\", <1>)]",
        "true",
        "-1",
        "18446744073709551616",
        "@as []",
        "{}",
        "\n",
        "../..",
        "['/bin/sh', '-c', 'touch /tmp/owned']",
        "uint64 1",
        "b'x'",
        "%s%n",
        "",
        "\u{0}",
        "/",
        "a=b",
        "[Service]\nExecStart=/bin/sh",
        "🦀",
    ];
    for value in odd {
        let container = attack.container("cat /proc/self/cgroup", |config| {
            config["annotations"] = json!({
                "org.systemd.property.ExecStart": value, "org.systemd.property.TimeoutStopUSec": value,
                "org.systemd.property.CollectMode": value, "run.oci.delegate-cgroup": "../..",
                "run.oci.systemd.subgroup": "../..", "run.oci.handler": value, "run.oci.hooks.stdout": "/tmp/owned",
                "run.oci.mount_context_type": value, "run.oci.seccomp_bpf_data": value, "run.oci.keep_original_groups": "1",
            });
        });
        let _ = container.run_or_refuse();
        assert!(!Path::new("/tmp/owned").exists());
    }
}

/// R39: limits hold for a container with a user namespace (CVE-2025-47291).
#[test]
fn r39_limits_hold_with_a_user_namespace() {
    let attack = Attack::new("R39");
    // tail keeps its whole input, which has no line break.
    let script = "head -c 64m /dev/zero | tail > /dev/null; echo $?";
    let container = attack.container(script, |config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["resources"]["memory"] = json!({"limit": 32 << 20});
    });
    attack.scene.shell(&format!(
        "chmod 711 . && chown -R 100000:100000 {}",
        container.root("").display()
    ));
    let outcome = container.run();
    skip_unless!(
        attack.scene,
        !outcome.stderr.contains("memory"),
        "no memory controller"
    );
    // The kernel may choose the shell.
    assert!(
        outcome.stdout.trim() == "137" || outcome.code() == 137,
        "{outcome}"
    );
}
