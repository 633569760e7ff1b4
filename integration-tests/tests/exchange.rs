//! Import and export: peers read what we write, we read what peers write, and
//! hostile files get nowhere.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::stored;
use serde_json::{Value, json};
use teu_integration_tests::Scene;
use teu_integration_tests::command::Outcome;

fn store<const N: usize>(scene: &Scene, args: [&str; N]) -> Outcome {
    scene.run("teu-store", args)
}

fn export(scene: &Scene, format: &str, to: &str) {
    store(
        scene,
        ["export", "-q", "--format", format, "-o", to, "busybox"],
    )
    .succeeds();
}

/// podman with everything of its own in the scene.
fn podman(scene: &Scene, args: &str) -> String {
    let all = "--root podman/root --runroot podman/run --tmpdir podman/tmp --storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime runc";
    scene.shell(&format!("podman {all} {args}"))
}

#[test]
fn peers_read_what_we_export() {
    let scene = Scene::new("export for peers");
    scene.busybox("busybox");
    export(&scene, "oci-dir", "layout");
    export(&scene, "oci-archive", "oci.tar");
    export(&scene, "docker-archive", "docker.tar");
    let id = stored(&scene, "docker.io/library/busybox:latest")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    // To other names, so that no peer's digest check is left out.
    scene.shell("skopeo copy -q oci:layout:latest oci:copy:1 && skopeo copy -q oci-archive:oci.tar:latest oci:copy:2");
    scene.shell(
        "skopeo copy -q docker-archive:docker.tar:docker.io/library/busybox:latest oci:copy:3",
    );
    for tag in ["1", "2", "3"] {
        assert_eq!(
            scene.shell(&format!(
                "skopeo inspect --raw oci:copy:{tag} | jq -r .config.digest"
            )),
            id
        );
    }
    scene.shell("umoci unpack --image layout:latest bundle && cmp busybox-rootfs/bin/busybox bundle/rootfs/bin/busybox");
    for archive in ["docker.tar", "oci.tar"] {
        podman(&scene, &format!("load -q -i {archive}"));
        assert_eq!(podman(&scene, "images -q --no-trunc"), id);
        let run = format!(
            "run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --cgroup-parent {} busybox echo works",
            scene.cgroup()
        );
        assert_eq!(podman(&scene, &run), "works");
        podman(&scene, "rmi -f -a");
    }
    // What podman's own monitor leaves is not ours.
    scene.shell(&format!("for group in /sys/fs/cgroup/*{0}/conmon /sys/fs/cgroup/*{0}; do rmdir $group 2>/dev/null || true; done", scene.cgroup()));
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let scene = Scene::new("export twice");
    scene.busybox("busybox");
    for format in ["oci-archive", "docker-archive"] {
        export(&scene, format, "one.tar");
        scene.shell(&format!(
            "{} --root {} export -q --format {format} busybox > two.tar && cmp one.tar two.tar",
            teu_integration_tests::binary("teu-store").display(),
            scene.store().display()
        ));
    }
    store(
        &scene,
        ["export", "--format", "oci-dir", "-o", "one.tar", "busybox"],
    )
    .fails(1, &["one.tar"]);
    store(&scene, ["export", "-o", "x.tar", "nosuch"]).fails(1, &["no such image \"nosuch\""]);
    assert!(!scene.path("x.tar").exists());
}

#[test]
fn we_read_what_peers_write() {
    let scene = Scene::new("import from peers");
    scene.busybox("busybox");
    let id = stored(&scene, "docker.io/library/busybox:latest")["id"].clone();
    export(&scene, "oci-dir", "layout");
    scene.shell(
        "skopeo copy -q oci:layout:latest oci-archive:skopeo-oci.tar:localhost/a:1\n\
         skopeo copy -q oci:layout:latest docker-archive:skopeo-docker.tar:localhost/b:1\n\
         skopeo copy -q --dest-compress-format zstd --dest-compress oci:layout:latest oci:skopeo-dir:tag\n\
         skopeo copy -q oci:layout:latest oci:umoci:latest && umoci tag --image umoci:latest second\n\
         gzip -k skopeo-docker.tar && zstd -q skopeo-oci.tar",
    );
    podman(&scene, "load -q -i skopeo-docker.tar");
    podman(&scene, "save -q -o podman-docker.tar localhost/b:1");
    podman(
        &scene,
        "save -q --format oci-archive -o podman-oci.tar localhost/b:1",
    );
    for (file, name) in [
        ("skopeo-oci.tar", None),
        ("skopeo-docker.tar", None),
        ("skopeo-docker.tar.gz", None),
        ("skopeo-oci.tar.zst", None),
        ("podman-docker.tar", None),
        ("podman-oci.tar", None),
        ("skopeo-dir", Some("localhost/c:1")),
    ] {
        std::fs::remove_dir_all(scene.store()).unwrap();
        let line = match name {
            Some(name) => store(&scene, ["import", "-q", file, name]).succeeds(),
            None => store(&scene, ["import", "-q", file]).succeeds(),
        };
        let (name, _) = line.split_once('@').unwrap();
        assert_eq!(stored(&scene, name)["id"], id, "{file}");
    }
    // From standard input, where nothing can be read twice.
    for file in [
        "skopeo-docker.tar",
        "skopeo-docker.tar.gz",
        "skopeo-oci.tar",
    ] {
        std::fs::remove_dir_all(scene.store()).unwrap();
        let bytes = std::fs::read(scene.path(file)).unwrap();
        scene
            .run_with_input("teu-store", ["import", "-q", "-", "localhost/d"], &bytes)
            .succeeds();
        assert_eq!(stored(&scene, "localhost/d:latest")["id"], id, "{file}");
    }
    store(&scene, ["import", "umoci"]).fails(1, &["umoci", "give a name"]);
    store(&scene, ["import", "umoci", "x"]).fails(1, &["2 images"]);
}

