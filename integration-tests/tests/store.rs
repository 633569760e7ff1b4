//! The store's promises: what went in comes out, whoever is killed or runs beside.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Stdio;
use std::time::Duration;
use teu_integration_tests::{Scene, tree};

const BACKENDS: [&str; 2] = ["erofs", "directory"];

/// Files, links, devices, times, owners, attributes and names as odd as they come.
const ODD_TREE: &str = r#"
mkdir tree && cd tree
mkdir -p bin 'with space' deep/er/and/deeper empty sticky
printf '#!/bin/sh\n' > bin/script && chmod 4755 bin/script
head -c 1000000 /dev/urandom > big; head -c 511 /dev/urandom > a511; head -c 512 /dev/urandom > a512; head -c 513 /dev/urandom > a513
: > nothing; truncate -s 5000000 hole; printf x | dd of=hole bs=1 seek=3000000 conv=notrunc status=none
ln big hard; ln big deep/er/hard; ln -s ../../nowhere dangling; ln -s bin/script good
mknod null c 1 3; mknod block b 7 200; mkfifo fifo
chown 1000:1001 nothing; chown 4000000000:4000000001 a511; chmod 1777 sticky
touch -d '1999-12-31 23:59:59.123456789' a512; touch -d '2100-01-01 00:00:00.000000001' a513
touch 'new
line' "$(printf 'bytes\377\376')" "$(head -c 255 /dev/zero | tr '\0' n)"
ln -s "$(head -c 1000 /dev/zero | tr '\0' l)" longlink
setfattr -n user.small -v value big; setfattr -n user.small -v value a512; setfattr -n trusted.mine -v t bin
setfattr -n user.large -v "$(head -c 2000 /dev/zero | tr '\0' v)" a513
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 big
"#;

/// The tree's attributes as text; names are in the order that `find` sorted them in.
const ATTRIBUTES: &str = "find . -print0 | sort -z | xargs -0 getfattr -h -d -m '^(user|trusted|security)' --absolute-names 2>/dev/null | grep -v overlay";

/// Packs `tree` as GNU tar does, with everything.
const PACK: &str =
    "tar -C tree --format=pax --numeric-owner --xattrs --xattrs-include='*' -cf layer.tar .";

#[test]
fn what_gnu_tar_extracts_is_what_the_mount_shows() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("tree through {backend}"));
        scene.shell(ODD_TREE);
        scene.shell(PACK);
        scene.shell("mkdir extracted && tar -C extracted --numeric-owner --xattrs --xattrs-include='*' -xpf layer.tar");
        scene
            .run(
                "teu-store",
                ["--backend", backend, "import", "layer.tar", "odd"],
            )
            .succeeds();
        scene.shell("mkdir view");
        scene
            .run("teu-store", ["--backend", backend, "mount", "odd", "view"])
            .succeeds();
        let ours = tree::describe(&scene.path("view"));
        let attributes = scene.shell(&format!("cd view && {ATTRIBUTES}"));
        scene
            .run("teu-store", ["--backend", backend, "umount", "view"])
            .succeeds();
        assert_eq!(ours, tree::describe(&scene.path("extracted")), "{backend}");
        assert_eq!(
            attributes,
            scene.shell(&format!("cd extracted && {ATTRIBUTES}")),
            "{backend}"
        );
    }
}

#[test]
fn unpack_gives_the_same_tree() {
    let scene = Scene::new("unpack");
    scene.shell(ODD_TREE);
    scene.shell(PACK);
    scene
        .run("teu-store", ["import", "layer.tar", "odd"])
        .succeeds();
    scene
        .run("teu-store", ["unpack", "odd", "bundle"])
        .succeeds();
    assert_eq!(
        tree::describe(&scene.path("bundle/rootfs")),
        tree::describe(&scene.path("tree"))
    );
}

#[test]
fn a_folder_of_a_hundred_thousand_entries() {
    let scene = Scene::new("large folder");
    scene.shell(
        "mkdir -p tree/many && cd tree/many && seq 100000 | sed 's/^/entry-/' | xargs touch",
    );
    scene.shell(PACK);
    scene
        .run("teu-store", ["import", "layer.tar", "many"])
        .succeeds();
    scene.shell("mkdir view");
    scene.run("teu-store", ["mount", "many", "view"]).succeeds();
    let count = scene.shell("ls view/many | wc -l; stat -c %s view/many/entry-77777; ls view/many/entry-100001 2>&1 | grep -c 'No such'");
    scene.run("teu-store", ["umount", "view"]).succeeds();
    assert_eq!(count, "100000\n0\n1");
}

