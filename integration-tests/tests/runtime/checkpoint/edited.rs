//! R44 with CRIU itself: images whose credentials were edited, and a bundle that
//! gives less than it gave when they were made.

use super::image;
use super::real::{COUNT, checkpoint, counted, detached, gone, obstacle, running, scene_with_criu};
use crate::Container;
use serde_json::{Value, json};
use std::path::Path;
use teu_integration_tests::{Scene, skip_unless};

/// `CAP_SYS_ADMIN`, of the first 32.
const SYS_ADMIN: u64 = 1 << 21;

/// The fields of CRIU's `core_entry.thread_core.creds`, and the sets in that.
const CREDENTIALS: [u64; 2] = [5, 10];
const SETS: [(u64, &str); 4] = [
    (9, "inheritable"),
    (10, "permitted"),
    (11, "effective"),
    (12, "bounding"),
];

/// Raises the first number of each of these fields.
fn edit(core: &Path, fields: &[u64]) {
    image::edit(core, |messages| {
        messages[0].inside(&CREDENTIALS, |credentials| {
            for field in fields {
                *credentials.number(*field) |= SYS_ADMIN;
            }
        });
    });
}

/// A restore fails for what `words` say, and leaves nothing.
pub(super) fn refused(container: &Container<'_>, words: &[&str]) {
    let bundle = container.bundle.to_str().unwrap();
    let words_of_call = ["restore", "-d", "-b", bundle, "--image-path", "images"];
    let _ = container.call(&words_of_call, &[]).fails(1, words);
    gone(container);
    assert!(!container.cgroup("pids").exists());
}

#[test]
fn r44_edited_credentials_are_refused() {
    scene_with_criu!(scene, "criu edited credentials");
    let container = running(&scene, COUNT, |_| ());
    let reached = counted(&container, 1);
    checkpoint(&container, &["--image-path", "images"]);
    let images = scene.path("images");
    let kept = scene.path("kept");
    scene.shell(&format!("cp -a {} {}", images.display(), kept.display()));
    let fresh = || {
        let (images, kept) = (images.display(), kept.display());
        scene.shell(&format!("rm -r {images}; cp -a {kept} {images}"));
    };
    let first = |fields: &[u64]| edit(&image::named(&images, "core-")[0], fields);
    for (field, set) in &SETS[1..] {
        // The kernel has nothing effective that is not permitted.
        let fields: &[u64] = if *set == "effective" {
            &[10, 11]
        } else {
            &[*field]
        };
        first(fields);
        let set = if *set == "effective" {
            "permitted"
        } else {
            set
        };
        let set = format!("in its {set} set");
        refused(
            &container,
            &["CAP_SYS_ADMIN", &set, "was restored from the images"],
        );
        fresh();
    }
    first(&SETS.map(|(field, _)| field));
    refused(&container, &["CAP_SYS_ADMIN in its bounding set"]);
    fresh();
    // Also one that is not the first.
    let all = image::named(&images, "core-");
    if let Some(last) = all.get(1) {
        edit(last, &[12]);
        refused(&container, &["CAP_SYS_ADMIN in its bounding set"]);
        fresh();
    }
    detached(&container, "restore --detach --image-path images");
    counted(&container, reached);
}

#[test]
fn r44_the_bundle_of_the_restore_is_the_measure() {
    scene_with_criu!(scene, "criu less capabilities");
    let container = running(&scene, COUNT, |config| {
        let rule = json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let reached = counted(&container, 1);
    checkpoint(&container, &["--image-path", "images"]);
    let file = container.bundle.join("config.json");
    let before = std::fs::read(&file).unwrap();
    let mut config: Value = serde_json::from_slice(&before).unwrap();
    let less = json!(["CAP_KILL"]);
    config["process"]["capabilities"] =
        json!({"bounding": less, "permitted": less, "effective": less});
    std::fs::write(&file, config.to_string()).unwrap();
    refused(
        &container,
        &["CAP_NET_BIND_SERVICE CAP_AUDIT_WRITE in its bounding set"],
    );
    std::fs::write(&file, before).unwrap();
    // As it was it goes on, with its filter.
    detached(&container, "restore --detach --image-path images");
    counted(&container, reached);
    let status = format!("/proc/{}/status", container.state()["pid"]);
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
}
