//! Pull and push against Debian's registry: http, TLS, passwords, tokens.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::{Registry, TokenServer, stored};
use teu_integration_tests::Scene;
use teu_integration_tests::command::Outcome;

fn store<const N: usize>(scene: &Scene, args: [&str; N]) -> Outcome {
    scene.run("teu-store", args)
}

/// The digest at the end of the line that `pull` and `push` print.
fn digest(line: &str) -> &str {
    line.rsplit_once('@').unwrap().1
}

/// Empties the store, as `rmi` and `gc` of everything would.
fn forget_everything(scene: &Scene) {
    std::fs::remove_dir_all(scene.store()).unwrap();
}

#[test]
fn an_image_comes_back_from_a_registry_with_the_digest_it_got_there() {
    let scene = Scene::new("push, forget, pull");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let name = registry.name("team/busybox:1");
    let pushed = store(&scene, ["push", "-q", "busybox", &name]).succeeds();
    assert_eq!(pushed, format!("{name}@{}", digest(&pushed)));
    let there = scene.shell(&format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}"
    ));
    assert_eq!(digest(&pushed), there);
    // Packing is deterministic: what was pushed once is there.
    let again = store(&scene, ["push", "busybox", &name]);
    assert!(again.stderr.contains("already there"), "{again}");
    assert_eq!(again.succeeds(), pushed);

    forget_everything(&scene);
    let pulled = store(&scene, ["pull", &name]).succeeds();
    assert_eq!(pulled, pushed);
    let by_digest = format!("{}@{there}", registry.name("team/busybox"));
    let pulled = store(&scene, ["pull", &by_digest]);
    assert!(pulled.stderr.contains("already here"), "{pulled}");
    // What came from a registry goes to another name byte for byte.
    let copied = store(&scene, ["push", &name, &registry.name("other/busybox:2")]);
    assert!(
        copied.stderr.contains("mounted from another repository"),
        "{copied}"
    );
    assert_eq!(digest(&copied.succeeds()), there);
}

// The main path: built here on a pulled image, pushed, forgotten, pulled back, run.
#[test]
fn a_built_image_goes_round_and_runs() {
    let scene = Scene::new("build, push, forget, pull, run");
    let registry = Registry::tls(&scene, "alice", "secret");
    let access = ["-q", "--cert-dir", "authority", "--creds", "alice:secret"];
    let transfer = |verb: &str, name: &str| {
        let args = [&[verb], &access[..], &[name]].concat();
        scene.run("teu-store", args).succeeds()
    };
    let (base, app) = (registry.name("base:1"), registry.name("app:1"));
    scene.busybox(&base);
    transfer("push", &base);
    forget_everything(&scene);
    transfer("pull", &base);
    scene.write("context/Dockerfile", format!("FROM {base}\nCOPY greeting /\nRUN echo made >> /greeting\nCMD [\"cat\", \"/greeting\"]\n"));
    scene.write("context/greeting", "hello\n");
    scene
        .run("teu", ["build", "-t", &app, "context"])
        .succeeds();
    let pushed = transfer("push", &app);
    // The base's blob is the one that was pulled: the registry has it.
    let layers = |repository: &str| {
        let manifest = format!("https://{}/v2/{repository}/manifests/1", registry.host());
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        scene.shell(&format!("curl -fsS --cacert authority/ca.crt -u alice:secret -H '{accept}' {manifest} | jq -r '.layers[].digest'"))
    };
    assert!(layers("app").starts_with(&layers("base")));
    forget_everything(&scene);
    assert_eq!(transfer("pull", &app), pushed);
    let run = scene.run("teu", ["run", "--rm", "--network", "none", &app]);
    assert_eq!(run.succeeds(), "hello\nmade");
}

