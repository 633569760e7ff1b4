//! `df`, `gc`, `prune`: what takes room, and what goes.

use serde_json::Value;
use std::collections::BTreeMap;
use teu_integration_tests::Scene;

use crate::{lines, store};

/// Images `a`, `b`, `c` of about 1, 2 and 3 MB, named in this order.
fn three(scene: &Scene) {
    for (name, megabytes) in [("a", 1), ("b", 2), ("c", 3)] {
        scene.shell(&format!(
            "mkdir {name}.d && head -c {megabytes}M /dev/urandom > {name}.d/noise && tar -C {name}.d -cf {name}.tar noise"
        ));
        store(scene, ["import", &format!("{name}.tar"), name]);
    }
}

fn names(scene: &Scene) -> String {
    store(scene, ["images", "--format", "{name}"])
        .replace("docker.io/library/", "")
        .replace(":latest", "")
        .replace('\n', " ")
}

fn usage(scene: &Scene) -> BTreeMap<String, Value> {
    let rows = lines(scene, ["df", "--format", "json"]).into_iter();
    rows.map(|row| (row["kind"].as_str().unwrap().to_owned(), row))
        .collect()
}

#[test]
fn what_is_shown_as_garbage_is_what_goes() {
    let scene = Scene::new("df");
    three(&scene);
    let before = usage(&scene);
    assert_eq!(before["blobs"]["garbage"], 0);
    assert!(before["blobs"]["size"].as_u64().unwrap() > 6_000_000);
    // A layer that was made here is one file with two names.
    assert_eq!(before["layers"]["size"], 0);
    store(&scene, ["untag", "b"]);
    let garbage = usage(&scene)["blobs"]["garbage"].as_u64().unwrap();
    assert!((2_000_000..2_200_000).contains(&garbage), "{garbage}");
    let would = store(&scene, ["gc", "--dry-run"]);
    assert_eq!(usage(&scene)["blobs"]["garbage"], garbage);
    let counted = |text: &str| text.split(' ').rev().nth(3).map(str::to_owned);
    let did = store(&scene, ["gc"]);
    assert_eq!(counted(&would), counted(&did), "{would} {did}");
    assert!(usage(&scene).values().all(|row| row["garbage"] == 0));
    let rows = lines(&scene, ["df", "-v", "--format", "json"]);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["size"], rows[0]["unique"]);
}

#[test]
fn images_go_by_policy() {
    let scene = Scene::new("prune");
    three(&scene);
    scene.run("teu-store", ["prune"]).fails(2, &["--all"]);
    assert_eq!(
        store(
            &scene,
            ["prune", "--older-than", "1h", "--format", "{name}"]
        ),
        ""
    );
    let plan = store(
        &scene,
        [
            "prune",
            "--keep-storage",
            "5.5MB",
            "--dry-run",
            "--format",
            "{name}",
        ],
    );
    assert_eq!(plan, "docker.io/library/a:latest");
    assert_eq!(names(&scene), "a b c");
    // Who is used by a container stays.
    scene.write("request.json", r#"{"args": ["true"]}"#);
    let request = [
        "bundle",
        "create",
        "--id",
        "user",
        "--request",
        "request.json",
        "a",
        "bundle",
    ];
    store(&scene, request);
    store(&scene, ["prune", "--keep-storage", "4.5MB"]);
    assert_eq!(names(&scene), "a c");
    store(&scene, ["prune", "--name", "*/c:*"]);
    assert_eq!(names(&scene), "a");
    store(&scene, ["prune", "--all"]);
    assert_eq!(names(&scene), "a");
    store(&scene, ["bundle", "release", "user"]);
    store(&scene, ["prune", "--older-than", "0s"]);
    assert_eq!(names(&scene), "");
    assert_eq!(usage(&scene)["blobs"]["files"], 0);
}
