//! `history`, `diff`, `layers`: images beside each other.

use serde_json::Value;
use teu_integration_tests::Scene;

use crate::{lines, store};

/// Two images on one base: `one` and `two` have a layer each on `base`.
fn family(scene: &Scene) {
    scene.shell(
        "mkdir -p base/etc base/gone base/bin one/etc two/etc
        echo base > base/etc/kept; echo base > base/etc/changed; echo x > base/gone/file; echo 'same size' > base/bin/tool
        echo 1 > one/etc/new; echo one! > one/etc/changed
        echo 1 > two/etc/other; mkdir two/bin; echo 'SAME SIZE' > two/bin/tool; chmod 755 two/bin/tool
        : > two/.wh.gone; ln -s kept two/etc/link; ln base/etc/kept base/etc/hard
        for name in base one two; do tar -C $name --mtime=@1000000000 -cf $name.tar $(ls -A $name); done
        for name in one two; do
            umoci init --layout $name.oci >/dev/null; umoci new --image $name.oci:x
            umoci raw add-layer --history.created_by 'the base' --image $name.oci:x base.tar
            umoci raw add-layer --history.created_by \"layer of $name\" --image $name.oci:x $name.tar
        done",
    );
    for name in ["one", "two"] {
        store(scene, ["import", &format!("{name}.oci"), name]);
    }
}

#[test]
fn differences_of_two_images() {
    let scene = Scene::new("diff");
    family(&scene);
    let rows = lines(&scene, ["diff", "--format", "json", "one", "two"]);
    let found: Vec<(&str, &str, String)> = rows
        .iter()
        .map(|row| {
            (
                row["path"].as_str().unwrap(),
                row["change"].as_str().unwrap(),
                row["differs"].to_string(),
            )
        })
        .collect();
    let none = "[]".to_owned();
    assert_eq!(
        found,
        [
            ("/bin/tool", "changed", r#"["content","mode"]"#.to_owned()),
            ("/etc/changed", "changed", r#"["content"]"#.to_owned()),
            ("/etc/link", "added", none.clone()),
            ("/etc/new", "removed", none.clone()),
            ("/etc/other", "added", none.clone()),
            ("/gone", "removed", none.clone()),
            ("/gone/file", "removed", none),
        ]
    );
    assert_eq!(
        (&rows[1]["before"], &rows[1]["after"]),
        (&5.into(), &5.into())
    );
    assert_eq!(
        store(&scene, ["diff", "--format", "json", "one", "one"]),
        ""
    );
    for (after, code) in [("two", 1), ("one", 0)] {
        let compared = scene.run("teu-store", ["diff", "--exit-code", "one", after]);
        assert_eq!(compared.code(), code, "{after}");
    }
}

#[test]
fn layers_that_are_shared_stand_once() {
    let scene = Scene::new("layers");
    family(&scene);
    let rows = lines(&scene, ["layers", "--format", "json"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["used_by"], &rows[0]["depth"]),
        (&2.into(), &0.into())
    );
    let tops: Vec<&Value> = rows[1..].iter().map(|row| &row["top_of"][0]).collect();
    assert!(tops.contains(&&"docker.io/library/one:latest".into()));
    assert!(tops.contains(&&"docker.io/library/two:latest".into()));
    let table = store(&scene, ["layers"]);
    assert!(table.contains("├─") && table.contains("└─"), "{table}");
}

#[test]
fn history_names_each_layer() {
    let scene = Scene::new("history");
    family(&scene);
    let steps = store(
        &scene,
        ["history", "--format", "{created_by} {layer}", "two"],
    );
    let steps: Vec<&str> = steps.lines().collect();
    let diff_ids = store(
        &scene,
        [
            "inspect",
            "--format",
            "{config.rootfs.diff_ids.0} {config.rootfs.diff_ids.1}",
            "two",
        ],
    );
    let (bottom, top) = diff_ids.split_once(' ').unwrap();
    assert!(
        steps[0] == format!("layer of two {top}")
            && steps.contains(&&*format!("the base {bottom}")),
        "{steps:?}"
    );
}
