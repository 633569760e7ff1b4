//! Pulls that were killed or cut off go on where they were; what several want at a time is
//! fetched once; large layers come over several connections.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::json;
use std::process::Stdio;
use teu_integration_tests::Scene;
use teu_integration_tests::faulty::{Faulty, Image, Reply, Request, blob, digest};

/// An image of one file of so many megabytes that no packer makes smaller.
fn image(scene: &Scene, megabytes: usize) -> Image {
    scene.shell(&format!(
        "mkdir root && head -c {megabytes}M /dev/urandom > root/file && tar -C root -cf layer.tar . && gzip -n -1 < layer.tar > layer.gz"
    ));
    let layer = std::fs::read(scene.path("layer.gz")).unwrap();
    let diff_id = format!(
        "sha256:{}",
        scene.shell("sha256sum < layer.tar | cut -d ' ' -f 1")
    );
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&layer), "size": layer.len()}],
    })
    .to_string()
    .into_bytes();
    Image {
        manifest,
        config,
        layer,
    }
}

/// Requests for the layer.
fn of_layer(registry: &Faulty) -> Vec<Request> {
    let mut seen = registry.seen();
    seen.retain(|request| request.kind == "layer");
    seen
}

fn pull(scene: &Scene, name: &str) -> String {
    let outcome = scene.run("teu-store", ["pull", "--retry-delay", "5ms", name]);
    let said = outcome.stderr.clone();
    outcome.succeeds();
    scene.run("teu-store", ["verify"]).succeeds();
    said
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let scene = Scene::new("resume after kill");
    let image = image(&scene, 4);
    let bytes = image.layer.clone();
    let registry = Faulty::start(
        Some(image),
        Box::new(move |request| {
            // The first answer stops after three megabytes.
            let first = request.kind == "layer" && request.nth == 0;
            first.then(|| blob(&bytes, request).stall(3 << 20))
        }),
    );
    let name = format!("{}/team/app:1", registry.host);
    let mut killed = scene
        .command("teu-store", ["pull", "-q", &name])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = || {
        let size = scene.shell("stat -c %s data/store/tmp/*/partial-* 2>/dev/null || echo 0");
        size.lines().next().unwrap().parse::<u64>().unwrap()
    };
    scene.wait_until("three megabytes are here", || begun() >= 3 << 20);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let said = pull(&scene, &name);
    assert!(said.contains("of an earlier attempt"), "{said}");
    let asked = of_layer(&registry);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].range_start(), 3 << 20);
    // Nothing of it is left.
    assert_eq!(scene.shell("ls data/store/tmp | wc -l"), "0");
}

#[test]
fn a_pull_that_was_cut_off_goes_on_where_it_was() {
    let scene = Scene::new("resume after failure");
    let image = image(&scene, 2);
    let bytes = image.layer.clone();
    let registry = Faulty::start(
        Some(image),
        Box::new(move |request| match (request.kind, request.nth) {
            ("layer", 0) => Some(blob(&bytes, request).cut(1 << 20)),
            ("layer", 1..=5) => Some(Reply::reset()),
            _ => None,
        }),
    );
    let name = format!("{}/team/app:1", registry.host);
    let words = [
        "pull",
        "-q",
        "--retry-delay",
        "5ms",
        "--retry-times",
        "1",
        &name,
    ];
    scene.run("teu-store", words).fails(1, &["cut"]);
    let before = of_layer(&registry).len();
    let mut tries = 0;
    while scene.run("teu-store", words).code() != 0 {
        tries += 1;
        assert!(tries < 5);
    }
    let asked = of_layer(&registry);
    assert!(
        asked[before..]
            .iter()
            .all(|request| request.range_start() == 1 << 20),
        "{asked:?}"
    );
    scene.run("teu-store", ["verify"]).succeeds();
    // What nobody took over is gc's.
    scene.run("teu-store", ["gc"]).succeeds();
}

/// What lay on the disk in between is not believed.
#[test]
fn a_beginning_that_was_damaged_is_fetched_again() {
    let scene = Scene::new("resume on damage");
    let image = image(&scene, 2);
    let bytes = image.layer.clone();
    let registry = Faulty::start(
        Some(image),
        Box::new(move |request| {
            let first = request.kind == "layer" && request.nth == 0;
            first.then(|| blob(&bytes, request).cut(1 << 20))
        }),
    );
    let name = format!("{}/team/app:1", registry.host);
    let words = ["pull", "-q", "--retry-times", "0", &name];
    scene.run("teu-store", words).fails(1, &["cut"]);
    scene.shell("printf X | dd of=$(ls data/store/tmp/*/partial-*) bs=1 seek=500000 conv=notrunc status=none");
    let said = pull(&scene, &name);
    assert!(said.contains("of an earlier attempt"), "{said}");
    let starts: Vec<usize> = of_layer(&registry)
        .iter()
        .map(Request::range_start)
        .collect();
    assert_eq!(starts, [0, 1 << 20, 0]);
}

