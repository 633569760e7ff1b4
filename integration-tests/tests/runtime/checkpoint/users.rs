//! Containers with a user namespace, with CRIU itself.

use super::real::{COUNT, checkpoint, counted, detached, gone, obstacle, running, scene_with_criu};
use crate::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, skip_unless};

/// A user namespace whose first id is this one of the host's.
fn in_user_namespace(config: &mut Value, first: u32) {
    let map = json!([{"containerID": 0, "hostID": first, "size": 65_536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
}

fn goes_on(scene: &Scene, first: u32) {
    let container = running(scene, COUNT, |config| {
        in_user_namespace(config, first);
        let root = scene.path("");
        let root = root.display();
        scene.shell(&format!(
            "chmod 755 {root} {root}/c; chown -R {first}:{first} {root}/c/rootfs"
        ));
    });
    let map = |container: &Container<'_>| {
        let path = format!("/proc/{}/uid_map", container.state()["pid"]);
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = map(&container);
    assert_eq!(before[1], first.to_string());
    let mut reached = counted(&container, 1);
    for _ in 0..2 {
        checkpoint(&container, &["--image-path", "images"]);
        gone(&container);
        detached(&container, "restore --detach --image-path images");
        assert_eq!(map(&container), before);
        reached = counted(&container, reached);
    }
}

#[test]
fn a_user_namespace_that_keeps_ids_comes_back() {
    scene_with_criu!(scene, "criu userns 0");
    goes_on(&scene, 0);
}

#[test]
fn a_user_namespace_that_shifts_ids_comes_back() {
    scene_with_criu!(scene, "criu userns");
    goes_on(&scene, 100_000);
}
