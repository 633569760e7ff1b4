//! Mounts: their order, flags, ids, destinations, and how many there may be.

use super::{Container, in_container};
use serde_json::{Value, json};
use std::path::Path;
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

fn mounts(config: &mut Value) -> &mut Vec<Value> {
    config["mounts"].as_array_mut().unwrap()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let words: Vec<_> = ["bind"].iter().chain(options).collect();
    json!({"destination": destination, "type": "bind", "source": source, "options": words})
}

/// Ids of a user namespace that begin at 100000.
fn map() -> Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": 65536}])
}

fn in_user_namespace(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = map();
    config["linux"]["gidMappings"] = map();
}

/// Gives the root file system to the container's root and lets it come there.
fn open_up(scene: &Scene, container: &Container<'_>) {
    let (root, bundle) = (scene.path(""), container.bundle.display());
    let root = root.display();
    scene.shell(&format!(
        "chown -R 100000:100000 {bundle}/rootfs && chmod 755 {root} {bundle}"
    ));
}

/// What `/proc/self/mounts` says of /mnt in a container that binds a source
/// with `flags` there.
fn flags_of(
    scene: &Scene,
    id: &str,
    flags: &str,
    words: &[&str],
    user: bool,
) -> Result<String, String> {
    let source = scene.path("source");
    std::fs::create_dir_all(&source).unwrap();
    let path = source.display();
    scene.shell(&format!(
        "mount -t tmpfs -o strictatime none {path} && mount --bind -o remount,{flags} {path}"
    ));
    let script = "awk '$2 == \"/mnt\" { print $4 }' /proc/self/mounts";
    let container = Container::script(scene, id, script, |config| {
        mounts(config).push(bind(&source, "/mnt", words));
        if user {
            in_user_namespace(config);
        }
    });
    std::fs::create_dir(container.bundle.join("rootfs/mnt")).unwrap();
    open_up(scene, &container);
    let out = container.run();
    scene.shell(&format!("umount {path}"));
    match out.code() {
        0 => Ok(out.stdout.trim().to_owned()),
        _ => Err(out.stderr),
    }
}

fn has(flags: &str, word: &str) -> bool {
    flags.split(',').any(|flag| flag == word)
}

#[test]
fn a_bind_mount_has_exactly_the_flags_it_asks_for() {
    let scene = Scene::new("flags of bind mounts");
    needs_root!(scene, "only root mounts on the host");
    let is = |id: &str, source: &str, words: &[&str]| {
        flags_of(&scene, id, source, words, false).unwrap()
    };
    let kept = is("kept", "ro,noexec,nodiratime", &[]);
    assert!(
        ["ro", "noexec", "nodiratime"]
            .iter()
            .all(|flag| has(&kept, flag)),
        "{kept}"
    );
    let cleared = is("cleared", "ro,noexec,nodiratime", &["dev"]);
    assert!(
        has(&cleared, "rw") && !has(&cleared, "noexec") && has(&cleared, "nodiratime"),
        "{cleared}"
    );
    let times = is("times", "noatime", &["atime"]);
    assert!(has(&times, "noatime"), "{times}");
    let times = is("changed", "noatime", &["nodiratime"]);
    assert!(
        has(&times, "nodiratime") && has(&times, "relatime") && !has(&times, "noatime"),
        "{times}"
    );
}

#[test]
fn locked_flags_stay_in_a_user_namespace_or_it_is_said() {
    let scene = Scene::new("locked flags");
    needs_root!(scene, "only root mounts on the host");
    let is = |id: &str, source: &str, words: &[&str]| flags_of(&scene, id, source, words, true);
    let kept = is("kept", "ro,nosuid,noexec", &["nodev"]).unwrap();
    assert!(
        ["ro", "nosuid", "noexec", "nodev"]
            .iter()
            .all(|flag| has(&kept, flag)),
        "{kept}"
    );
    let refused = is("refused", "ro", &["rw"]).unwrap_err();
    assert!(
        refused.contains("error mounting") && refused.contains("cannot clear locked flags ro"),
        "{refused}"
    );
    assert!(refused.contains("operation not permitted"), "{refused}");
    let refused = is("times", "noatime", &["relatime"]).unwrap_err();
    assert!(
        refused.contains("cannot change locked atime flags noatime"),
        "{refused}"
    );
}