#[test]
fn what_several_pull_at_a_time_is_fetched_once() {
    let scene = Scene::new("fetched once");
    let image = image(&scene, 2);
    let registry = Faulty::start(Some(image), Box::new(|_| None));
    let name = format!("{}/team/app:1", registry.host);
    let children: Vec<_> = (0..6)
        .map(|_| {
            scene
                .command("teu-store", ["pull", "-q", &name])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(of_layer(&registry).len(), 1);
    let seen = registry.seen().into_iter();
    assert_eq!(seen.filter(|request| request.kind == "config").count(), 1);
    assert_eq!(
        scene.shell("ls data/store/lock | grep -c fetch || true"),
        "0"
    );
}

/// Who fetches is killed while another one waits for it: that one goes on where it was, and nobody waits in vain.
#[test]
fn who_waits_for_a_killed_fetcher_takes_over() {
    let scene = Scene::new("killed fetcher");
    let image = image(&scene, 4);
    let bytes = image.layer.clone();
    let registry = Faulty::start(
        Some(image),
        Box::new(move |request| {
            let first = request.kind == "layer" && request.nth == 0;
            first.then(|| blob(&bytes, request).stall(3 << 20))
        }),
    );
    let name = format!("{}/team/app:1", registry.host);
    let start = |log: &str| {
        scene
            .command("teu-store", ["pull", "-q", &name])
            .stderr(std::fs::File::create(scene.path(log)).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut fetcher = start("fetcher.log");
    let begun = || scene.shell("cat data/store/tmp/*/partial-* 2>/dev/null | wc -c");
    scene.wait_until("three megabytes are here", || {
        begun().parse::<usize>().unwrap() >= 3 << 20
    });
    let waiting: Vec<_> = (0..3).map(|_| start("waiting.log")).collect();
    // All of them want it, which they say before they ask who fetches.
    let working = || scene.shell("ls -d data/store/tmp/work-* | wc -l");
    scene.wait_until("all have begun", || working() == "4");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(of_layer(&registry).len(), 1);
    fetcher.kill().unwrap();
    fetcher.wait().unwrap();
    for mut child in waiting {
        assert!(
            child.wait().unwrap().success(),
            "{}",
            scene.shell("cat waiting.log")
        );
    }
    let asked = of_layer(&registry);
    assert_eq!((asked.len(), asked[1].range_start()), (2, 3 << 20));
    scene.run("teu-store", ["verify"]).succeeds();
    assert_eq!(
        scene.shell("ls data/store/tmp data/store/lock | grep -c -e work -e fetch || true"),
        "0"
    );
}

#[test]
fn a_large_layer_comes_over_several_connections() {
    let scene = Scene::new("ranges");
    let image = image(&scene, 40);
    let bytes = image.layer.clone();
    let ranges = image.clone();
    let registry = Faulty::start(
        Some(image.clone()),
        Box::new(move |request| {
            let (start, end) = part(request)?;
            let whole = ranges.layer.len();
            let last = end.min(whole - 1);
            let range = format!("bytes {start}-{last}/{whole}");
            // One piece is cut: the rest comes in the ordinary way.
            let reply = Reply::new(206)
                .header("Content-Range", range)
                .body(&ranges.layer[start..=last]);
            Some(if request.nth == 5 {
                reply.cut(1000)
            } else {
                reply
            })
        }),
    );
    pull(&scene, &format!("{}/team/app:1", registry.host));
    let asked = of_layer(&registry);
    assert!(asked.len() >= 10, "{} requests", asked.len());
    // A registry that knows no ranges is asked once more, and in full.
    std::fs::remove_dir_all(scene.store()).unwrap();
    let plain = Faulty::start(
        Some(image),
        Box::new(move |request| {
            (request.kind == "layer").then(|| Reply::new(200).body(bytes.clone()))
        }),
    );
    pull(&scene, &format!("{}/team/app:1", plain.host));
    let whole = of_layer(&plain)
        .into_iter()
        .filter(|request| request.header("range").is_none());
    assert_eq!(whole.count(), 1);
}

/// The part of the layer that is asked for, where both its ends are said.
fn part(request: &Request) -> Option<(usize, usize)> {
    let range = request.header("range")?.strip_prefix("bytes=")?;
    let (start, end) = range.split_once('-')?;
    (request.kind == "layer").then_some(())?;
    Some((start.parse().ok()?, end.parse().ok()?))
}
