//! R44: images that would give the restored processes more than the bundle says:
//! capabilities, namespaces of the host, system calls.

use super::{Fake, SLEEP, no_python, scene_with_fake};
use crate::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Outcome, Scene, needs_root, skip_unless};

/// The bundles' own: CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE.
const USUAL: u64 = 1 << 5 | 1 << 10 | 1 << 29;
const SYS_ADMIN: u64 = 1 << 21;

/// A bundle with a folder of the host's, in which it says that it ran.
pub(super) fn bundle<'a>(
    scene: &'a Scene,
    id: &str,
    change: impl FnOnce(&mut Value),
) -> Container<'a> {
    let ran = scene.path("ran");
    std::fs::create_dir_all(&ran).unwrap();
    Container::script(scene, id, SLEEP, |config| {
        let mount = json!({"destination": "/ran", "source": ran, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
        change(config);
    })
}

/// Restores what this criu makes; what it made says in a file that it ran.
fn restore(fake: &Fake<'_>, container: &Container<'_>, behaviour: Value) -> Outcome {
    let _ = std::fs::remove_file(fake.scene.path("ran/yes"));
    let mut behaviour = behaviour;
    behaviour["script"] = json!(format!("echo > /ran/yes; {SLEEP}"));
    fake.behaves(&behaviour);
    let images = fake.images(&json!(["", "", ""]));
    fake.restore(container, &["-d", "--image-path", &images])
}

/// Refused with these words, before it ran, and nothing is left.
pub(super) fn refused(
    fake: &Fake<'_>,
    container: &Container<'_>,
    behaviour: Value,
    words: &[&str],
) {
    let asked = behaviour.to_string();
    let outcome = restore(fake, container, behaviour);
    let outcome = outcome.fails(1, &["was restored from the images"]);
    for word in words {
        assert!(outcome.stderr.contains(word), "{asked}: {word}: {outcome}");
    }
    assert!(!fake.scene.path("ran/yes").exists(), "{asked}: it ran");
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    assert!(!container.cgroup("freezer").exists());
}

pub(super) fn accepted(fake: &Fake<'_>, container: &Container<'_>, behaviour: Value) -> Outcome {
    let asked = behaviour.to_string();
    let outcome = restore(fake, container, behaviour);
    assert_eq!(outcome.code(), 0, "{asked}: {outcome}");
    let ran = || fake.scene.path("ran/yes").exists();
    fake.scene.wait_until("it runs", ran);
    let _ = container.call(&["delete", "--force"], &[]).exits(0);
    outcome
}

#[test]
fn r44_no_set_holds_more_than_the_bundle_gives() {
    scene_with_fake!(scene, fake, "R44 sets", {});
    needs_root!(scene, "only root may restore");
    let container = bundle(&scene, "c", |_| ());
    let more = USUAL | SYS_ADMIN;
    for (has, set) in [
        (json!({"bounding": more}), "bounding"),
        (json!({"permitted": more, "effective": USUAL}), "permitted"),
        (json!({"permitted": more, "effective": 0}), "permitted"),
        (json!({"bounding": more, "permitted": more}), "bounding"),
        (
            json!({"permitted": USUAL, "bounding": USUAL, "inheritable": more}),
            "inheritable",
        ),
    ] {
        let words = ["(python3)", "CAP_SYS_ADMIN", &format!("in its {set} set")];
        refused(&fake, &container, json!({ "has": has }), &words);
    }
    accepted(&fake, &container, json!({}));
    let less = json!({"bounding": 0, "permitted": 0});
    accepted(&fake, &container, json!({ "has": less }));
}

#[test]
fn r44_no_process_and_no_thread_is_overlooked() {
    scene_with_fake!(scene, fake, "R44 processes", {});
    needs_root!(scene, "only root may restore");
    let more = json!({"bounding": USUAL | SYS_ADMIN});
    let container = bundle(&scene, "c", |_| ());
    let words = ["CAP_SYS_ADMIN in its bounding set"];
    let behaviour = json!({"descendants": [{}, more]});
    refused(&fake, &container, behaviour, &words);
    refused(&fake, &container, json!({"thread": more}), &words);
    accepted(
        &fake,
        &container,
        json!({"descendants": [{}], "thread": {}}),
    );
    // What has ended has CRIU's own, and can do nothing.
    accepted(&fake, &container, json!({"descendants": ["zombie"]}));
    // In the pid namespace of the host nothing ends with the first process.
    let shared = bundle(&scene, "shared", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let behaviour = json!({"makes": "mnt uts ipc net", "descendants": [more]});
    refused(&fake, &shared, behaviour, &words);
}

#[test]
fn r44_what_a_set_id_program_may_have_is_allowed() {
    scene_with_fake!(scene, fake, "R44 reach", {});
    needs_root!(scene, "only root may restore");
    let user = |container: &str, no_new_privs: bool| {
        bundle(&scene, container, |config| {
            let process = &mut config["process"];
            process["user"] = json!({"uid": 1000, "gid": 1000});
            process["capabilities"] =
                json!({"bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]});
            process["noNewPrivileges"] = json!(no_new_privs);
        })
    };
    accepted(&fake, &user("free", false), json!({}));
    let words = ["CAP_KILL", "in its permitted set"];
    refused(&fake, &user("kept", true), json!({}), &words);
}

#[test]
fn r44_no_process_is_in_a_namespace_of_the_host() {
    scene_with_fake!(scene, fake, "R44 namespaces", {});
    needs_root!(scene, "only root may restore");
    let container = bundle(&scene, "c", |_| ());
    let all = ["mnt", "uts", "ipc", "pid", "net"];
    for shared in &all[1..] {
        let makes: Vec<_> = all.iter().filter(|name| *name != shared).collect();
        let word = format!("the host's {shared} namespace");
        refused(&fake, &container, json!({ "makes": makes }), &[&word]);
    }
    // Where the bundle says so, it is no stray.
    let open = bundle(&scene, "open", |config| {
        config.as_object_mut().unwrap().remove("hostname");
        config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}
        ]);
    });
    accepted(&fake, &open, json!({"makes": ["mnt", "pid"]}));
}

#[test]
fn r44_filters_and_the_way_to_more_are_the_bundles() {
    scene_with_fake!(scene, fake, "R44 filters", {});
    needs_root!(scene, "only root may restore");
    let filtered = bundle(&scene, "filtered", |config| {
        let rule = json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    });
    refused(&fake, &filtered, json!({}), &["no filter of system calls"]);
    accepted(&fake, &filtered, json!({"has": {"seccomp": true}}));

    let container = bundle(&scene, "c", |_| ());
    let gains = json!({"no_new_privs": false});
    let newer = json!({"version": [3, 19, 0], "has": gains});
    refused(&fake, &container, newer, &["no noNewPrivileges"]);
    // An older CRIU cannot restore it: that is said, and no reason to refuse all.
    let outcome = accepted(&fake, &container, json!({ "has": gains }));
    assert!(
        outcome.stderr.contains("noNewPrivileges is not in force"),
        "{outcome}"
    );
}

#[test]
fn r44_a_restore_without_a_comparison_is_none() {
    scene_with_fake!(scene, fake, "R44 unsaid", {});
    needs_root!(scene, "only root may restore");
    let container = bundle(&scene, "c", |_| ());
    let outcome = restore(&fake, &container, json!({"says_when": false}));
    let _ = outcome.fails(1, &["could be compared with the bundle"]);
    let _ = container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    assert!(!container.cgroup("freezer").exists());
}
