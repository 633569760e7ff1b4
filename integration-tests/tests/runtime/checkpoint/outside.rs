//! Mounts, namespaces and streams that lie outside of the container.

use super::{Fake, SLEEP, no_python, scene_with_fake};
use crate::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, needs_root, skip_unless};

#[test]
fn mounts_from_outside_are_named_by_their_destination() {
    scene_with_fake!(scene, fake, "external mounts", {});
    let odd = "/odd,[x] y";
    for folder in ["a", "b", "c"] {
        std::fs::create_dir(scene.path(folder)).unwrap();
    }
    let bind = |to: &str, from: &str| json!({"destination": to, "source": scene.path(from), "options": ["bind"]});
    let container = Container::script(&scene, "c", SLEEP, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.extend([bind("/conf", "a"), bind(odd, "b"), bind("/dev/shm/in", "c")]);
        config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/proc/keys", "/proc/acpi"]);
    });
    scene.shell(&format!(
        "cd {}/rootfs; mkdir -p real; ln -s /real/conf conf",
        container.bundle.display()
    ));
    container.run_detached();
    fake.checkpoint(&container, &["--leave-running"]).succeeds();
    let options = fake.options();
    let mounts = options["ext_mnt"].as_array().unwrap();
    let pair = |key: &str, val: &str| json!({"key": key, "val": val});
    for expected in [
        pair("/real/conf", "/conf"),
        pair(odd, odd),
        pair("/dev/shm/in", "/dev/shm/in"),
    ] {
        assert!(mounts.contains(&expected), "{expected} in {options}");
    }
    let masked = mounts.iter().filter(|mount| mount["val"] == "/dev/null");
    assert!(masked.clone().count() >= 1, "{options}");
    assert!(
        masked.clone().all(|mount| mount["key"] != "/proc/acpi"),
        "{options}"
    );
    // The link is led to another mount: neither may become the other.
    container.exec("true").succeeds();
    scene.shell(&format!(
        "cd {}/rootfs; rm conf; ln -s '{odd}' conf",
        container.bundle.display()
    ));
    let _ = fake
        .checkpoint(&container, &["--leave-running"])
        .fails(1, &["has come to be the one on", "/conf"]);
}

