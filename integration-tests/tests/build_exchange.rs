//! Steps' results between machines, which here are stores that forget everything.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::Registry;
use teu_integration_tests::Scene;

/// Two stages; what they write is never the same twice.
const DOCKERFILE: &str = "FROM busybox AS first\nRUN cat /proc/sys/kernel/random/uuid > /f\nFROM busybox\nCOPY --from=first /f /\nCOPY a.txt /\nRUN cat /proc/sys/kernel/random/uuid > /u\n";

fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    let export = [
        "export",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        "base.tar",
        "busybox",
    ];
    scene.run("teu-store", export).succeeds();
    scene.write("context/a.txt", "a\n");
    scene.write("context/Dockerfile", DOCKERFILE);
    scene
}

/// Another machine with the same base image and context.
fn forget(scene: &Scene) {
    std::fs::remove_dir_all(scene.store()).unwrap();
    scene
        .run("teu-store", ["import", "-q", "base.tar", "busybox"])
        .succeeds();
}

/// Builds; the image's id, the steps that ran, and what was said.
fn build(scene: &Scene, arguments: &[&str]) -> (String, Vec<usize>, String) {
    let all = [&["build", "--progress", "plain"], arguments, &["context"]].concat();
    let outcome = scene.run("teu-build", all).exits(0);
    let output = outcome.stderr.clone();
    let ran = (1..=4).filter(|step| output.contains(&format!("\n#{step} DONE")));
    (outcome.stdout.trim().to_owned(), ran.collect(), output)
}

#[test]
fn a_registry_has_what_another_machine_made() {
    let scene = scene("registry cache");
    let registry = Registry::http(&scene);
    let name = registry.name("cache/app:main");
    for (mode, ran) in [("max", vec![]), ("min", vec![1])] {
        forget(&scene);
        let to = format!("type=registry,ref={name},mode={mode},compression=zstd");
        let (id, first, _) = build(&scene, &["--cache-to", &to]);
        assert_eq!(first, [1, 2, 3, 4]);
        forget(&scene);
        let (again, steps, output) = build(&scene, &["--cache-from", &name]);
        // Of a stage that was not sent, what it gives is still known by its content only if it gives the same.
        if mode == "max" {
            assert_eq!((again, &steps), (id, &ran), "{mode}: {output}");
        } else {
            assert!(
                steps.contains(&1) && !steps.contains(&3),
                "{mode}: {output}"
            );
        }
    }
    // Steps that were reused are sent again: the cache is whole.
    forget(&scene);
    let other = registry.name("cache/other:1");
    let first = format!("type=registry,ref={name}");
    let second = format!("type=registry,ref={other},mode=max");
    let (id, ..) = build(&scene, &["--cache-from", &first, "--cache-to", &second]);
    forget(&scene);
    assert_eq!(
        build(
            &scene,
            &["--cache-from", &second[..second.find(",mode").unwrap()]]
        )
        .0,
        id
    );
}

#[test]
fn a_directory_and_an_image_have_it_too() {
    let scene = scene("local and inline cache");
    let registry = Registry::http(&scene);
    let (id, ..) = build(&scene, &["--cache-to", "type=local,dest=saved,mode=max"]);
    scene.shell("skopeo inspect --raw oci:saved:latest >/dev/null");
    forget(&scene);
    let (again, ran, output) = build(&scene, &["--cache-from", "type=local,src=saved"]);
    assert_eq!((again, ran), (id, vec![]), "{output}");
    let name = registry.name("app:1");
    forget(&scene);
    let (id, ..) = build(
        &scene,
        &["-t", &name, "--push", "--cache-to", "type=inline"],
    );
    forget(&scene);
    let arguments = ["--cache-from", &name, "--cache-to", "type=inline"];
    let (_, ran, output) = build(&scene, &arguments);
    assert!(!ran.contains(&3), "{output}");
    assert!(!id.is_empty());
}

#[test]
fn a_cache_never_fails_a_build() {
    let scene = scene("broken caches");
    scene.write("no-cache/index.json", "{");
    scene.write("file", "");
    let nobody = "type=registry,ref=127.0.0.1:9/cache:1";
    let (_, ran, output) = build(
        &scene,
        &[
            "--cache-from",
            nobody,
            "--cache-to",
            nobody,
            "--cache-from",
            "type=local,src=no-cache",
            "--cache-from",
            "type=local,src=nothing",
            "--cache-to",
            "type=local,dest=file",
        ],
    );
    assert_eq!(ran, [1, 2, 3, 4]);
    assert_eq!(
        output
            .matches("warning: the cache 127.0.0.1:9/cache:1: ")
            .count(),
        2,
        "{output}"
    );
    assert_eq!(output.matches("warning: the cache ").count(), 4, "{output}");
    // What a cache gives is checked.
    build(
        &scene,
        &["--no-cache", "--cache-to", "type=local,dest=saved,mode=max"],
    );
    scene.shell("for blob in $(jq -r '.manifests[0].digest' saved/index.json | sed 's/.*://'); do for layer in $(jq -r '.layers[].digest' saved/blobs/sha256/$blob | sed 's/.*://'); do printf x > saved/blobs/sha256/$layer; done; done");
    forget(&scene);
    let (_, ran, output) = build(&scene, &["--cache-from", "type=local,src=saved"]);
    assert_eq!(ran, [1, 2, 3, 4], "{output}");
    assert!(
        output.contains("warning: the cache saved:latest: "),
        "{output}"
    );
}