#[test]
fn what_peers_push_is_pulled_in_every_packing() {
    let scene = Scene::new("skopeo pushes");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    store(
        &scene,
        [
            "export", "-q", "--format", "oci-dir", "-o", "layout", "busybox",
        ],
    )
    .succeeds();
    for (tag, options) in [
        (
            "gzip",
            "--dest-compress-format gzip --dest-compress-level 9",
        ),
        ("zstd", "--dest-compress-format zstd --dest-compress"),
        ("docker", "--format v2s2"),
    ] {
        let name = registry.name(&format!("peer:{tag}"));
        scene.shell(&format!(
            "skopeo copy -q --dest-tls-verify=false {options} oci:layout:latest docker://{name}"
        ));
        let theirs = scene.shell(&format!(
            "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}"
        ));
        forget_everything(&scene);
        let pulled = store(&scene, ["pull", "-q", &name]).succeeds();
        assert_eq!(digest(&pulled), theirs, "{tag}");
        let pushed = store(&scene, ["push", "-q", &name, &registry.name("again:x")]).succeeds();
        assert_eq!(digest(&pushed), theirs, "{tag}");
        store(&scene, ["push", "-q", &name, &format!("{name}-copy")]).succeeds();
    }
}

#[test]
fn the_platform_chooses_from_an_index() {
    let scene = Scene::new("index");
    let registry = Registry::http(&scene);
    scene.rootfs("root");
    scene.shell("tar -C root -cf root.tar .");
    for platform in ["linux/amd64", "linux/arm64/v8", "linux/s390x"] {
        let change = format!("LABEL for={platform}");
        store(
            &scene,
            [
                "import",
                "-q",
                "--platform",
                platform,
                "-c",
                &change,
                "root.tar",
                "part",
            ],
        )
        .succeeds();
        let tag = platform.replace('/', "-");
        store(
            &scene,
            [
                "push",
                "-q",
                "part",
                &registry.name(&format!("multi:{tag}")),
            ],
        )
        .succeeds();
    }
    let index = registry.push_index(&scene, "multi", "all", &["linux/amd64", "linux/arm64/v8"]);
    let name = registry.name("multi:all");
    for (platform, architecture) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
        forget_everything(&scene);
        let pulled = store(&scene, ["pull", "-q", "--platform", platform, &name]).succeeds();
        assert_eq!(digest(&pulled), index);
        assert_eq!(stored(&scene, &name)["architecture"], architecture);
    }
    store(&scene, ["pull", "--platform", "linux/s390x", &name]).fails(
        1,
        &[
            "nothing for linux/s390x",
            "linux/amd64, linux/arm64/v8",
            "--platform",
        ],
    );
    // Both parts here: the index goes whole and keeps its digest.
    store(&scene, ["pull", "-q", "--platform", "linux/amd64", &name]).succeeds();
    let pushed = store(&scene, ["push", "-q", &name, &registry.name("copy:all")]).succeeds();
    assert_eq!(digest(&pushed), index);
}

#[test]
fn an_index_made_here_goes_whole() {
    let scene = Scene::new("index create and push");
    let registry = Registry::http(&scene);
    scene.rootfs("root");
    scene.shell("tar -C root -cf root.tar .");
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let words = [
            "import",
            "-q",
            "--platform",
            &platform,
            "root.tar",
            architecture,
        ];
        scene.run("teu-store", words).succeeds();
    }
    store(&scene, ["index", "create", "both", "amd64", "arm64"]).succeeds();
    let name = registry.name("made:both");
    let pushed = store(&scene, ["push", "-q", "both", &name]).succeeds();
    forget_everything(&scene);
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let pulled = store(&scene, ["pull", "-q", "--platform", &platform, &name]).succeeds();
        assert_eq!(pulled, pushed);
        let raw = scene.shell(&format!(
            "skopeo inspect --tls-verify=false --override-arch {architecture} docker://{name} | jq -r .Architecture"
        ));
        assert_eq!(raw, architecture);
    }
}

