//! `images`, `inspect` and their formats.

use serde_json::Value;
use teu_integration_tests::Scene;

use crate::{json, store};

#[test]
fn formats_are_the_same_everywhere() {
    let scene = Scene::new("formats");
    scene.busybox("one");
    let id = json(&scene, ["inspect", "one"])[0]["id"].clone();
    let row: Value = json(&scene, ["images", "--format", "json"]);
    assert_eq!(row["id"], id);
    assert_eq!(
        store(&scene, ["images", "--format", r"{name}\t{layers}"]),
        "docker.io/library/one:latest\t1"
    );
    assert!(store(&scene, ["images"]).starts_with("NAME"));
    assert_eq!(
        store(&scene, ["inspect", "--format", "{id} {config.os}", "one"]),
        format!("{} linux", id.as_str().unwrap())
    );
    scene
        .run("teu-store", ["images", "--format", "{nmae}"])
        .fails(1, &["no field \"nmae\"", "name", "size"]);
    scene
        .run("teu-store", ["images", "--format", "yaml"])
        .fails(2, &["yaml", "table"]);
}

#[test]
fn documents_are_shown_byte_by_byte() {
    let scene = Scene::new("raw documents");
    scene.busybox("one");
    let image = &json(&scene, ["inspect", "one"])[0];
    for (flags, digest) in [
        (vec!["--raw"], &image["descriptor"]["digest"]),
        (vec!["--manifest", "--raw"], &image["descriptor"]["digest"]),
        (
            vec!["--config", "--raw"],
            &image["manifest"]["config"]["digest"],
        ),
    ] {
        let flags = flags.join(" ");
        let sum = scene.shell(&format!(
            "{} --root {} inspect {flags} one | sha256sum",
            teu_integration_tests::binary("teu-store").display(),
            scene.store().display()
        ));
        let hex = sum.split(' ').next().unwrap();
        assert_eq!(digest.as_str().unwrap(), format!("sha256:{hex}"), "{flags}");
    }
    assert_eq!(
        json(&scene, ["inspect", "--config", "one"]),
        image["config"]
    );
}

#[test]
fn names_come_and_go() {
    let scene = Scene::new("names");
    scene.busybox("one");
    store(&scene, ["tag", "one", "two"]);
    assert_eq!(store(&scene, ["untag", "two"]), "untagged two:latest");
    scene.run("teu-store", ["untag", "two"]).fails(1, &["two"]);
    let id = store(&scene, ["images", "-q"]);
    store(&scene, ["untag", &id]);
    assert_eq!(store(&scene, ["images", "-q"]), "");
}