#[test]
fn several_images_travel_in_one_archive() {
    let scene = Scene::new("several images");
    scene.busybox("busybox");
    scene.shell("mkdir r && echo hi > r/file && tar -C r -cf r.tar .");
    store(
        &scene,
        ["import", "-q", "r.tar", "localhost:5000/team/other:v2"],
    )
    .succeeds();
    for format in ["oci-archive", "docker-archive"] {
        store(
            &scene,
            [
                "export",
                "-q",
                "--format",
                format,
                "-o",
                "all.tar",
                "busybox",
                "localhost:5000/team/other:v2",
            ],
        )
        .succeeds();
        let before = store(&scene, ["images", "-q"]).succeeds();
        std::fs::remove_dir_all(scene.store()).unwrap();
        let names = store(&scene, ["import", "-q", "all.tar"]).succeeds();
        let names: Vec<&str> = names
            .lines()
            .map(|line| line.split('@').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "docker.io/library/busybox:latest",
                "localhost:5000/team/other:v2"
            ]
        );
        assert_eq!(store(&scene, ["images", "-q"]).succeeds(), before);
    }
}

#[test]
fn a_root_filesystem_becomes_an_image_that_says_how_it_runs() {
    let scene = Scene::new("import a root filesystem");
    scene.rootfs("root");
    scene.shell("tar -C root -cf root.tar . && gzip -k root.tar && zstd -q root.tar");
    let changes = [
        "-c",
        "CMD [\"sh\", \"-c\", \"id\"]",
        "-c",
        "ENTRYPOINT /bin/env",
        "-c",
        "ENV A=b",
        "-c",
        "WORKDIR /tmp",
        "-c",
        "USER app",
        "-c",
        "EXPOSE 80",
        "-c",
        "LABEL x=y",
        "-c",
        "VOLUME /data",
        "-c",
        "STOPSIGNAL SIGQUIT",
    ];
    let mut ids = Vec::new();
    for file in ["root.tar", "root.tar.gz", "root.tar.zst"] {
        let args = [&["import", "-q", file, "made:1"], &changes[..]].concat();
        ids.push(scene.run("teu-store", args).succeeds());
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    store(
        &scene,
        ["export", "-q", "--format", "oci-dir", "-o", "out", "made:1"],
    )
    .succeeds();
    let config: Value =
        serde_json::from_str(&scene.shell("skopeo inspect --config oci:out:1")).unwrap();
    assert_eq!(config["config"]["Cmd"], json!(["sh", "-c", "id"]));
    assert_eq!(
        config["config"]["Entrypoint"],
        json!(["/bin/sh", "-c", "/bin/env"])
    );
    assert_eq!(config["config"]["WorkingDir"], "/tmp");
    assert_eq!(config["config"]["User"], "app");
    assert_eq!(config["config"]["Labels"]["x"], "y");
    assert!(config["config"]["ExposedPorts"]["80/tcp"].is_object());
    store(&scene, ["import", "root.tar"]).fails(1, &["root.tar", "no name"]);
    store(&scene, ["import", "root", "x"]).fails(1, &["no OCI layout"]);
    store(&scene, ["import", "nosuch.tar", "x"]).fails(1, &["nosuch.tar", "No such file"]);
    scene.write(
        "noise",
        "this is no tar at all, but long enough to look at ".repeat(50),
    );
    store(&scene, ["import", "noise", "x"]).fails(1, &["noise", "tar"]);
    scene.shell("xz -k root.tar");
    store(&scene, ["import", "root.tar.xz", "x"]).fails(1, &["xz", "unpack it first"]);
    scene.shell("head -c 300000 root.tar > short.tar");
    store(&scene, ["import", "short.tar", "x"]).fails(1, &["short.tar"]);
}

/// Imports a layout that `damage` (a shell script in the layout's folder) has changed.
fn import_damaged(scene: &Scene, damage: &str) -> Outcome {
    scene.shell(&format!(
        "rm -rf bad && cp -a layout bad && cd bad && {damage}"
    ));
    std::fs::remove_dir_all(scene.store()).unwrap();
    let outcome = store(scene, ["import", "bad", "bad:1"]);
    let images = store(scene, ["images", "-q"]).succeeds();
    assert_eq!(images, "", "{damage}: {outcome}");
    outcome
}

// security.md, S13 to S15, S19 and S26.
#[test]
fn hostile_layouts_get_nowhere() {
    let scene = Scene::new("hostile layouts");
    scene.busybox("busybox");
    export(&scene, "oci-dir", "layout");
    scene.write("secret", "{}");
    let layer = "blobs/sha256/$(jq -r .layers[0].digest blobs/sha256/$(jq -r .manifests[0].digest index.json | cut -d: -f2) | cut -d: -f2)";
    for (damage, message) in [
        ("ln -sf ../secret index.json", "index.json"),
        ("rm index.json && mkfifo index.json", "index.json"),
        ("rm index.json && ln -s /dev/zero index.json", "index.json"),
        ("mv blobs real && ln -s real blobs", "symbolic link"),
        (
            "echo '{\"imageLayoutVersion\":\"2.0.0\"}' > oci-layout",
            "version \"2.0.0\"",
        ),
        (
            "jq '.manifests[0].digest=\"sha256:../../../secret\"' index.json > x && mv x index.json",
            "is not a digest",
        ),
        (
            "jq '.manifests[0].size=-1' index.json > x && mv x index.json",
            "index.json",
        ),
        (
            "jq '.manifests[0].size+=7' index.json > x && mv x index.json",
            "corrupt",
        ),
        (
            "head -c 5000000 /dev/zero | tr '\\0' ' ' >> index.json",
            "more than",
        ),
        ("echo '{' > index.json", "index.json"),
        (
            &format!("rm {layer} && ln -s /etc/shadow {layer}"),
            "symbolic link",
        ),
        (
            &format!("printf X | dd of={layer} bs=1 seek=100 conv=notrunc status=none"),
            "corrupt",
        ),
        (&format!("truncate -s 5000 {layer}"), "corrupt"),
        (&format!("printf X >> {layer}"), "corrupt"),
        (&format!("rm {layer}"), "No such file"),
    ] {
        import_damaged(&scene, damage).fails(1, &["import bad", message]);
    }
}

// security.md, S13.
#[test]
fn an_index_without_end_is_refused() {
    let scene = Scene::new("nested index");
    scene.shell(
        "mkdir -p deep/blobs/sha256 && echo '{\"imageLayoutVersion\":\"1.0.0\"}' > deep/oci-layout",
    );
    let kind = "application/vnd.oci.image.index.v1+json";
    let mut document = json!({"schemaVersion": 2, "mediaType": kind, "manifests": []}).to_string();
    for _ in 0..1000 {
        scene.write("document", &document);
        let digest = scene.shell("hash=$(sha256sum < document | cut -d ' ' -f 1); mv document deep/blobs/sha256/$hash; echo $hash");
        let entry = json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": document.len()});
        document = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).to_string();
    }
    scene.write("deep/index.json", &document);
    store(&scene, ["import", "deep", "x"]).fails(1, &["nested deeper than 8"]);
}

