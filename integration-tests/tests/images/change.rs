//! `config`, `index`: new images out of those that are here, read back by skopeo.

use serde_json::{Value, json};
use teu_integration_tests::Scene;

use crate::{json, lines, store};

/// The store's image as skopeo reads it from a layout.
fn by_skopeo(scene: &Scene, name: &str, flags: &str) -> Value {
    scene.shell("rm -rf out");
    store(
        scene,
        [
            "export",
            "--preserve-digests",
            "--format",
            "oci-dir",
            "-o",
            "out",
            name,
        ],
    );
    serde_json::from_str(&scene.shell(&format!("skopeo inspect {flags} oci:out"))).unwrap()
}

#[test]
fn a_configuration_is_changed_and_the_layers_stay() {
    let scene = Scene::new("config");
    scene.busybox("one");
    store(
        &scene,
        [
            "config",
            "one",
            "two",
            "--entrypoint",
            r#"["/bin/echo"]"#,
            "--cmd",
            r#"["hi"]"#,
            "-e",
            "A=b c",
            "-l",
            "org.x.y=z",
            "-p",
            "80",
            "--volume",
            "/data",
            "-w",
            "/tmp",
            "-u",
            "app:extra",
            "--stop-signal",
            "SIGINT",
            "--author",
            "me",
            "--created",
            "2001-02-03T04:05:06Z",
            "--annotation",
            "note=1",
        ],
    );
    let config = by_skopeo(&scene, "two", "--config");
    assert_eq!(config["created"], "2001-02-03T04:05:06Z");
    assert_eq!(config["author"], "me");
    assert_eq!(
        config["config"],
        json!({"User": "app:extra", "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b c"],
            "Entrypoint": ["/bin/echo"], "Cmd": ["hi"], "Volumes": {"/data": {}}, "WorkingDir": "/tmp", "Labels": {"org.x.y": "z"}, "StopSignal": "SIGINT"})
    );
    let (one, two) = (
        json(&scene, ["inspect", "--manifest", "one"]),
        json(&scene, ["inspect", "--manifest", "two"]),
    );
    assert_eq!(one["layers"], two["layers"]);
    assert_eq!(two["annotations"], json!({"note": "1"}));
    let steps = lines(&scene, ["history", "--format", "json", "two"]);
    assert!(
        steps[0]["created_by"]
            .as_str()
            .unwrap()
            .starts_with("teu-store config ENTRYPOINT")
    );
}

#[test]
fn parts_of_a_configuration_are_taken_away() {
    let scene = Scene::new("config without");
    scene.busybox("one");
    let flags = ["-e", "A=b", "--cmd", "true", "--volume", "/data"];
    let arguments = [&["config", "one", "two"], &flags[..]].concat();
    scene.run("teu-store", arguments).succeeds();
    // Without a second name the image's own one moves; the same change gives the same image.
    store(
        &scene,
        [
            "config", "two", "--unset", "env=A", "--unset", "volume", "--unset", "cmd",
        ],
    );
    let config = json(&scene, ["inspect", "--config", "two"]);
    assert_eq!(config["config"]["Cmd"], Value::Null);
    assert_eq!(config["config"]["Volumes"], Value::Null);
    assert_eq!(config["config"]["Env"].as_array().unwrap().len(), 1);
    for name in ["x", "y"] {
        store(&scene, ["config", "one", name, "-e", "A=1"]);
    }
    let ids = ["x", "y"].map(|name| store(&scene, ["inspect", "--format", "{id}", name]));
    assert_eq!(ids[0], ids[1]);
    scene
        .run("teu-store", ["config", "one", "--unset", "nothing"])
        .fails(2, &["stop-signal"]);
    scene
        .run("teu-store", ["config", "one", "-e", "novalue"])
        .fails(1, &["NAME=VALUE"]);
}

#[test]
fn images_of_several_platforms_have_one_name() {
    let scene = Scene::new("index");
    scene.busybox("here");
    store(
        &scene,
        ["config", "here", "arm", "--platform", "linux/arm64/v8"],
    );
    store(
        &scene,
        ["config", "here", "riscv", "--platform", "linux/riscv64"],
    );
    store(
        &scene,
        [
            "index",
            "create",
            "multi",
            "here",
            "arm",
            "--annotation",
            "a=1",
        ],
    );
    store(&scene, ["index", "add", "multi", "riscv", "arm"]);
    store(
        &scene,
        ["index", "annotate", "multi", "--of", "linux/arm64", "b=2"],
    );
    let rows = lines(&scene, ["index", "list", "multi", "--format", "json"]);
    let platforms: Vec<&str> = rows
        .iter()
        .map(|row| row["platform"].as_str().unwrap())
        .collect();
    let host = store(
        &scene,
        [
            "inspect",
            "--format",
            "{config.os}/{config.architecture}",
            "here",
        ],
    );
    assert_eq!(platforms, [&host, "linux/riscv64", "linux/arm64/v8"]);
    assert_eq!(rows[2]["annotations"], json!({"b": "2"}));
    // The name means the image for this machine; gc keeps the others.
    keeps_what_it_names(&scene, &host);
    store(&scene, ["index", "remove", "multi", "linux/riscv64"]);
    scene
        .run("teu-store", ["index", "remove", "multi", "linux/riscv64"])
        .fails(1, &["linux/riscv64"]);
    scene
        .run("teu-store", ["index", "create", "twice", "multi", "multi"])
        .fails(1, &["two of the images"]);
    store(&scene, ["config", "multi", "single"]);
    scene
        .run("teu-store", ["index", "list", "single"])
        .fails(1, &["not an index"]);
}

fn keeps_what_it_names(scene: &Scene, host: &str) {
    for name in ["here", "arm", "riscv"] {
        store(scene, ["untag", name]);
    }
    store(scene, ["gc"]);
    assert_eq!(
        store(
            scene,
            ["inspect", "--format", "{config.architecture}", "multi"]
        ),
        host.split('/').nth(1).unwrap()
    );
    assert!(
        lines(scene, ["index", "list", "multi", "--format", "json"])
            .iter()
            .all(|row| row["here"] == true)
    );
    let raw = store(scene, ["inspect", "--raw", "multi"]);
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(
        (
            &raw["annotations"],
            raw["manifests"].as_array().unwrap().len()
        ),
        (&json!({"a": "1"}), 3)
    );
}

#[test]
fn an_index_of_many_hands_loses_nothing() {
    let scene = Scene::new("index by many");
    scene.busybox("base");
    store(&scene, ["index", "create", "multi", "base"]);
    let names: Vec<String> = (0..8).map(|number| format!("a{number}")).collect();
    for name in &names {
        store(
            &scene,
            [
                "config",
                "base",
                name,
                "--platform",
                &format!("linux/{name}"),
            ],
        );
    }
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            scene
                .command("teu-store", ["index", "add", "multi", name])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        lines(&scene, ["index", "list", "multi", "--format", "json"]).len(),
        9
    );
}
