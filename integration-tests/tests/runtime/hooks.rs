//! Hooks: their order, their input, their failures.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::Scene;

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let scene = Scene::new("hooks");
    let record = scene.path("record");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(jq -r .status) >> {}", record.display())], "env": ["PATH=/usr/bin:/bin"]}]);
    let container = Container::script(&scene, "c", "true", |config| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state"]}],
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
        config["root"]["readonly"] = json!(false);
    });
    let _ = container.run().exits(0);
    let text = std::fs::read_to_string(&record).unwrap();
    let names: Vec<_> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop"
        ],
        "{text}"
    );
    assert!(
        text.contains("createRuntime creating") || text.contains("createRuntime created"),
        "{text}"
    );
    assert!(text.contains("poststop stopped"), "{text}");
    let state: Value =
        serde_json::from_slice(&std::fs::read(container.bundle.join("rootfs/tmp/state")).unwrap())
            .unwrap();
    assert_eq!(state["id"], container.id.as_str());
}

#[test]
fn a_failing_hook_stops_the_container() {
    let scene = Scene::new("failing hook");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = Container::script(&scene, kind, "true", |config| {
            config["hooks"][kind] = json!([{"path": "/bin/true"}, {"path": "/bin/false"}]);
        });
        let _ = container.run().fails(1, &["hook #1"]);
        container
            .call(&["state"], &[])
            .fails(1, &["does not exist"]);
    }
}

#[test]
fn a_hook_has_its_time_limit() {
    let scene = Scene::new("hook timeout");
    let container = Container::script(&scene, "c", "true", |config| {
        config["hooks"]["createRuntime"] =
            json!([{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]);
    });
    let _ = container.run().fails(1, &["hook #0"]);
}
