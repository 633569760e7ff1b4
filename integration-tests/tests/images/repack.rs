//! `unpack`, changes by hand, `repack`: the new layer is exactly what changed, here and by umoci's eyes.

use teu_integration_tests::{Scene, needs_root, tree};

use crate::{json, store};

/// A base of all kinds of files.
const BASE: &str = "mkdir -p base/etc base/gone/deep base/bin base/swap/a base/swap/b base/quiet
    echo 1 > base/etc/kept; echo 1 > base/etc/changed; echo 1 > base/etc/mode; echo 1 > base/gone/deep/file
    echo same > base/etc/touched; echo 12345 > base/etc/sly; echo a > base/swap/a/f; echo b > base/swap/b/f
    ln -s kept base/etc/link; ln base/etc/kept base/etc/hard; echo x > base/turn; mkdir base/folder; echo x > base/folder/x
    echo 1 > base/quiet/file; setfattr -n user.k -v v base/etc/kept
    tar -C base --xattrs --format=pax -cf base.tar .";

/// Changes of all kinds; the sly one keeps size and time.
const CHANGES: &str = "cd bundle/rootfs
    echo 2 > etc/changed; chmod 600 etc/mode; rm -r gone/deep; echo new > etc/new; mkdir -p fresh/er; echo f > fresh/er/file; ln fresh/er/file fresh/hard
    time=$(stat -c %Y etc/sly); printf '54321\\n' > etc/sly; touch -d @$time etc/sly
    mv swap/a swap/c; mv swap/b swap/a; mv swap/c swap/b
    rm etc/link; ln -s other etc/link; rm turn; mkdir turn; echo y > turn/y; rm -r folder; echo z > folder
    setfattr -n user.k -v w etc/kept; mkfifo pipe; chmod 700 .";

fn members(scene: &Scene, name: &str) -> Vec<String> {
    let layers = json(scene, ["inspect", "--config", name])["rootfs"]["diff_ids"].clone();
    let top = layers
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap()
        .replace(':', "/");
    let tar = scene.store().join("tars").join(top);
    let listed = scene.shell(&format!("tar -tf {} | sort", tar.display()));
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn what_changed_is_the_layer() {
    let scene = Scene::new("repack");
    needs_root!(scene, "owners are kept");
    scene.shell(BASE);
    store(&scene, ["import", "base.tar", "base"]);
    store(&scene, ["unpack", "base", "bundle"]);
    scene.shell(CHANGES);
    store(&scene, ["repack", "bundle", "new"]);
    assert_eq!(
        members(&scene, "new"),
        [
            "./",
            "etc/",
            "etc/changed",
            "etc/hard",
            "etc/kept",
            "etc/link",
            "etc/mode",
            "etc/new",
            "etc/sly",
            "folder",
            "fresh/",
            "fresh/er/",
            "fresh/er/file",
            "fresh/hard",
            "gone/",
            "gone/.wh.deep",
            "pipe",
            "swap/",
            "swap/a/f",
            "swap/b/f",
            "turn/",
            "turn/y"
        ]
    );
    store(&scene, ["unpack", "new", "again"]);
    assert_eq!(
        tree::describe(&scene.path("again/rootfs")),
        tree::describe(&scene.path("bundle/rootfs"))
    );
    // Umoci reads the same from it.
    store(
        &scene,
        ["export", "--format", "oci-dir", "-o", "out", "new"],
    );
    scene.shell("umoci unpack --image out by-umoci >/dev/null");
    assert_eq!(
        tree::describe(&scene.path("by-umoci/rootfs")),
        tree::describe(&scene.path("bundle/rootfs"))
    );
}

#[test]
fn nothing_changed_is_no_layer() {
    let scene = Scene::new("repack nothing");
    needs_root!(scene, "owners are kept");
    scene.shell(BASE);
    store(&scene, ["import", "base.tar", "base"]);
    store(&scene, ["unpack", "base", "bundle"]);
    store(&scene, ["repack", "bundle", "same"]);
    let manifest = |name| store(&scene, ["inspect", "--format", "{descriptor.digest}", name]);
    assert_eq!(manifest("same"), manifest("base"));
    // Copied elsewhere, no stamp vouches for anything, and still nothing changed.
    scene.shell("cp -a bundle copy");
    store(&scene, ["repack", "copy", "copied"]);
    assert_eq!(manifest("copied"), manifest("base"));
    // Damaged stamps neither.
    scene.shell("truncate -s 200 bundle/unpacked");
    store(&scene, ["repack", "bundle", "damaged"]);
    assert_eq!(manifest("damaged"), manifest("base"));
    scene.shell("rm bundle/unpacked");
    scene
        .run("teu-store", ["repack", "bundle", "x"])
        .fails(1, &["not a bundle"]);
}

#[test]
fn layers_follow_on_each_other() {
    let scene = Scene::new("repack refresh");
    needs_root!(scene, "owners are kept");
    scene.shell(BASE);
    store(&scene, ["import", "base.tar", "base"]);
    store(&scene, ["unpack", "base", "bundle"]);
    scene.shell(
        "echo 1 > bundle/rootfs/quiet/one; mkdir bundle/rootfs/run; echo x > bundle/rootfs/run/pid",
    );
    store(
        &scene,
        ["repack", "--refresh", "--mask", "/run", "bundle", "one"],
    );
    assert_eq!(members(&scene, "one"), ["quiet/", "quiet/one"]);
    scene.shell("echo 2 > bundle/rootfs/quiet/two");
    store(
        &scene,
        [
            "repack",
            "--mask",
            "/run",
            "--created-by",
            "by hand",
            "--comment",
            "second",
            "bundle",
            "two",
        ],
    );
    assert_eq!(members(&scene, "two"), ["quiet/", "quiet/two"]);
    assert_eq!(
        store(
            &scene,
            ["history", "--format", "{created_by} {comment}", "two"]
        ),
        "by hand second\nteu-store repack \nteu-store import "
    );
}

/// A change within the same tick of the file system's clock as the unpacking is seen, every time.
#[test]
fn a_change_at_once_is_seen() {
    let scene = Scene::new("repack at once");
    needs_root!(scene, "owners are kept");
    scene
        .shell("mkdir base; echo 1 > base/file; tar -C base --mtime=@1000000000 -cf base.tar file");
    store(&scene, ["import", "base.tar", "base"]);
    let own = teu_integration_tests::binary("teu-store");
    for round in 0..20 {
        let bundle = format!("bundle{round}");
        scene.shell(&format!(
            "{} --root {} unpack base {bundle}; echo 2 >{bundle}/rootfs/file; touch -d @1000000000 {bundle}/rootfs/file",
            own.display(),
            scene.store().display()
        ));
        store(&scene, ["repack", &bundle, "new"]);
        assert_eq!(members(&scene, "new"), ["file"], "round {round}");
    }
}
