//! Namespaces made, joined and mapped.

use super::{Container, in_container};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use teu_integration_tests::{Scene, needs_root};

#[test]
fn the_container_has_namespaces_of_its_own() {
    let script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; hostname; echo $$";
    let out = in_container("namespaces", script, |_| {});
    let lines: Vec<_> = out.lines().collect();
    for (name, line) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .zip(&lines)
    {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), *line);
    }
    assert_eq!(lines[6..], ["scene", "1"]);
}

#[test]
fn a_new_network_has_its_loopback() {
    let script = "cat /sys/class/net/lo/flags; ip -o addr show dev lo";
    let out = in_container("loopback", script, |_| {});
    assert!(out.starts_with("0x9\n"), "{out}"); // IFF_UP and IFF_LOOPBACK
    assert!(out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn existing_namespaces_are_joined() {
    let scene = Scene::new("joined namespaces");
    needs_root!(
        scene,
        "without a user namespace nothing of the host's is shared"
    );
    let first = Container::new(&scene, "first", &["/bin/sleep", "1000"], |_| {});
    first.run_detached();
    let pid = first.state()["pid"].clone();
    let second = Container::script(
        &scene,
        "second",
        "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c '[s]leep 1000'",
        |config| {
            config["hostname"] = json!(null);
            config["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "cgroup"},
                {"type": "network", "path": format!("/proc/{pid}/ns/net")},
                {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")},
                {"type": "uts", "path": format!("/proc/{pid}/ns/uts")},
                {"type": "pid", "path": format!("/proc/{pid}/ns/pid")},
            ]);
        },
    );
    let out = second.run().succeeds();
    let lines: Vec<_> = out.lines().collect();
    for (name, line) in ["net", "ipc", "uts", "pid"].iter().zip(&lines) {
        let joined = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(joined.to_str().unwrap(), *line);
    }
    assert_eq!(lines[4..], ["scene", "1"]);
}

#[test]
fn a_user_namespace_maps_ids() {
    let scene = Scene::new("user namespace");
    needs_root!(scene, "only root gives files away");
    let container = Container::script(
        &scene,
        "c",
        "id -u; cat /proc/self/uid_map; touch /tmp/mine; stat -c %u /tmp/mine",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["uidMappings"] =
                json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["gidMappings"] =
                json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "user"}));
        },
    );
    scene.shell(&format!(
        "chown -R 100000:100000 {0}/rootfs && chmod 755 {1} {0}",
        container.bundle.display(),
        scene.path("").display()
    ));
    let out = container.run().succeeds();
    let lines: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines, [vec!["0"], vec!["0", "100000", "65536"], vec!["0"]]);
    let made = std::fs::metadata(container.bundle.join("rootfs/tmp/mine")).unwrap();
    assert_eq!(made.uid(), 100_000);
}

#[test]
fn sysctls_are_set_in_their_namespace() {
    let out = in_container(
        "sysctl",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced",
        |config| {
            config["linux"]["sysctl"] =
                json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
        },
    );
    assert_eq!(out.lines().collect::<Vec<_>>(), ["1", "1"]);
    let scene = Scene::new("host sysctl");
    let container = Container::script(&scene, "c", "true", |config| {
        config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    });
    let _ = container.run().fails(1, &["vm.swappiness"]);
}