#[test]
fn a_source_may_lie_in_an_earlier_mount_with_its_ids_mapped() {
    let scene = Scene::new("sources in earlier mounts");
    needs_root!(scene, "only root gives files away");
    for (id, mapped, user) in [
        ("plain", false, false),
        ("mapped", true, false),
        ("user", false, true),
        ("both", true, true),
    ] {
        scene.write("source/a/x/file", "from a");
        scene.write("source/b/y/file", "from b");
        scene.shell(&format!("chmod o-rwx {}", scene.path("source").display()));
        let container = Container::new(&scene, id, &["/bin/cat", "/final/x/y/x/file"], |config| {
            let rootfs = scene.path(format!("{id}/rootfs"));
            let inside = |path: &str, on: &str| {
                let mut mount = bind(
                    &rootfs.join(path),
                    &format!("{}/{on}", rootfs.display()),
                    &["rbind"],
                );
                if mapped {
                    mount["uidMappings"] = map();
                    mount["gidMappings"] = map();
                }
                mount
            };
            mounts(config).extend([
                bind(&scene.path("source/a"), "/mnt", &[]),
                bind(&scene.path("source/b"), "/mnt/x", &[]),
                bind(&scene.path("source/a"), "/mnt/x/y", &[]),
                inside("mnt/x", "final"),
                inside("mnt", "final"),
            ]);
            if user {
                in_user_namespace(config);
            }
        });
        std::fs::create_dir(container.bundle.join("rootfs/mnt")).unwrap();
        std::fs::create_dir(container.bundle.join("rootfs/final")).unwrap();
        open_up(&scene, &container);
        assert_eq!(container.run().succeeds(), "from a", "{id}");
    }
}

#[test]
fn ids_are_mapped_by_the_mounts_own_maps_or_the_containers() {
    let scene = Scene::new("idmapped mounts");
    needs_root!(scene, "only root gives files away");
    scene.write("bundle-source/file", "");
    scene.shell(&format!(
        "chown 5:7 {}",
        scene.path("bundle-source/file").display()
    ));
    let source = scene.path("bundle-source");
    let container = Container::script(
        &scene,
        "c",
        "stat -c %u:%g /own/file /implied/file /not/file",
        |config| {
            config["root"]["readonly"] = json!(false);
            in_user_namespace(config);
            let mut own = bind(&source, "/own", &["idmap"]);
            own["uidMappings"] = json!([{"containerID": 5, "hostID": 100_050, "size": 1}]);
            own["gidMappings"] = json!([{"containerID": 7, "hostID": 100_070, "size": 1}]);
            mounts(config).extend([
                own,
                bind(&source, "/implied", &["ridmap"]),
                bind(&source, "/not", &[]),
            ]);
        },
    );
    open_up(&scene, &container);
    let out = container.run().succeeds();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["50:70", "5:7", "65534:65534"]
    );
}

#[test]
fn a_file_on_a_folder_is_said_to_be_one() {
    let scene = Scene::new("file on a folder");
    let file = scene.write("file", "");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        mounts(config).push(bind(&file, "/etc", &[]));
    });
    let parts = [
        "the source is a file, the destination a directory",
        "not a directory",
    ];
    let _ = container.run().fails(1, &parts);
}

#[test]
fn destinations_are_made_through_dangling_links() {
    let scene = Scene::new("dangling links");
    let file = scene.write("file", "through");
    let container = Container::script(&scene, "c", "cat /tmp/foo/bar/hosts /tmp/last", |config| {
        config["root"]["readonly"] = json!(false);
        mounts(config).push(bind(&file, "/etc/hosts", &[]));
        mounts(config).push(bind(&file, "/etc/last", &[]));
    });
    let root = container.bundle.join("rootfs");
    for (target, link) in [
        ("/tmp/foo/bar", "jump"),
        ("/jump/hosts", "etc/hosts"),
        ("/tmp/last", "etc/last"),
    ] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    assert_eq!(container.run().succeeds(), "throughthrough");
}

#[test]
fn read_only_tmpfs_takes_mount_points_first_and_modes_are_inherited() {
    let script =
        "stat -c %a /mode; touch /ro/x 2>&1; ls /ro; grep -c ' /dev tmpfs ro' /proc/self/mounts";
    let out = in_container("late read-only", script, |config| {
        config["root"]["readonly"] = json!(false);
        for mount in mounts(config) {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
        mounts(config).extend([
            json!({"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
            json!({"destination": "/ro/below", "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": "/mode", "type": "tmpfs", "source": "tmpfs", "options": ["mode=0710"]}),
        ]);
    });
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        (lines[0], lines[2], lines[3]),
        ("710", "below", "1"),
        "{out}"
    );
    assert!(lines[1].contains("Read-only file system"), "{out}");
}

#[test]
fn the_root_propagates_as_asked() {
    let script = "awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo";
    for (word, expected) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("private", "-"),
        ("rprivate", "-"),
        ("unbindable", "unbindable"),
    ] {
        let out = in_container("propagation", script, |config| {
            config["linux"]["rootfsPropagation"] = json!(word);
        });
        assert!(out.starts_with(expected), "{word}: {out}");
    }
    for word in ["slave", "rslave"] {
        in_container("propagation", "true", |config| {
            config["linux"]["rootfsPropagation"] = json!(word);
        });
    }
}

#[test]
fn without_a_mount_namespace_mounts_are_made_on_the_host() {
    let scene = Scene::new("host mount namespace");
    needs_root!(scene, "only root mounts on the host");
    let container = Container::script(
        &scene,
        "c",
        "ls /proc/self/status; touch /x 2>&1",
        |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "mount");
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        },
    );
    let out = container.run();
    scene.shell(&format!(
        "umount -R --lazy {}/rootfs",
        container.bundle.display()
    ));
    assert!(
        out.stdout.contains("/proc/self/status") && out.stdout.contains("Read-only"),
        "{out}"
    );
}

