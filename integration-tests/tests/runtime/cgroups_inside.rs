//! Cgroups below the container's own: entered by exec, owned by its root.

use super::{Container, cgroup_v1};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use teu_integration_tests::{Outcome, Scene, is_root, skip_unless};

/// A container that may make cgroups, and sees itself at the root of them.
fn container<'a>(scene: &'a Scene, change: impl FnOnce(&mut Value)) -> Container<'a> {
    let container = Container::new(scene, "c", &["/bin/sleep", "1000"], |config| {
        config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        change(config);
    });
    container.run_detached();
    container
}

/// `exec` with these `--cgroup`s.
fn exec_in(container: &Container<'_>, cgroups: &[&str], script: &str) -> Outcome {
    let flags = cgroups.iter().flat_map(|cgroup| ["--cgroup", cgroup]);
    let verb: Vec<&str> = ["exec"].into_iter().chain(flags).collect();
    container.call(&verb, &["/bin/sh", "-c", script])
}

#[test]
fn what_exec_cannot_enter_is_said_in_runcs_words() {
    let scene = Scene::new("exec cgroup refused");
    let container = container(&scene, |_| {});
    let refuse = |cgroup: &str, parts: &[&str]| {
        let _ = exec_in(&container, &[cgroup], "true").fails(255, parts);
    };
    refuse("..", &[" .. is not a sub cgroup path"]);
    refuse(
        "nonexistent",
        &[
            " adding pid ",
            "/nonexistent/cgroup.procs: no such file or directory",
        ],
    );
    if cgroup_v1() {
        refuse(
            "cpu:nonexistent",
            &[
                " adding pid ",
                "/nonexistent/cgroup.procs: no such file or directory",
            ],
        );
        refuse("whaaat:/", &["unknown controller "]);
    }
}

#[test]
fn exec_enters_the_cgroups_it_names() {
    let scene = Scene::new("exec cgroup v1");
    skip_unless!(scene, cgroup_v1(), "cgroup v1 has a hierarchy a controller");
    // Without a cgroup namespace of its own it tells the whole paths.
    let container = container(&scene, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let own = format!(":{}/c", scene.cgroup());
    for cgroups in [&[][..], &["/"]] {
        let list = exec_in(&container, cgroups, "cat /proc/self/cgroup").succeeds();
        assert!(list.lines().all(|line| line.ends_with(&own)), "{list}");
        assert!(list.lines().any(|line| line.starts_with("0::")), "{list}");
    }
    for (controller, name) in [
        ("memory", "submem"),
        ("cpu", "subcpu"),
        ("cpuacct", "subcpu"),
    ] {
        std::fs::create_dir_all(container.cgroup(controller).join(name)).unwrap();
    }
    let cgroups = ["memory:submem", "cpu,cpuacct:subcpu"];
    let list = exec_in(&container, &cgroups, "cat /proc/self/cgroup").succeeds();
    assert!(list.contains(&format!(":memory{own}/submem")), "{list}");
    assert!(list.contains(&format!(":cpu{own}/subcpu")), "{list}");
    assert!(list.contains(&format!(":pids{own}\n")), "{list}");
}

#[test]
fn exec_follows_init_unless_it_names_a_cgroup() {
    let scene = Scene::new("exec cgroup v2");
    skip_unless!(
        scene,
        !cgroup_v1(),
        "cgroup v2 alone refuses processes beside controllers"
    );
    let container = container(&scene, |_| {});
    let place = |cgroups: &[&str]| exec_in(&container, cgroups, "cat /proc/self/cgroup").succeeds();
    assert_eq!((place(&[]), place(&["/"])), ("0::/".into(), "0::/".into()));
    let move_init =
        "mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b && echo 1 > /sys/fs/cgroup/a/cgroup.procs";
    container.exec(move_init).succeeds();
    assert_eq!(place(&[]), "0::/");
    let enable = "echo $$ > /sys/fs/cgroup/a/cgroup.procs; echo +memory > /sys/fs/cgroup/cgroup.subtree_control";
    container.exec(enable).succeeds();
    assert_eq!(place(&[]), "0::/a");
    let parts = [
        " adding pid ",
        " to cgroups",
        "/cgroup.procs: device or resource busy",
    ];
    let _ = exec_in(&container, &["/"], "true").fails(255, &parts);
    assert_eq!(place(&["a"]), "0::/a");
    assert_eq!(place(&["b"]), "0::/b");
    container.call(&["delete", "--force"], &[]).succeeds();
}

/// The owner of the cgroup of a container whose root is 100000 outside.
fn owner(name: &str, change: impl FnOnce(&mut Value)) -> Option<(u32, u32, u32)> {
    let scene = Scene::new(name);
    if cgroup_v1() {
        teu_integration_tests::skipped(name, "cgroup v1 is not delegated");
        return None;
    }
    if !is_root() {
        teu_integration_tests::skipped(name, "only root gives files away");
        return None;
    }
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        change(config);
    });
    // Its root has to walk to the root file system.
    scene.shell(&format!(
        "chmod 755 {} && chown 100000:100000 {}",
        scene.path("").display(),
        container.bundle.join("rootfs").display()
    ));
    container.run_detached();
    let of = |file: &str| {
        std::fs::metadata(container.cgroup("").join(file))
            .unwrap()
            .uid()
    };
    Some((of("."), of("cgroup.procs"), of("memory.max")))
}

#[test]
fn a_writable_cgroup_belongs_to_the_containers_root() {
    let writable = |config: &mut Value| {
        config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    };
    if let Some(owner) = owner("cgroup owner", writable) {
        assert_eq!(owner, (100_000, 100_000, 0));
    }
    if let Some(owner) = owner("read-only cgroup", |_| {}) {
        assert_eq!(owner, (0, 0, 0));
    }
    let inherited = |config: &mut Value| {
        writable(config);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    };
    if let Some(owner) = owner("inherited cgroup namespace", inherited) {
        assert_eq!(owner, (0, 0, 0));
    }
}
