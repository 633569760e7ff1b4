//! Rows R23 and R44 of the published attacks (the others stand in
//! `tests/runtime_safety/`): names that CRIU could mistake, and a checkpoint
//! that was made by an attacker.

use super::{Fake, SLEEP, no_python, scene_with_fake};
use crate::Container;
use serde_json::{Value, json};
use std::path::PathBuf;
use teu_integration_tests::{Scene, needs_root, skip_unless, tree};

/// A bundle whose configuration binds each of these names to a folder of its own.
fn binding<'a>(scene: &'a Scene, id: &str, names: &[&str]) -> (Container<'a>, Vec<PathBuf>) {
    let sources: Vec<_> = (0..names.len())
        .map(|number| {
            let source = scene.path(format!("{id}-{number}"));
            std::fs::create_dir(&source).unwrap();
            source
        })
        .collect();
    let container = Container::script(scene, id, SLEEP, |config| {
        for (name, source) in names.iter().zip(&sources) {
            let mount = json!({"destination": name, "source": source, "options": ["bind"]});
            config["mounts"].as_array_mut().unwrap().push(mount);
        }
    });
    (container, sources)
}

/// R23: what was saved under a name is restored as what the configuration binds
/// to that name, whatever is in it, or the name is refused (CVE-2026-119101,
/// CVE-2026-115520, CVE-2026-119614).
#[test]
fn r23_a_name_stands_for_its_own_mount() {
    scene_with_fake!(scene, fake, "R23", {});
    needs_root!(scene, "only root may restore");
    let names = [
        "/a:b",
        "/a]b",
        "/mnt[x]y",
        "/[",
        "/a,[b",
        "/line\nbreak",
        "/back\\slash\\040",
        "/mnt[/etc]",
        "/ü ü",
        "/-",
    ];
    let (container, sources) = binding(&scene, "c", &names);
    container.run_detached();
    fake.checkpoint(&container, &[]).succeeds();
    let mounts = fake.options()["ext_mnt"].as_array().unwrap().clone();
    for name in names {
        let saved: Vec<_> = mounts.iter().filter(|m| m["val"] == name).collect();
        assert_eq!(saved, [&json!({"key": name, "val": name})], "{name:?}");
    }
    let images = fake.images(&json!(["", "", ""]));
    fake.restore(&container, &["-d", "--image-path", &images])
        .succeeds();
    let mounts = fake.options()["ext_mnt"].as_array().unwrap().clone();
    for (name, source) in names.iter().zip(&sources) {
        let restored: Vec<_> = mounts.iter().filter(|m| m["key"] == *name).collect();
        assert_eq!(restored, [&json!({"key": name, "val": source})], "{name:?}");
    }
}

/// R23: the end of a key in a name, wherever.
#[test]
fn r23_a_name_with_the_end_of_a_key_is_refused() {
    scene_with_fake!(scene, fake, "R23 refused", {});
    needs_root!(scene, "only root may restore");
    let images = fake.images(&json!(["", "", ""]));
    for (number, name) in ["/]:", "/x]:/etc", "/]:/]:", "/a/b]:c/d", "/mnt[/etc]:/x"]
        .iter()
        .enumerate()
    {
        let (container, _) = binding(&scene, &format!("c{number}"), &[name]);
        container.run_detached();
        let _ = fake.checkpoint(&container, &[]).fails(1, &["]:"]);
        assert_eq!(container.status(), "running");
        container.call(&["delete", "--force"], &[]).succeeds();
        let flags = ["-d", "--image-path", &images];
        let _ = fake.restore(&container, &flags).fails(1, &["]:"]);
    }
    assert!(fake.requests().is_empty());
}

/// What CRIU is asked for, without what differs each time.
fn asked(fake: &Fake<'_>) -> Value {
    let mut options = fake.options();
    for number in ["images_dir_fd", "work_dir_fd", "cg_root"] {
        options[number] = Value::Null;
    }
    options
}

