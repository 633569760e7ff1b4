//! A disk that is really full, to the last block: what nobody needs can still be removed.

use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// A small disk of its own, in a mount namespace of its own. A killed import has left something, an image is named no
/// more, and then somebody takes the rest of the disk: `gc` makes room, and what was named is whole.
const SCRIPT: &str = r#"
    mkdir -p data r/d; head -c 1M /dev/urandom > r/f; echo x > r/d/x; tar -C r -cf x.tar .
    truncate -s 16M disk; mkfs.ext4 -q -m 0 -b 4096 -N 400 disk; mount -o loop disk data
    s() { "$STORE" --root data/store --backend "$BACKEND" "$@"; }
    s import -q x.tar kept >/dev/null
    echo 2 >> r/f; tar -C r -cf y.tar .; s import -q y.tar gone >/dev/null; s untag gone >/dev/null
    mkdir data/store/tmp/work-1-dead; touch data/store/tmp/work-1-dead/lock data/store/tmp/work-1-dead/wants
    eval "$LEFT"
    for size in 64k 4k; do dd if=/dev/zero of=data/fill-$size bs=$size 2>/dev/null || true; done
    sync data/fill-4k || true
    ! mkdir data/more 2>/dev/null
    free() { stat -f -c %f data; }
    before=$(free)
    ! s import -q y.tar gone >/dev/null 2>&1
    s gc
    test $(($(free) - before)) -ge 256
    s verify -q
    rm data/fill-64k; s import -q y.tar gone >/dev/null
    test -z "$(find data/store/tmp -mindepth 1)"
    umount data
"#;

#[test]
fn a_full_disk_can_be_emptied() {
    for backend in ["erofs", "directory"] {
        for left in ["", "cp x.tar data/store/tmp/work-1-dead/tar"] {
            let scene = Scene::new(&format!("full disk on {backend}"));
            needs_root!(scene, "a disk of its own needs root");
            skip_unless!(
                scene,
                !missing_command("mkfs.ext4") && std::path::Path::new("/dev/loop-control").exists(),
                "no mkfs.ext4, or no loop devices"
            );
            let mut command = scene.command("unshare", ["-m", "sh", "-euc", SCRIPT]);
            command
                .env("STORE", teu_integration_tests::binary("teu-store"))
                .env("BACKEND", backend)
                .env("LEFT", left);
            let limit = teu_integration_tests::command::TIME_LIMIT;
            teu_integration_tests::command::run_limited(command, b"", limit).succeeds();
        }
    }
}