#[test]
fn tls_and_passwords() {
    let scene = Scene::new("TLS, basic");
    let registry = Registry::tls(&scene, "alice", "secret");
    scene.busybox("busybox");
    let name = registry.name("private/busybox:1");
    let push = |options: &[&str]| {
        let args = [&["push", "-q"], options, &["busybox", &name]].concat();
        scene.run("teu-store", args)
    };
    push(&[]).fails(1, &[&name, "certificate is not trusted", "--cert-dir"]);
    push(&["--plain-http"]).fails(1, &[&name, "400"]);
    push(&["--cert-dir", "authority"]).fails(1, &["wants a log-in for private/busybox", "--creds"]);
    push(&["--cert-dir", "authority", "--creds", "alice:wrong"])
        .fails(1, &["refuses the credentials of user \"alice\""]);
    push(&["--cert-dir", "nosuch"]).fails(1, &["nosuch", "No such file"]);
    let pushed = push(&["--cert-dir", "authority", "--creds", "alice:secret"]).succeeds();

    forget_everything(&scene);
    scene.write(
        "auth.json",
        format!(
            r#"{{"auths":{{"{}":{{"auth":"YWxpY2U6c2VjcmV0"}}}}}}"#,
            registry.host()
        ),
    );
    let pull = |options: &[&str]| {
        let args = [&["pull", "-q"], options, &[&name]].concat();
        scene.run("teu-store", args)
    };
    let pulled = pull(&["--tls-verify=false", "--authfile", "auth.json"]).succeeds();
    assert_eq!(pulled, pushed);
    let mut command = scene.command("teu-store", ["pull", "-q", &name]);
    command
        .env("SSL_CERT_FILE", scene.path("authority/ca.crt"))
        .env("REGISTRY_AUTH_FILE", scene.path("auth.json"));
    let outcome = teu_integration_tests::command::run_limited(
        command,
        b"",
        teu_integration_tests::command::TIME_LIMIT,
    );
    assert_eq!(outcome.succeeds(), pushed);
    // The content is here, and still who may not read it there does not get it.
    pull(&["--cert-dir", "authority"]).fails(1, &["wants a log-in"]);
}

#[test]
fn tokens() {
    let scene = Scene::new("tokens");
    let tokens = TokenServer::new(&scene, "team/app", "alice", "secret");
    let registry = Registry::with_tokens(&scene, &tokens);
    scene.busybox("busybox");
    let name = registry.name("team/app:1");
    let pushed = store(
        &scene,
        ["push", "-q", "--creds", "alice:secret", "busybox", &name],
    )
    .succeeds();
    store(&scene, ["push", "-q", "busybox", &name]).fails(1, &[&name, "wants a log-in"]);
    store(
        &scene,
        ["push", "-q", "--creds", "alice:wrong", "busybox", &name],
    )
    .fails(1, &["refuses the credentials"]);
    forget_everything(&scene);
    // Anonymous: the token server gives a token for reading.
    assert_eq!(store(&scene, ["pull", "-q", &name]).succeeds(), pushed);
    drop(registry);
}

#[test]
fn errors_name_the_object_the_cause_and_the_way_out() {
    let scene = Scene::new("registry errors");
    let registry = Registry::http(&scene);
    let nosuch = registry.name("nosuch:1");
    store(&scene, ["pull", &nosuch])
        .fails(1, &["pull", &nosuch, "has no nosuch:1", "check the name"]);
    store(&scene, ["pull", "localhost:1/x"]).fails(1, &["localhost:1", "refused"]);
    store(&scene, ["push", "nosuch", &nosuch]).fails(1, &["no such image \"nosuch\""]);
    store(&scene, ["pull", "nosuch.invalid/x"]).fails(1, &["nosuch.invalid"]);
    store(&scene, ["pull", "localhost:1/UPPER"]).fails(2, &["lower case"]);
}

#[test]
fn many_pulls_at_once_agree() {
    let scene = Scene::new("parallel pulls");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let name = registry.name("busybox:1");
    let pushed = store(&scene, ["push", "-q", "busybox", &name]).succeeds();
    forget_everything(&scene);
    let children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = scene.command("teu-store", ["pull", "-q", &name]);
            command
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pushed);
    }
    let info = stored(&scene, &name);
    assert_eq!(info["manifest"], digest(&pushed));
}

#[test]
fn a_damaged_blob_at_the_registry_is_refused() {
    let scene = Scene::new("lying registry");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let name = registry.name("busybox:1");
    store(&scene, ["push", "-q", "busybox", &name]).succeeds();
    forget_everything(&scene);
    // One byte of the largest blob, in the registry's own storage.
    let damaged = scene.shell(
        "blob=$(find registry -name data -size +100k | head -1)\n\
         printf X | dd of=$blob bs=1 seek=5000 conv=notrunc status=none\n\
         basename $(dirname $blob)",
    );
    store(&scene, ["pull", &name]).fails(1, &[&name, &damaged, "corrupt"]);
    store(&scene, ["images", "-q"]).prints("").succeeds();
    assert!(!scene.store().join("blobs/sha256").join(&damaged).exists());
}