/// Layers of one image hide, replace and extend each other as the image specification says.
#[test]
fn layers_stack() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("stacked layers on {backend}"));
        scene.shell("mkdir -p one/etc one/gone one/opaque one/tmp && echo 1 > one/etc/kept && echo 1 > one/etc/changed && echo 1 > one/gone/file && echo 1 > one/opaque/old && chmod 1777 one/tmp && echo 1 > one/linked");
        // The second layer does not contain /tmp and /etc themselves: they keep the first one's mode.
        scene.shell("mkdir -p two/etc two/opaque two/tmp && echo 2 > two/etc/changed && : > two/.wh.gone && : > two/opaque/.wh..wh..opq && echo 2 > two/opaque/new && echo 2 > two/tmp/file");
        scene.shell("tar -C one -cf one.tar etc gone opaque tmp linked && tar -C two -cf two.tar etc/changed .wh.gone opaque opaque/.wh..wh..opq opaque/new tmp/file");
        scene.shell("umoci init --layout layout && umoci new --image layout:x && umoci raw add-layer --image layout:x one.tar && umoci raw add-layer --image layout:x two.tar");
        scene
            .run(
                "teu-store",
                ["--backend", backend, "import", "layout", "stacked"],
            )
            .succeeds();
        scene.shell("mkdir view");
        scene
            .run(
                "teu-store",
                ["--backend", backend, "mount", "stacked", "view"],
            )
            .succeeds();
        let shown = scene.shell("cd view && find . -mindepth 1 | sort | tr '\\n' ' ' && cat etc/changed etc/kept && stat -c %a tmp");
        scene
            .run("teu-store", ["--backend", backend, "umount", "view"])
            .succeeds();
        assert_eq!(
            shown,
            "./etc ./etc/changed ./etc/kept ./linked ./opaque ./opaque/new ./tmp ./tmp/file 2\n1\n1777",
            "{backend}"
        );
    }
}

#[test]
fn removed_images_leave_nothing() {
    let scene = Scene::new("removed images");
    scene.busybox("one");
    scene.run("teu-store", ["tag", "one", "two"]).succeeds();
    scene.run("teu-store", ["rmi", "one"]).succeeds();
    scene.run("teu-store", ["inspect", "two"]).succeeds();
    scene
        .run("teu-store", ["inspect", "one"])
        .fails(1, &["one"]);
    scene.run("teu-store", ["rmi", "two"]).succeeds();
    scene.run("teu-store", ["gc"]).succeeds();
    let left = scene.shell("cd data/store && find blobs tars index images dirs refs roots tmp -type f 2>/dev/null | head");
    assert_eq!(left, "");
}

#[test]
fn a_killed_import_leaves_old_or_new() {
    let scene = Scene::new("killed import");
    let root = scene.rootfs("rootfs");
    scene.shell(&format!(
        "head -c 20M /dev/urandom > {0}/noise && tar -C {0} -cf image.tar .",
        root.display()
    ));
    for round in 0..20 {
        let mut command = scene.command("teu-store", ["import", "image.tar", "busybox"]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        scene.run("teu-store", ["verify"]).succeeds();
    }
    // A small file that was to replace another is taken a day later: its writer is dead then.
    scene.shell("find data/store/tmp -maxdepth 1 -type f -exec touch -d '2 days ago' {} +");
    scene.run("teu-store", ["gc"]).succeeds();
    assert_eq!(scene.shell("ls data/store/tmp"), "");
    scene
        .run("teu-store", ["import", "image.tar", "busybox"])
        .succeeds();
    scene.run("teu-store", ["verify"]).succeeds();
}

#[test]
fn gc_takes_nothing_from_those_who_run_beside_it() {
    let scene = Scene::new("gc beside imports");
    for number in 0..6 {
        scene.shell(&format!("mkdir t{number} && head -c 2M /dev/urandom > t{number}/own && cp /bin/busybox t{number}/shared && tar -C t{number} -cf {number}.tar ."));
    }
    std::thread::scope(|threads| {
        for number in 0..6 {
            let scene = &scene;
            threads.spawn(move || {
                for _ in 0..5 {
                    let name = format!("image{number}");
                    scene
                        .run("teu-store", ["import", &format!("{number}.tar"), &name])
                        .succeeds();
                    scene.run("teu-store", ["rmi", &name]).succeeds();
                }
                scene
                    .run(
                        "teu-store",
                        [
                            "import",
                            &format!("{number}.tar"),
                            &format!("image{number}"),
                        ],
                    )
                    .succeeds();
            });
        }
        let scene = &scene;
        threads.spawn(move || {
            for _ in 0..30 {
                scene.run("teu-store", ["gc"]).succeeds();
            }
        });
    });
    scene.run("teu-store", ["verify"]).succeeds();
    assert_eq!(
        scene
            .run("teu-store", ["images", "-q"])
            .succeeds()
            .lines()
            .count(),
        6
    );
}
