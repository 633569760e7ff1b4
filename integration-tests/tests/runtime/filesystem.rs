//! The root filesystem: mounts, devices, masks, and no way out.

use super::{Container, in_container};
use serde_json::json;
use teu_integration_tests::{Scene, needs_root};

#[test]
fn the_root_is_read_only_where_asked() {
    let out = in_container(
        "read-only",
        "touch /x 2>&1 || true; mount | grep ' / '",
        |_| {},
    );
    assert!(out.contains("Read-only file system"), "{out}");
    let out = in_container("writable", "touch /x && ls /x", |config| {
        config["root"]["readonly"] = json!(false)
    });
    assert_eq!(out, "/x");
}

#[test]
fn standard_mounts_devices_and_links_are_there() {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t,%T %a' /dev/$d; done; for l in fd stdin ptmx; do readlink /dev/$l; done; grep -cE ' (/proc|/dev|/dev/pts|/dev/shm|/dev/mqueue|/sys) ' /proc/self/mountinfo; echo x > /dev/null";
    let out = in_container("devices", script, |_| {});
    assert!(
        out.contains("/dev/null character special file 1,3 666"),
        "{out}"
    );
    assert!(
        out.contains("/dev/tty character special file 5,0 666"),
        "{out}"
    );
    assert!(
        out.contains("/proc/self/fd") && out.contains("/proc/self/fd/0"),
        "{out}"
    );
}

#[test]
fn asked_devices_are_made() {
    let scene = Scene::new("devices");
    needs_root!(scene, "a user namespace makes no devices");
    let out = in_container(
        "more devices",
        "stat -c '%F %t,%T %a %u:%g' /dev/mine",
        |config| {
            config["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}]);
            config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]);
        },
    );
    assert_eq!(out, "character special file a,e5 640 5:6");
}

#[test]
fn a_device_of_the_image_must_be_the_one_that_is_asked_for() {
    let scene = Scene::new("devices in the image");
    needs_root!(scene, "only root makes device nodes");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        config["linux"]["devices"] =
            json!([{"path": "/odd/node", "type": "c", "major": 1, "minor": 3}]);
    });
    let place = |made: &str| {
        let rootfs = container.bundle.join("rootfs");
        scene.shell(&format!(
            "cd {}; rm -rf odd; mkdir odd; {made}",
            rootfs.display()
        ));
    };
    place("mknod odd/node c 1 3");
    container.run().succeeds();
    for (made, words) in [
        (
            "touch odd/node",
            "/odd/node has incorrect ftype: regular file",
        ),
        (
            "mknod odd/node c 1 5",
            "/odd/node has incorrect major:minor: 1:5 doesn't match expected 1:3",
        ),
    ] {
        place(made);
        let _ = container.run().fails(1, &[words]);
    }
}

#[test]
fn binds_follow_their_options() {
    let scene = Scene::new("binds");
    scene.write("shared/file", "content");
    scene.write("one-file", "one");
    let shared = scene.path("shared");
    let container = Container::script(
        &scene,
        "c",
        "cat /a/file /f; touch /a/new 2>&1; touch /b/new && ls /b; mount | grep -E ' /(a|b) '",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/a", "type": "bind", "source": shared, "options": ["rbind", "ro", "nosuid", "nodev"]}),
            json!({"destination": "/b", "type": "bind", "source": shared, "options": ["bind"]}),
            json!({"destination": "/f", "type": "bind", "source": scene.path("one-file"), "options": ["bind"]}),
        ]);
        },
    );
    let out = container.run().succeeds();
    assert!(
        out.starts_with("contentone") && out.contains("Read-only file system"),
        "{out}"
    );
    assert!(out.contains("file\nnew"), "{out}");
    assert!(
        out.lines()
            .any(|line| line.contains(" /a ") && line.contains("ro,nosuid,nodev")),
        "{out}"
    );
}

#[test]
fn tmpfs_can_be_filled_from_below() {
    let out = in_container(
        "tmpcopyup",
        "cat /etc/passwd | head -n 1; touch /etc/new && echo writable; stat -f -c %T /etc",
        |config| {
            config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}));
        },
    );
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["root:x:0:0:root:/root:/bin/sh", "writable", "tmpfs"]
    );
}

/// The mode that was asked for is a new file system's, unless it takes the place of a folder
/// that has one (as runc has it).
#[test]
fn what_is_filled_has_the_mode_of_what_was_there_before() {
    let out = in_container("tmpcopyup mode", "stat -c %a /new /tmp", |config| {
        let options = ["tmpcopyup", "mode=700"];
        for place in ["/new", "/tmp"] {
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}),
            );
        }
    });
    assert_eq!(out.lines().collect::<Vec<_>>(), ["700", "1777"]);
}

#[test]
fn masked_and_read_only_paths() {
    let script = "cat /proc/kcore | wc -c; ls /sys/firmware 2>/dev/null | wc -l; echo 1 > /proc/sys/kernel/domainname 2>/dev/null || echo refused";
    let out = in_container("masked", script, |_| {});
    assert_eq!(out.lines().collect::<Vec<_>>(), ["0", "0", "refused"]);
}

#[test]
fn mount_destinations_do_not_leave_the_root() {
    let scene = Scene::new("confinement");
    let outside = scene.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let container = Container::script(&scene, "c", "true", |config| {
        config["root"]["readonly"] = json!(false);
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"}));
    });
    std::os::unix::fs::symlink(&outside, container.bundle.join("rootfs/link")).unwrap();
    let _ = container.run();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_proc_that_is_a_link_is_refused() {
    let scene = Scene::new("proc link");
    let container = Container::script(&scene, "c", "true", |_| {});
    let root = container.bundle.join("rootfs");
    std::fs::remove_dir(root.join("proc")).unwrap();
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", root.join("proc")).unwrap();
    let _ = container.run().fails(1, &["/proc"]);
}

#[test]
fn the_old_root_cannot_be_reached() {
    let out = in_container(
        "old root",
        "awk '{print $5}' /proc/self/mountinfo | grep -c '^/$'; ls /",
        |_| {},
    );
    assert_eq!(out.lines().next(), Some("1"), "{out}");
    assert!(!out.contains("lost+found"), "{out}");
}
