//! What fails, in whose words, and that nothing is left of it.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, fixture};

#[test]
fn a_missing_program_is_named_in_runcs_words() {
    let scene = Scene::new("missing program");
    let absolute = Container::new(&scene, "c", &["/no/such"], |_| {});
    let _ = absolute
        .run()
        .fails(1, &["exec", "/no/such", "no such file or directory"]);
    let relative = Container::new(&scene, "d", &["nosuch"], |_| {});
    let _ = relative
        .run()
        .fails(1, &["nosuch", "executable file not found in $PATH"]);
    let folder = Container::new(&scene, "e", &["/tmp"], |_| {});
    let _ = folder.run().fails(1, &["/tmp", "permission denied"]);
}

#[test]
fn the_log_holds_the_error_as_json() {
    let scene = Scene::new("log");
    let container = Container::new(&scene, "c", &["/no/such"], |_| {});
    let log = scene.path("log.json");
    let bundle = container.bundle.to_str().unwrap();
    let args = [
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "run",
        "-b",
        bundle,
        &container.id,
    ];
    let _ = scene.run("teu-runtime", args).exits(1);
    let text = std::fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"]
            .as_str()
            .unwrap()
            .contains("no such file or directory"),
        "{last}"
    );
    assert!(last["time"].as_str().unwrap().contains('T'), "{last}");
}

#[test]
fn a_failed_create_leaves_nothing() {
    let scene = Scene::new("failed create");
    let container = Container::new(&scene, "c", &["/no/such"], |_| {});
    let _ = container.run().exits(1);
    scene.run("teu-runtime", ["list", "-q"]).succeeds();
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    assert!(!container.cgroup("memory").exists());
}

#[test]
fn bad_configurations_are_errors() {
    let scene = Scene::new("bad configurations");
    let cases: [(&str, Value); 6] = [
        ("not JSON", json!(null)),
        (
            "empty arguments",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": [], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "linux": {}}),
        ),
        (
            "relative cwd",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/bin/true"], "cwd": "tmp", "user": {"uid": 0, "gid": 0}}, "linux": {}}),
        ),
        (
            "wrong type",
            json!({"ociVersion": "1.0.2", "root": {"path": 7}, "process": {}}),
        ),
        (
            "unknown namespace",
            json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "linux": {"namespaces": [{"type": "moon"}]}}),
        ),
        (
            "no root",
            json!({"ociVersion": "1.0.2", "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}}),
        ),
    ];
    for (number, (what, config)) in cases.into_iter().enumerate() {
        let container = Container::new(&scene, &format!("c{number}"), &["/bin/true"], |_| {});
        fixture::write_config(&container.bundle, &config);
        let outcome = container.run();
        assert!(
            outcome.code() != 0 && !outcome.stderr.is_empty(),
            "{what}: {outcome}"
        );
        assert!(
            !outcome.stderr.contains("panicked") && outcome.code() < 128,
            "{what}: {outcome}"
        );
    }
}

#[test]
fn a_missing_bundle_is_named() {
    let scene = Scene::new("missing bundle");
    let outcome = scene.run("teu-runtime", ["run", "-b", "/no/such/bundle", "x"]);
    let _ = outcome.fails(1, &["/no/such/bundle"]);
}

#[test]
fn unknown_commands_and_flags_are_errors() {
    let scene = Scene::new("unknown words");
    assert_ne!(scene.run("teu-runtime", ["frobnicate"]).code(), 0);
    assert_ne!(
        scene
            .run("teu-runtime", ["run", "--frobnicate", "x"])
            .code(),
        0
    );
    assert_ne!(scene.run("teu-runtime", ["start"]).code(), 0);
}
