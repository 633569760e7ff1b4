//! All of it as an ordinary user, who owns nothing but its own files: what comes out is what went in.

use std::os::unix::fs::PermissionsExt as _;
use teu_integration_tests::{Scene, binary, is_root, missing_command, skip_unless};

use crate::peers::Registry;

/// An id that nobody has.
const USER: u32 = 47_113;

/// A base with everything that an ordinary user cannot make, and cannot read.
const BASE: &str = "mkdir -p base/etc base/bin base/closed base/tmp
    cp /bin/busybox base/bin/ && ln -s busybox base/bin/sh
    printf 'root:x:0:0::/root:/bin/sh\\napp:x:1000:1000::/:/bin/sh\\n' > base/etc/passwd; printf 'root:x:0:\\napp:x:1000:\\n' > base/etc/group
    echo secret > base/etc/shadow; echo x > base/closed/x; echo o > base/owned; ln base/owned base/hard; ln -s owned base/link
    mknod base/null c 1 3; mknod base/disk b 8 1; mkfifo base/pipe
    chown -h 5:6 base/link; chown 1000:1000 base/owned base/tmp; chmod 4755 base/owned; chmod 1777 base/tmp
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 base/bin/busybox; setfattr -n user.mine -v v base/owned
    chmod 0 base/etc/shadow base/closed; chmod 555 base
    tar -C base --xattrs --xattrs-include='*' --format=pax --numeric-owner -cf base.tar .";

/// A scene with a folder `home` of the user, in which it has its store; `None` where there can be none.
fn home(scene: &Scene) -> bool {
    if !is_root() || missing_command("setpriv") {
        return false;
    }
    scene.shell(BASE);
    let folder = scene.path("");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["teu-store", "teu-runtime"] {
        std::fs::copy(binary(program), folder.join(program)).unwrap();
    }
    scene.shell(&format!("mkdir home && chown {USER}:{USER} home"));
    true
}

/// Runs a script as the user, in its home; `teu-store` is ours.
fn user(scene: &Scene, script: &str) -> String {
    let here = scene.path("").display().to_string();
    scene.write(
        "script",
        format!("set -eu\ncd {here}/home\nexport HOME={here}/home PATH={here}:$PATH\n{script}\n"),
    );
    scene.shell(&format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all sh script"
    ))
}

#[test]
fn an_image_goes_through_an_ordinary_users_hands_unchanged() {
    let scene = Scene::new("rootless");
    skip_unless!(
        scene,
        home(&scene),
        "needs root to be another user, and setpriv (package util-linux)"
    );
    let registry = Registry::http(&scene);
    let (one, two) = (registry.name("u/one"), registry.name("u/two"));
    user(
        &scene,
        &format!(
            "teu-store import -q ../base.tar one; teu-store push -q one {one}; teu-store rmi one; teu-store pull -q {one}; teu-store tag {one} one"
        ),
    );
    // What it exports is what root imported, member by member.
    let listed =
        |tar: &str| scene.shell(&format!("tar --xattrs --numeric-owner -tvvf {tar} | sort"));
    user(
        &scene,
        "teu-store export -q --format oci-dir --preserve-digests -o out one",
    );
    let layer = scene.shell("umoci stat --image home/out --json | jq -r '.history[] | select(.layer).layer.digest' | tail -n 1");
    let layer = layer.strip_prefix("sha256:").unwrap();
    scene.shell(&format!("zcat -f home/out/blobs/sha256/{layer} > out.tar"));
    assert_eq!(listed("out.tar"), listed("base.tar"));
    user(&scene, "teu-store verify -q");
    assert!(user(&scene, "teu-store mount one m 2>&1 || true").contains("only root may mount"));
    // Unpacked and packed again nothing has changed; what is changed keeps its owner.
    user(
        &scene,
        "teu-store unpack one bundle; teu-store repack bundle same",
    );
    let ids = user(&scene, "teu-store inspect --format '{id}' one same");
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids[0], ids[1]);
    scene.shell("cp -a home/bundle home/copy");
    user(&scene, "teu-store repack copy same");
    assert_eq!(
        user(&scene, "teu-store inspect --format '{id}' same"),
        ids[0]
    );
    user(
        &scene,
        "cd bundle/rootfs; chmod 755 .; chmod 600 owned; mv null nil; echo new > new; chmod 700 closed; echo y > closed/y; chmod 0 closed; cd ../..; teu-store repack bundle two",
    );
    user(&scene, &format!("teu-store push -q two {two}"));
    scene.run("teu-store", ["pull", "-q", &two]).succeeds();
    let top = scene
        .run(
            "teu-store",
            ["inspect", "--format", "{config.rootfs.diff_ids.1}", &two],
        )
        .succeeds();
    let top = scene.shell(&format!(
        "tar --numeric-owner -tvf data/store/tars/{} | awk '{{print $1, $2, $NF}}' | sort -k3",
        top.replace(':', "/")
    ));
    assert_eq!(
        top.lines().collect::<Vec<_>>(),
        [
            "drwxr-xr-x 0/0 ./",
            "---------- 0/0 .wh.null",
            "d--------- 0/0 closed/",
            "-rw-r--r-- 0/0 closed/y",
            "-rw------- 1000/1000 hard",
            // `owned link to hard`
            "hrw------- 1000/1000 hard",
            "-rw-r--r-- 0/0 new",
            "crw-r--r-- 0/0 nil",
        ]
    );
}