/// R44: what lies beside the images changes nothing: the configuration, its
/// mounts, hooks and capabilities are those of the bundle (CVE-2026-53489,
/// CVE-2026-50195, CVE-2026-53492, CVE-2024-8676, CVE-2026-92574).
#[test]
fn r44_a_checkpoint_brings_no_configuration() {
    scene_with_fake!(scene, fake, "R44", {});
    needs_root!(scene, "only root may restore");
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    let images = fake.images(&json!(["pipe:[1]", "", ""]));
    let flags = ["-d", "--image-path", images.as_str()];
    fake.restore(&container, &flags).succeeds();
    let plain = asked(&fake);
    container.call(&["delete", "--force"], &[]).succeeds();

    let evil = json!({
        "ociVersion": "1.0.2", "process": {"args": ["/evil"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_SYS_ADMIN"]}},
        "root": {"path": "/"}, "annotations": {"org.criu.config": scene.path("evil.conf")},
        "mounts": [{"destination": "/host", "source": "/", "options": ["bind"]}],
        "hooks": {"prestart": [{"path": scene.path("evil.sh")}]},
        "linux": {"namespaces": []}
    });
    for name in [
        "config.json",
        "config.dump",
        "spec.dump",
        "state.json",
        "rootfs/x",
    ] {
        scene.write(format!("images/{name}"), evil.to_string());
    }
    let more = ["pipe:[1]", "", "", "pipe:[4]", "pipe:[5]", "extRootNetNS"];
    fake.images(&json!(more));
    fake.behaves(&json!({}));
    fake.restore(&container, &flags).succeeds();
    assert_eq!(asked(&fake), plain);
    assert!(!container.state().to_string().contains("evil"));
}

/// R44: no link in the folder is followed, by us or by CRIU.
#[test]
fn r44_no_link_among_the_images_is_followed() {
    scene_with_fake!(scene, fake, "R44 links", {"fails": "Error (x.c:1): torn image"});
    needs_root!(scene, "only root may restore");
    let secret = scene.write("sentinel/secret", "Error: [\"pipe:[1]\"]\n");
    let before = tree::describe(&scene.path("sentinel"));
    let container = Container::script(&scene, "c", SLEEP, |_| ());
    let images = fake.images(&json!(["", "", ""]));
    let flags = ["-d", "--image-path", images.as_str()];
    let planted = |name: &str| {
        let path = scene.path("images").join(name);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        path
    };
    // What CRIU would write to, as this one does, is a file of its own.
    for log in ["restore.log", "stats-restore"] {
        let log = planted(log);
        let outcome = fake.restore(&container, &flags);
        let _ = outcome.fails(1, &["torn image", "deep reason"]);
        assert!(!log.is_symlink());
    }
    for image in ["inventory.img", "pages-1.img"] {
        let image = planted(image);
        let outcome = fake.restore(&container, &flags);
        let _ = outcome.fails(1, &["symbolic link", image.to_str().unwrap()]);
        std::fs::remove_file(image).unwrap();
    }
    let streams = planted("descriptors.json");
    let outcome = fake.restore(&container, &flags);
    let said = outcome.fails(1, &["descriptors.json"]);
    assert!(!said.to_string().contains("Error: ["), "{said}");
    // Nor is anybody waited for.
    std::fs::remove_file(&streams).unwrap();
    scene.shell(&format!("mkfifo {}", streams.display()));
    let _ = fake
        .restore(&container, &flags)
        .fails(1, &["descriptors.json"]);
    container.run_detached();
    let folder = scene.path("new");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&secret, folder.join("dump.log")).unwrap();
    let _ = fake
        .checkpoint(&container, &["--image-path", folder.to_str().unwrap()])
        .fails(1, &["deep reason"]);
    assert!(!folder.join("dump.log").is_symlink());
    assert_eq!(before, tree::describe(&scene.path("sentinel")));
}