#[test]
fn a_name_that_could_be_taken_for_another_is_refused() {
    scene_with_fake!(scene, fake, "confusing names", {});
    needs_root!(scene, "only root may restore");
    let source = scene.path("a");
    std::fs::create_dir(&source).unwrap();
    let container = Container::script(&scene, "c", SLEEP, |config| {
        let mount = json!({"destination": "/x]:/etc", "source": source, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    container.run_detached();
    let _ = fake
        .checkpoint(&container, &["--leave-running"])
        .fails(1, &["]:"]);
    let _ = container.call(&["delete", "--force"], &[]).exits(0);
    let images = fake.images(&json!(["", "", ""]));
    let _ = fake
        .restore(&container, &["-d", "--image-path", &images])
        .fails(1, &["]:"]);
    assert!(fake.requests().is_empty());
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
}

/// A container that joins namespaces of another, and that one with its pid.
fn joining(scene: &Scene) -> (Container<'_>, Value, Container<'_>) {
    let holder = Container::script(scene, "holder", SLEEP, |_| ());
    holder.run_detached();
    let pid = holder.state()["pid"].clone();
    let container = Container::script(scene, "c", SLEEP, |config| {
        let own = |kind: &str, name: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")});
        config["linux"]["namespaces"] = json!([
            own("network", "net"), own("pid", "pid"), own("ipc", "ipc"), {"type": "mount"}, {"type": "uts"}
        ]);
    });
    (holder, pid, container)
}

#[test]
fn joined_namespaces_stay_outside() {
    scene_with_fake!(scene, fake, "joined namespaces", {});
    needs_root!(
        scene,
        "without a user namespace nothing of the host's is shared"
    );
    let (_holder, pid, container) = joining(&scene);
    container.run_detached();
    fake.checkpoint(&container, &["--leave-running"]).succeeds();
    let inode = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        link.to_str().unwrap().to_owned().replace(':', "")
    };
    let external = [
        format!("{}:extRootNetNS", inode("net")),
        format!("{}:extRootPidNS", inode("pid")),
    ];
    // Besides, the null device of the host, on the streams that it was given.
    let (null, rest): (Vec<_>, Vec<_>) = fake.options()["external"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .partition(|name| name.starts_with("file["));
    assert_eq!(rest, external);
    assert_eq!(null.len(), 1, "{null:?}");
    let saved = std::fs::read_to_string(scene.path("checkpoint/descriptors.json")).unwrap();
    assert!(saved.contains(&null[0]), "{saved}");
    let _ = container.call(&["delete", "--force"], &[]).exits(0);
}

#[test]
fn joined_namespaces_and_streams_are_given_at_a_restore() {
    scene_with_fake!(scene, fake, "joined namespaces again", {});
    needs_root!(scene, "only root may restore");
    let (_holder, pid, container) = joining(&scene);
    let images = fake.images(&json!(["pipe:[1]", "file[1a:5]", "pipe:[2]"]));
    fake.restore(&container, &["-d", "--image-path", &images])
        .succeeds();
    let options = fake.options();
    assert_eq!(
        options["join_ns"],
        json!([{"ns": "ipc", "ns_file": format!("/proc/{pid}/ns/ipc")}])
    );
    let inherited = options["inherit_fd"].as_array().unwrap();
    let keys: Vec<_> = inherited
        .iter()
        .map(|fd| fd["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "extRootNetNS",
            "extRootPidNS",
            "pipe:[1]",
            "file[1a:5]",
            "pipe:[2]"
        ]
    );
    let (net, pid_ns) = (&inherited[0]["fd"], &inherited[1]["fd"]);
    assert_eq!(
        (&inherited[2]["fd"], &inherited[4]["fd"]),
        (&json!(0), &json!(2))
    );
    // Of ours, CRIU has these, its streams and the socket.
    let all = fake.requests();
    let request = all.iter().find(|request| request["type"] == 2).unwrap();
    let has = request["descriptors"].as_array().unwrap();
    assert!(
        has.contains(net) && has.contains(pid_ns) && has.len() == 7,
        "{request}"
    );
    assert_eq!(request["blocked"], "0000000000000000");
    let _ = container.call(&["kill"], &["KILL"]).exits(0);
}

#[test]
fn restored_mounts_are_what_the_bundle_says() {
    scene_with_fake!(scene, fake, "restored mounts", {});
    needs_root!(scene, "only root may restore");
    let place = scene.path("place");
    for folder in ["place", "good", "evil"] {
        std::fs::create_dir(scene.path(folder)).unwrap();
    }
    let container = Container::script(&scene, "c", SLEEP, |config| {
        let options = ["bind", "ro", "nosuid"];
        let mount = json!({"destination": place, "source": scene.path("good"), "options": options});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let images = fake.images(&json!(["", "", ""]));
    let flags = ["-d", "--image-path", images.as_str()];
    let bind = json!([scene.path("evil"), place, null, 4096, null]);
    fake.behaves(&json!({ "mounts": [bind] }));
    let _ = fake
        .restore(&container, &flags)
        .fails(1, &["was restored from the images as something else"]);
    // CRIU has lost the attributes: they are set again.
    fake.behaves(&json!({}));
    fake.restore(&container, &flags).succeeds();
    let pid = container.state()["pid"].clone();
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let attributes = |point: &str| {
        let line = table
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(point));
        line.unwrap().split(' ').nth(5).unwrap().to_owned()
    };
    let restored = attributes(place.to_str().unwrap());
    assert!(restored.starts_with("ro,nosuid"), "{restored}");
    assert!(attributes("/").starts_with("ro"), "{table}");
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(place.to_str().unwrap()), "{host}");
}