#[test]
fn hostile_docker_archives_get_nowhere() {
    let scene = Scene::new("hostile docker archives");
    scene.busybox("busybox");
    export(&scene, "docker-archive", "good.tar");
    scene.shell("mkdir parts && tar -C parts -xf good.tar");
    let layer = "$(jq -r .[0].Layers[0] manifest.json)";
    for (damage, message) in [
        (
            format!("rm {layer} && ln -s /etc/shadow {layer}"),
            "no member",
        ),
        (
            format!("rm {layer} && ln -s ../../../etc/shadow {layer}"),
            "no member",
        ),
        (
            format!("printf X | dd of={layer} bs=1 seek=100000 conv=notrunc status=none"),
            "corrupt",
        ),
        (
            "jq -c '.[0].Config=\"../../etc/passwd\"' manifest.json > x && mv x manifest.json"
                .to_owned(),
            "no member",
        ),
        (
            "jq -c '.[0].Layers+=[\"x\"]' manifest.json > x && mv x manifest.json".to_owned(),
            "2 layers",
        ),
        ("echo '[]' > manifest.json".to_owned(), "no image"),
        ("echo '{}' > manifest.json".to_owned(), "manifest.json"),
    ] {
        scene.shell(&format!(
            "rm -rf bad && cp -a parts bad && cd bad && {damage} && tar -cf ../bad.tar *"
        ));
        std::fs::remove_dir_all(scene.store()).unwrap();
        store(&scene, ["import", "bad.tar"]).fails(1, &["import bad.tar", message]);
        assert_eq!(store(&scene, ["images", "-q"]).succeeds(), "");
    }
}
