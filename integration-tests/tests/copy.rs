//! `copy` between all kinds of places, and peers at the other end of each.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::{Registry, stored};
use serde_json::Value;
use teu_integration_tests::command::Outcome;
use teu_integration_tests::{Scene, is_root, missing_command, skip_unless};

fn copy(scene: &Scene, words: &[&str]) -> Outcome {
    scene.run("teu-store", [&["copy", "-q"], words].concat())
}

/// The id of the image at a place, by way of a layout.
fn id(scene: &Scene, place: &str) -> String {
    scene.shell("rm -rf look");
    copy(scene, &[place, "oci:look:1"]).succeeds();
    manifest(scene, "look")["config"]["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The only manifest of a layout.
fn manifest(scene: &Scene, layout: &str) -> Value {
    let text = scene.shell(&format!(
        "cat {layout}/blobs/sha256/$(jq -r .manifests[0].digest {layout}/index.json | cut -d: -f2)"
    ));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn from_every_place_to_every_other() {
    let scene = Scene::new("copy everywhere");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let own = stored(&scene, "docker.io/library/busybox:latest")["id"].clone();
    let place = |kind: &str, name: &str| match kind {
        "docker" => format!("docker://{}", registry.name(&format!("{name}:1"))),
        "oci" => format!("oci:{name}:tag"),
        "oci-archive" => format!("oci-archive:{name}.oci.tar:localhost/a:1"),
        "docker-archive" => format!("docker-archive:{name}.docker.tar:localhost/a:1"),
        _ => format!("store:localhost/{name}:1"),
    };
    let kinds = ["docker", "oci", "oci-archive", "docker-archive", "store"];
    for from in kinds {
        let source = place(from, "source");
        copy(&scene, &["busybox", &source]).succeeds();
        for to in kinds {
            let target = place(to, &format!("{from}-to"));
            copy(&scene, &[&source, &target]).succeeds();
            assert_eq!(id(&scene, &target), own, "{source} to {target}");
        }
    }
    scene.run("teu-store", ["verify", "-q"]).succeeds();
}

#[test]
fn peers_read_what_copy_writes_and_it_reads_what_they_write() {
    let scene = Scene::new("copy and peers");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let own = stored(&scene, "docker.io/library/busybox:latest")["id"].clone();
    let name = registry.name("peer:docker");
    copy(&scene, &["busybox", "oci:layout:1"]).succeeds();
    // skopeo makes docker's documents of it: other types, another manifest.
    scene.shell(&format!(
        "skopeo copy -q --dest-tls-verify=false --format v2s2 oci:layout:1 docker://{name}\n\
         skopeo copy -q oci:layout:1 docker-archive:theirs.tar:localhost/t:1\n\
         skopeo copy -q oci:layout:1 oci-archive:theirs-oci.tar:localhost/t:2\n\
         gzip -k theirs.tar"
    ));
    for place in [
        &format!("docker://{name}"),
        "docker-archive:theirs.tar",
        "docker-archive:theirs.tar.gz:localhost/t:1",
        "oci-archive:theirs-oci.tar:localhost/t:2",
        "oci:layout:1",
    ] {
        assert_eq!(id(&scene, place), own, "{place}");
    }
    // umoci reads only OCI's documents.
    copy(
        &scene,
        &[&format!("docker://{name}"), "oci:layout:converted"],
    )
    .succeeds();
    scene
        .shell("umoci unpack --image layout:converted bundle && test -x bundle/rootfs/bin/busybox");
    // Images of a layout stay when another comes.
    assert_eq!(
        scene.shell("jq -r '.manifests | length' layout/index.json"),
        "2"
    );
    let there = scene.shell(&format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}"
    ));
    let kept = copy(
        &scene,
        &[
            "--preserve-digests",
            &format!("docker://{name}"),
            "oci:exact:1",
        ],
    );
    assert_eq!(kept.succeeds(), there);
    copy(
        &scene,
        &["oci:layout:1", "docker-archive:ours.tar:localhost/o:1"],
    )
    .succeeds();
    copy(&scene, &["oci:layout:1", "oci-archive:ours-oci.tar:o1"]).succeeds();
    scene.shell(
        "skopeo copy -q docker-archive:ours.tar:localhost/o:1 oci:read:1\n\
         skopeo copy -q oci-archive:ours-oci.tar:o1 oci:read:2",
    );
    for tag in ["1", "2"] {
        let read = scene.shell(&format!(
            "skopeo inspect --raw oci:read:{tag} | jq -r .config.digest"
        ));
        assert_eq!(read, own);
    }
}

#[test]
fn all_platforms_go_together_and_keep_their_digests() {
    let scene = Scene::new("copy --all");
    let registry = Registry::http(&scene);
    scene.rootfs("root");
    scene.shell("tar -C root -cf root.tar .");
    for platform in ["linux/amd64", "linux/arm64/v8"] {
        let change = format!("LABEL for={platform}");
        let words = [
            "import",
            "-q",
            "--platform",
            platform,
            "-c",
            &change,
            "root.tar",
            "part",
        ];
        scene.run("teu-store", words).succeeds();
        let tag = platform.replace('/', "-");
        copy(
            &scene,
            &[
                "part",
                &format!("docker://{}", registry.name(&format!("multi:{tag}"))),
            ],
        )
        .succeeds();
    }
    let index = registry.push_index(&scene, "multi", "all", &["linux/amd64", "linux/arm64/v8"]);
    let from = format!("docker://{}", registry.name("multi:all"));
    for to in [
        &format!("docker://{}", registry.name("copied:all")),
        "oci:all-dir:1",
        "oci-archive:all.tar:1",
        "store:localhost/all:1",
    ] {
        assert_eq!(
            copy(&scene, &["--all", &from, to]).succeeds(),
            index,
            "{to}"
        );
        // And on from there.
        let again = format!("docker://{}", registry.name("again:all"));
        assert_eq!(
            copy(&scene, &["--all", to, &again]).succeeds(),
            index,
            "{to}"
        );
        for platform in ["linux/amd64", "linux/arm64/v8"] {
            scene.shell("rm -rf one");
            copy(&scene, &["--platform", platform, to, "oci:one:1"]).succeeds();
            let label = scene.shell("skopeo inspect --config oci:one:1 | jq -r .config.Labels.for");
            assert_eq!(label, platform);
        }
    }
    look(
        &scene,
        &[&from, "oci:all-dir:1", "oci-archive:all.tar:1"],
        &index,
    );
    copy(&scene, &["--all", &from, "docker-archive:x.tar"]).fails(1, &["--all"]);
    copy(&scene, &["--platform", "linux/s390x", &from, "oci:x"])
        .fails(1, &["nothing for linux/s390x", "linux/amd64"]);
}

/// An image for several platforms is looked at where it is, without fetching it.
fn look(scene: &Scene, places: &[&str], index: &str) {
    let inspect = |words: &[&str]| scene.run("teu-store", [&["inspect"], words].concat());
    for place in places {
        let architecture = [
            "--platform",
            "linux/arm64",
            "--format",
            "{config.architecture}",
        ];
        let seen = inspect(&[&architecture[..], &[*place]].concat());
        assert_eq!(seen.succeeds(), "arm64", "{place}");
        scene.write("raw.json", inspect(&["--raw", place]).stdout);
        assert_eq!(
            format!(
                "sha256:{}",
                scene.shell("sha256sum < raw.json | cut -d ' ' -f 1")
            ),
            index
        );
    }
    inspect(&["oci:nosuch"]).fails(1, &["inspect oci:nosuch", "No such file"]);
}

#[test]
fn nothing_is_sent_that_is_there_or_elsewhere_in_the_registry() {
    let scene = Scene::new("copy within a registry");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let one = format!("docker://{}", registry.name("one:1"));
    let two = format!("docker://{}", registry.name("two:1"));
    copy(&scene, &["busybox", &one]).succeeds();
    let store = |to: &str| scene.run("teu-store", ["copy", &one, to]);
    let first = store(&two);
    assert!(
        first.stderr.contains("mounted from another repository"),
        "{first}"
    );
    assert!(store(&two).stderr.contains("already there"));
    // Nothing of it went through the store.
    let blobs = scene.shell("find data/store/blobs -type f | wc -l");
    copy(&scene, &[&one, "oci:out:1"]).succeeds();
    assert_eq!(scene.shell("find data/store/blobs -type f | wc -l"), blobs);
}

#[test]
fn errors_name_both_places_and_leave_nothing() {
    let scene = Scene::new("copy errors");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    copy(&scene, &["busybox", "oci:layout:1"]).succeeds();
    copy(&scene, &["busybox", "oci:layout:2"]).succeeds();
    copy(&scene, &["oci:layout", "oci:x"]).fails(1, &["oci:layout to oci:x", "2 images", "1, 2"]);
    copy(&scene, &["oci:layout:3", "oci:x"]).fails(1, &["has no \"3\"", "1, 2"]);
    copy(&scene, &["nosuch", "oci:x"]).fails(1, &["no such image"]);
    copy(&scene, &["oci:nosuch", "oci:x"]).fails(1, &["nosuch", "No such file"]);
    copy(&scene, &["dir://x", "oci:x"]).fails(2, &["want docker://NAME"]);
    copy(
        &scene,
        &[
            "--daemon-host",
            "unix:///nosuch.sock",
            "busybox",
            "docker-daemon:x",
        ],
    )
    .fails(1, &["/nosuch.sock", "No such file"]);
    copy(
        &scene,
        &["--daemon-host", "tcp://x", "busybox", "docker-daemon:x"],
    )
    .fails(1, &["unix:///PATH"]);
    scene.write("full/file", "x");
    copy(&scene, &["busybox", "oci:full"]).fails(1, &["no OCI layout", "not empty"]);
    // A damaged blob reaches no destination.
    scene.shell("blob=$(jq -r .layers[0].digest layout/blobs/sha256/$(jq -r .manifests[0].digest layout/index.json | cut -d: -f2) | cut -d: -f2)\n\
         printf X | dd of=layout/blobs/sha256/$blob bs=1 seek=5000 conv=notrunc status=none");
    // The store would not need to read it: it has the layer.
    std::fs::remove_dir_all(scene.store()).unwrap();
    let remote = format!("docker://{}", registry.name("damaged:1"));
    for to in [
        &remote,
        "oci:bad",
        "oci-archive:bad.tar",
        "docker-archive:bad.tar",
        "store:bad",
    ] {
        copy(&scene, &["oci:layout:1", to]).fails(1, &["corrupt"]);
    }
    assert!(!scene.path("bad.tar").exists() && !scene.path("bad/index.json").exists());
    copy(&scene, &[&remote, "oci:bad"]).fails(1, &["has no damaged:1"]);
    assert_eq!(
        scene.shell("ls -A bad bad/blobs/sha256 | grep -c unfinished || true"),
        "0"
    );
}

/// Copies into one layout at a time lose nobody's image.
#[test]
fn a_layout_takes_several_copies_at_once() {
    let scene = Scene::new("copies into one layout");
    scene.busybox("busybox");
    let children: Vec<_> = (0..8)
        .map(|number| {
            let to = format!("oci:layout:{number}");
            scene
                .command("teu-store", ["copy", "-q", "busybox", &to])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(
        scene.shell("jq -r '.manifests | length' layout/index.json"),
        "8"
    );
}

/// What a killed copy has left in a layout the next one removes; what a living one holds stays.
#[test]
fn what_killed_copies_leave_goes_with_the_next() {
    let scene = Scene::new("killed copies into a layout");
    scene.busybox("busybox");
    // Killed before it said that it is a layout, and later.
    scene.shell("mkdir layout && echo x > layout/.unfinished-1-dead");
    let copy = |to: &str| {
        scene
            .run("teu-store", ["copy", "-q", "busybox", to])
            .succeeds()
    };
    copy("oci:layout:one");
    let left = || scene.shell("cd layout && find . -name '.unfinished*'");
    assert_eq!(left(), "");
    scene.shell("cd layout && echo x > .unfinished-1-dead && echo x > .unfinished-2-alive && ln -s /etc/passwd .unfinished-3-link");
    let holder = "flock layout/.unfinished-2-alive sh -c 'touch held; while test -e held; do sleep 0.02; done'";
    let mut alive = scene.command("sh", ["-c", holder]).spawn().unwrap();
    scene.wait_until("it is held", || scene.path("held").exists());
    copy("oci:layout:two");
    assert_eq!(
        scene.shell("cd layout && ls -A | grep unfinished | sort"),
        ".unfinished-2-alive\n.unfinished-3-link"
    );
    std::fs::remove_file(scene.path("held")).unwrap();
    alive.wait().unwrap();
    copy("oci:layout:two");
    assert_eq!(
        scene.shell("cd layout && ls -A | grep unfinished"),
        ".unfinished-3-link"
    );
    let before = scene.shell("jq -r '.manifests | length' layout/index.json");
    assert_eq!(before, "2");
}

/// Debian's dockerd with everything of its own in the scene; ended when dropped.
struct Docker<'a> {
    scene: &'a Scene,
    process: std::process::Child,
}

impl<'a> Docker<'a> {
    fn start(scene: &'a Scene) -> Self {
        let at = |name: &str| scene.path(name).display().to_string();
        let log = std::fs::File::create(scene.path("dockerd.log")).unwrap();
        scene.write("docker.json", "{}");
        let process = scene
            .command(
                "dockerd",
                [
                    format!("--config-file={}", at("docker.json")),
                    format!("--data-root={}", at("docker")),
                    format!("--exec-root={}", at("docker-run")),
                    format!("--pidfile={}", at("docker.pid")),
                    format!("--host=unix://{}", at("docker.sock")),
                    "--storage-driver=vfs".to_owned(),
                    "--bridge=none".to_owned(),
                    "--iptables=false".to_owned(),
                    "--ip6tables=false".to_owned(),
                ],
            )
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { scene, process };
        scene.wait_until("dockerd answers", || docker.call(&["version"]).code() == 0);
        docker
    }

    fn call(&self, words: &[&str]) -> Outcome {
        let host = format!("unix://{}", self.scene.path("docker.sock").display());
        self.scene
            .run("/usr/bin/docker", [&["-H", &host], words].concat())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
        self.scene
            .shell("while umount docker 2>/dev/null; do :; done");
    }
}

#[test]
fn the_docker_daemon_gives_and_takes() {
    let scene = Scene::new("docker daemon");
    skip_unless!(scene, is_root(), "dockerd is root's");
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene);
    scene.busybox("busybox");
    let own = stored(&scene, "docker.io/library/busybox:latest")["id"].clone();
    let host = format!("unix://{}", scene.path("docker.sock").display());
    let copy = |words: &[&str]| copy(&scene, &[&["--daemon-host", &host], words].concat());
    copy(&["busybox", "oci:layout:1"]).succeeds();
    for (from, to) in [("busybox", "one:1"), ("oci:layout:1", "localhost/two:2")] {
        copy(&[from, &format!("docker-daemon:{to}")]).succeeds();
        let inspected = docker
            .call(&["image", "inspect", "-f", "{{.Id}}", to])
            .succeeds();
        assert_eq!(inspected, own, "{from}");
    }
    copy(&["docker-daemon:one:1", "store:localhost/back:1"]).succeeds();
    assert_eq!(stored(&scene, "localhost/back:1")["id"], own);
    copy(&[
        "docker-daemon:localhost/two:2",
        "docker-archive:back.tar:localhost/two:2",
    ])
    .succeeds();
    docker.call(&["rmi", "localhost/two:2", "one:1"]).succeeds();
    docker.call(&["load", "-q", "-i", "back.tar"]).succeeds();
    assert_eq!(docker.call(&["images", "-q", "--no-trunc"]).succeeds(), own);
    copy(&["docker-daemon:nosuch:1", "oci:x"])
        .fails(1, &["docker-daemon:nosuch:1", "docker.sock", "nosuch"]);
}