#[test]
fn labels_without_their_module_are_refused_in_runcs_words() {
    let scene = Scene::new("labels");
    skip_unless!(
        scene,
        !Path::new("/sys/kernel/security/apparmor").exists(),
        "AppArmor runs here"
    );
    skip_unless!(
        scene,
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "SELinux runs here"
    );
    for (field, words) in [
        ("apparmorProfile", "apparmor not supported"),
        ("selinuxLabel", "selinux is disabled or not supported"),
    ] {
        let container = Container::new(&scene, field, &["/bin/true"], |config| {
            config["process"][field] = json!("x");
        });
        let _ = container.run().fails(1, &[words]);
    }
}

#[test]
fn what_means_nothing_for_a_mount_is_left_out_and_said() {
    let scene = Scene::new("mounts left out");
    skip_unless!(
        scene,
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "SELinux runs here"
    );
    scene.write("source/file", "bound");
    let container = Container::script(&scene, "c", "cat /a/file", |config| {
        let source = scene.path("source");
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(bind(&source, "/a", &["size=1m", "mode=1777"]));
        config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    });
    let outcome = container.run();
    assert_eq!(outcome.stdout, "bound", "{outcome}");
    for words in ["size,mode left out", "linux.mountLabel is left out"] {
        assert!(outcome.stderr.contains(words), "{words:?} not in {outcome}");
    }
}

#[test]
fn mounts_are_added_to_and_removed_from_a_running_container() {
    let scene = Scene::new("mounts add and remove");
    needs_root!(scene, "only root gives files away");
    scene.write("source/file", "added");
    for (id, user) in [("plain", false), ("user", true)] {
        let container = Container::new(&scene, id, &["/bin/sleep", "1000"], |config| {
            config["root"]["readonly"] = json!(false);
            if user {
                in_user_namespace(config);
            }
        });
        open_up(&scene, &container);
        container.run_detached();
        let list = json!([bind(&scene.path("source"), "/later", &["ro"]),
            {"destination": "/fresh", "type": "tmpfs", "source": "tmpfs"}]);
        let call = |verb: &str, list: &Value| {
            let file = scene.write("list.json", list.to_string());
            scene.run(
                "teu-runtime",
                ["mounts", verb, &container.id, file.to_str().unwrap()],
            )
        };
        call("add", &list).succeeds();
        let out = container.exec("cat /later/file; touch /later/x 2>&1; stat -f -c %T /fresh");
        assert!(
            out.stdout.contains("addedtouch") && out.stdout.contains("tmpfs"),
            "{out}"
        );
        call("remove", &json!({"mounts": list})).succeeds();
        let out = container.exec("ls /later /fresh | wc -l; grep -c later /proc/self/mounts");
        assert!(out.stdout.ends_with("0\n"), "{out}");
        let _ = call("remove", &list).fails(1, &["nothing is mounted there"]);
        let half = json!([{"destination": "/fresh", "type": "tmpfs"}, {"destination": "/no", "type": "nosuch"}]);
        let _ = call("add", &half).fails(1, &["nosuch"]);
        assert_eq!(
            container.exec("grep -c fresh /proc/self/mounts").stdout,
            "0\n"
        );
        let proc = json!([{"destination": "/p", "type": "proc"}]);
        let _ = call("add", &proc).fails(1, &["cannot be added"]);
    }
}

#[test]
fn two_thousand_mounts_cost_in_proportion_to_a_hundred() {
    let scene = Scene::new("many mounts");
    needs_root!(scene, "under strace newuidmap has no privilege");
    skip_unless!(scene, !missing_command("strace"), "no strace");
    scene.write("source/file", "");
    let calls = |count: usize| {
        let container = Container::new(&scene, &format!("n{count}"), &["/bin/true"], |config| {
            config["root"]["readonly"] = json!(false);
            for number in 0..count {
                mounts(config).push(bind(&scene.path("source"), &format!("/many/{number}"), &[]));
            }
        });
        let (report, line) = (scene.path("strace"), container.line("run"));
        let traced = format!("strace -f -c -o {} {line}", report.display());
        scene.run("sh", ["-c", traced.as_str()]).succeeds();
        let report = std::fs::read_to_string(report).unwrap();
        let total = report.lines().find(|line| line.ends_with("total")).unwrap();
        total
            .split_whitespace()
            .nth(3)
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    let (few, more, many) = (calls(1), calls(101), calls(2001));
    let each = (more - few).div_ceil(100);
    // Room for what depends on luck: signals, retries.
    assert!(many - more <= 1900 * each + 100, "{few}, {more}, {many}");
    // With its mount point, which is made name by name.
    assert!(each <= 18, "{each} calls a mount");
}
