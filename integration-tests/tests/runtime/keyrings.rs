//! The session keyring of a container, seen by strace(1): a process cannot be
//! asked for it from outside.

use super::Container;
use serde_json::json;
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// What the calls of keyctl(2) were in a `run` with these flags, and in an `exec`.
fn calls(container: &Container<'_>, flags: &str) -> [Vec<String>; 2] {
    let scene = container.scene;
    let traced = |log: &str, line: &str| {
        let mut command = scene.command("strace", ["-f", "-qq", "-e", "trace=keyctl", "-o", log]);
        command
            .args(line.split(' '))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    let mut run = traced("run", &container.line(&format!("run --detach{flags}")));
    let is_running = || {
        let state = container.call(&["state"], &[]).stdout;
        state.contains("\"running\"")
    };
    scene.wait_until("it runs", is_running);
    let bundle = format!(" -b {}", container.bundle.display());
    let exec = format!("{} /bin/true", container.line("exec").replace(&bundle, ""));
    assert!(traced("exec", &exec).wait().unwrap().success());
    container.call(&["delete", "--force"], &[]).succeeds();
    run.wait().unwrap();
    ["run", "exec"].map(|log| {
        let text = std::fs::read_to_string(scene.path(log)).unwrap();
        let calls = text.lines().filter_map(|line| line.split_once("keyctl("));
        calls.map(|(_, call)| call.to_owned()).collect()
    })
}

/// The serial number that a call gave.
fn given(call: &str) -> &str {
    call.rsplit(" = ").next().unwrap()
}

#[test]
fn the_processes_of_a_container_share_a_keyring_of_their_own() {
    let scene = Scene::new("keyring");
    skip_unless!(scene, !missing_command("strace"), "strace shows the calls");
    needs_root!(scene, "under strace newuidmap has no privilege");
    let container = Container::script(&scene, "c", "exec sleep 1000", |_| ());
    let [made, joined] = calls(&container, "");
    let join = format!("KEYCTL_JOIN_SESSION_KEYRING, \"_ses.{}\"", container.id);
    assert!(made[0].starts_with(&join), "{made:?}");
    // Whoever has its owner's id may search it, or exec would not find it.
    assert!(
        made[1].starts_with("KEYCTL_SETPERM") && made[1].contains("SEARCH"),
        "{made:?}"
    );
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert_eq!(given(&joined[0]), given(&made[0]));
}

#[test]
fn in_a_user_namespace_it_is_found_too() {
    let scene = Scene::new("keyring userns");
    skip_unless!(scene, !missing_command("strace"), "strace shows the calls");
    needs_root!(scene, "under strace newuidmap has no privilege");
    let container = Container::script(&scene, "c", "exec sleep 1000", |config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
    });
    let rootfs = container.bundle.join("rootfs");
    scene.shell(&format!(
        "chmod 711 . && chown -R 100000:100000 {}",
        rootfs.display()
    ));
    let [made, joined] = calls(&container, "");
    assert_eq!(given(&joined[0]), given(&made[0]));
}

#[test]
fn no_new_keyring_is_remembered() {
    let scene = Scene::new("no keyring");
    skip_unless!(scene, !missing_command("strace"), "strace shows the calls");
    needs_root!(scene, "under strace newuidmap has no privilege");
    let container = Container::script(&scene, "c", "exec sleep 1000", |_| ());
    let both = calls(&container, " --no-new-keyring");
    assert_eq!(both, [Vec::<String>::new(), Vec::new()]);
}
