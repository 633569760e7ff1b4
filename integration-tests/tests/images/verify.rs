//! `verify`: every kind of damage is found, and `--repair` puts it right.

use teu_integration_tests::Scene;

use crate::peers::Registry;
use crate::{BACKENDS, lines, store};

/// An image of two layers that needs corrections, pulled from a registry, in a store with nothing but gzip blobs.
fn pulled(scene: &Scene, registry: &Registry, backend: &str) -> String {
    scene.shell(
        "mkdir -p one/tmp two/tmp && chmod 1777 one/tmp && head -c 200K /dev/urandom > one/noise && echo 2 > two/tmp/file
        tar -C one -cf one.tar . && tar -C two -cf two.tar tmp/file
        umoci init --layout oci && umoci new --image oci:x && umoci raw add-layer --image oci:x one.tar && umoci raw add-layer --image oci:x two.tar",
    );
    let name = registry.name("team/image:1");
    scene.shell(&format!(
        "skopeo copy -q --dest-tls-verify=false oci:oci:x docker://{name}"
    ));
    store(scene, ["--backend", backend, "pull", "-q", &name]);
    name
}

/// Overwrites a byte of the first file that `find` names; false where there is none.
fn damage(scene: &Scene, what: &str) -> bool {
    let found = scene.shell(&format!(
        "cd data/store && find {what} -type f -size +0 | sort | head -n 1"
    ));
    if found.is_empty() {
        return false;
    }
    scene.shell(&format!(
        "cd data/store && chmod u+w {found} && byte=$(od -An -tu1 -j100 -N1 {found} | tr -d ' ') && printf \"\\\\$(printf %o $(((byte + 1) % 256)))\" | dd of={found} bs=1 seek=100 conv=notrunc status=none"
    ));
    true
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("verify on {backend}"));
        let registry = Registry::http(&scene);
        let name = pulled(&scene, &registry, backend);
        let command = |arguments: &[&str]| {
            scene.run("teu-store", [&["--backend", backend], arguments].concat())
        };
        command(&["verify", "-q"]).succeeds();
        let digest = store(
            &scene,
            ["inspect", "--format", "{descriptor.digest}", &name],
        );
        let mut tried = 0;
        for what in [
            "blobs -size +100k",
            "blobs -size -2k",
            "tars -size +100k",
            "index",
            "dirs/*/*/noise",
            "images",
        ] {
            if !damage(&scene, what) {
                continue;
            }
            tried += 1;
            let found = command(&["verify", "--format", "{kind} {name}"]);
            assert_eq!(found.code(), 1, "{backend} {what}: {found}");
            let repaired = command(&["verify", "--repair", "-q"]);
            assert_eq!(repaired.code(), 0, "{backend} {what}: {repaired}");
            assert_eq!(
                store(
                    &scene,
                    ["inspect", "--format", "{descriptor.digest}", &name]
                ),
                digest
            );
        }
        assert!(tried >= 4, "{backend}: {tried}");
        // What is gone altogether comes back, too, and the name alone is left.
        scene.shell("cd data/store && rm -r blobs/sha256/* tars/sha256/*");
        assert_eq!(
            command(&["verify", "--repair", "-q"]).code(),
            0,
            "{backend}"
        );
        assert_eq!(lines(&scene, ["images", "--format", "json"]).len(), 1);
    }
}

#[test]
fn what_cannot_be_repaired_is_said() {
    let scene = Scene::new("beyond repair");
    scene.busybox("127.0.0.1:1/own");
    assert!(damage(&scene, "tars -size +100k"));
    let outcome = scene.run("teu-store", ["verify", "--repair"]);
    assert!(
        outcome.stderr.contains("127.0.0.1:1/own")
            && outcome.stderr.contains("could not be fetched again"),
        "{outcome}"
    );
    let outcome = outcome.fails(1, &["pull, import or build the image again"]);
    assert!(outcome.stdout.contains("image"), "{outcome}");
    // Import heals it.
    scene.busybox("127.0.0.1:1/own");
    store(&scene, ["verify"]);
}