#[test]
fn an_ordinary_user_runs_what_it_unpacked() {
    let scene = Scene::new("rootless run");
    skip_unless!(
        scene,
        home(&scene),
        "needs root to be another user, and setpriv (package util-linux)"
    );
    let namespaces = scene.run(
        "setpriv",
        [
            "--reuid",
            "47113",
            "--clear-groups",
            "unshare",
            "-Ur",
            "true",
        ],
    );
    skip_unless!(
        scene,
        namespaces.code() == 0,
        "user namespaces are not for ordinary users here"
    );
    user(
        &scene,
        "teu-store import -q ../base.tar one; teu-store unpack one bundle",
    );
    user(
        &scene,
        r#"sed -i 's/"args":\["[^]]*\]/"args":["sh","-c","id -u; cat etc\/shadow; cat closed\/x; stat -c %u owned"]/; s/"terminal":true/"terminal":false/' bundle/config.json"#,
    );
    let own = user(&scene, "teu-runtime --root $HOME/state run -b bundle it");
    assert_eq!(own, "0\nsecret\nx\n0");
    if !missing_command("runc") {
        assert_eq!(
            user(
                &scene,
                "runc --root $HOME/state2 run -b bundle it 2>/dev/null"
            ),
            own
        );
    }
    // With a namespace of its own it mounts, too.
    let mounted = user(
        &scene,
        "mkdir view; unshare -rm sh -c 'teu-store --root .local/share/teu/store mount one view >/dev/null; cat view/etc/shadow; teu-store --root .local/share/teu/store umount view'",
    );
    assert_eq!(mounted, "secret");
    // A bundle over the store's layers is written, and everything goes again.
    user(
        &scene,
        r#"echo '{"args":["true"],"user":"app"}' > request; teu-store bundle create --id it --request request one held; grep -q '"uid":1000' held/config.json; teu-store bundle release it; teu-store rmi one; teu-store gc; test -z "$(find .local/share/teu/store -mindepth 3 | head -n 1)""#,
    );
}

/// What makes images of images and takes them from place to place; prints what is the same for everybody.
const CHANGES: &str = "
    export SOURCE_DATE_EPOCH=1700000000
    teu-store import -q $IN/base.tar one >/dev/null
    teu-store config one two -e A=b --user app --label k=v
    teu-store config one arm --platform linux/arm64
    teu-store index create both one arm
    teu-store index annotate both --of linux/arm64 why=test
    teu-store index list both --format '{platform} {digest}' | sort
    for to in oci:layout:both oci-archive:both.tar docker://$REGISTRY/both; do teu-store copy -q --all --preserve-digests both $to; done
    teu-store copy -q two docker-archive:two.tar
    teu-store copy -q --all docker://$REGISTRY/both store:again; teu-store copy -q --all oci:layout:both store:layout
    teu-store copy -q --all oci-archive:both.tar store:archive; teu-store copy -q docker-archive:two.tar store:docker
    teu-store index remove again linux/arm64
    teu-store images --format '{name} {id}'
    teu-store verify -q
    teu-store prune --all >/dev/null; teu-store gc >/dev/null; teu-store images -q";

#[test]
fn an_ordinary_user_changes_joins_and_copies_as_root_does() {
    let scene = Scene::new("rootless changes");
    skip_unless!(
        scene,
        home(&scene),
        "needs root to be another user, and setpriv (package util-linux)"
    );
    let registry = Registry::http(&scene);
    let here = scene.path("").display().to_string();
    let script = |who: &str| {
        let place = registry.name(who);
        format!("export IN={here} REGISTRY={place}\n{CHANGES}")
    };
    let theirs = user(&scene, &script("theirs"));
    scene.write(
        "as-root/bin/teu-store",
        format!("#!/bin/sh\nexec {here}/teu-store --root {here}/as-root/store \"$@\"\n"),
    );
    let ours = scene.shell(&format!(
        "cd as-root; chmod +x bin/teu-store; export HOME=$PWD PATH=$PWD/bin:$PATH\n{}",
        script("ours")
    ));
    assert_eq!(theirs, ours);
    // Two configurations, an index changed three times, its members, eight copies, eight names, and then none.
    assert_eq!(theirs.lines().count(), 2 + 3 + 2 + 8 + 8, "{theirs}");
}
