//! Where builds' results go, and what peers read of them.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::Registry;
use serde_json::Value;
use teu_integration_tests::Scene;
use teu_integration_tests::command::Outcome;

const DOCKERFILE: &str = "FROM busybox\nCOPY d /d\nRUN ln /d/x /d/y && ln -s x /d/z && chmod 4711 /d/x && mkdir -m 1777 /t && chown 7:8 /t\nCMD [\"cat\", \"/d/x\"]\n";

fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    scene.write("context/Dockerfile", DOCKERFILE);
    scene.write("context/d/x", "hello\n");
    scene
}

fn build(scene: &Scene, arguments: &[&str]) -> Outcome {
    let all = [&["build", "-q"], arguments, &["context"]].concat();
    scene.run("teu-build", all)
}

fn metadata(scene: &Scene) -> Value {
    serde_json::from_slice(&std::fs::read(scene.path("metadata.json")).unwrap()).unwrap()
}

/// One member of a manifest or index as skopeo sees it.
fn raw(scene: &Scene, place: &str, filter: &str) -> String {
    scene.shell(&format!(
        "skopeo inspect --tls-verify=false --raw {place} | jq -c '{filter}'"
    ))
}

#[test]
fn archives_and_layouts_at_once() {
    let scene = scene("archives");
    let id = build(
        &scene,
        &[
            "-t",
            "app:1",
            "--load",
            "--iidfile",
            "id",
            "-o",
            "type=oci,dest=oci.tar",
            "-o",
            "type=oci,dest=layout,tar=false,compression=zstd,compression-level=7",
            "-o",
            "type=docker,dest=docker.tar",
            "-o",
            "type=oci,dest=plain.tar,compression=uncompressed",
        ],
    )
    .succeeds();
    assert_eq!(scene.shell("cat id"), id);
    let kinds = "[.layers[].mediaType|sub(\".*[.]\";\"\")]|unique";
    for (place, packed) in [
        ("oci-archive:oci.tar:1", "[\"tar+gzip\"]"),
        ("oci:layout:1", "[\"tar+zstd\"]"),
        ("oci-archive:plain.tar:1", "[\"tar\"]"),
    ] {
        assert_eq!(raw(&scene, place, kinds), packed, "{place}");
        let config = raw(&scene, place, ".config.digest");
        assert_eq!(config.trim_matches('"'), id, "{place}");
    }
    assert_eq!(
        scene.shell("tar xOf docker.tar manifest.json | jq -c '.[0].RepoTags'"),
        "[\"docker.io/library/app:1\"]"
    );
    assert_eq!(
        scene.shell("tar xOf oci.tar index.json | jq -r '.manifests[0].annotations[\"io.containerd.image.name\"]'"),
        "docker.io/library/app:1"
    );
    // What we and others wrote is read again, and is the image.
    for (archive, name) in [("oci.tar", "back:1"), ("docker.tar", "back:2")] {
        scene
            .run("teu-store", ["import", "-q", archive, name])
            .succeeds();
        let run = scene.run("teu", ["run", "--rm", "--network", "none", name]);
        assert_eq!(run.succeeds(), "hello");
    }
    scene.shell("skopeo copy -q oci-archive:oci.tar:1 dir:peer && test -f peer/manifest.json");
    // A second layout of the same is made of the same bytes, and packs nothing.
    build(&scene, &["-t", "app:1", "-o", "type=oci,dest=oci2.tar"]).succeeds();
    scene.shell("cmp oci.tar oci2.tar");
}

#[test]
fn files() {
    let scene = scene("files");
    scene.write("out/d/x", "older\n");
    scene.write("out/other", "stays\n");
    build(&scene, &["-o", "out", "-o", "type=tar,dest=out.tar"]).succeeds();
    let list = "find . -mindepth 1 -printf '%P %y %#m %l %n\\n' | grep -v '^other' | sort";
    scene.shell("mkdir unpacked && tar xf out.tar -C unpacked");
    let files = scene.shell(&format!("cd out; {list}"));
    assert_eq!(files, scene.shell(&format!("cd unpacked; {list}")));
    for part in [
        "d/x f 04711  2",
        "d/y f 04711  2",
        "d/z l 0777 x 1",
        "t d 01777  2",
    ] {
        assert!(files.contains(part), "{part:?} in {files}");
    }
    assert_eq!(scene.shell("cat out/d/x out/other"), "hello\nstays");
    // Owners are ours in files, the image's in the tar.
    assert_eq!(scene.shell("stat -c %u:%g out/t unpacked/t"), "0:0\n7:8");
    assert_eq!(scene.shell("ls -A out | grep -c '^.teu' || true"), "0");
    let members = build(&scene, &["-o", "-"]).stdout.len();
    let written = std::fs::metadata(scene.path("out.tar")).unwrap().len();
    assert!(members > 0 && written > 0);
    scene.shell("rm -rf out && mkdir -p out/d/x/below");
    build(&scene, &["-o", "out"]).fails(1, &["write \"out/d/x\"", "Is a directory"]);
}

#[test]
fn a_registry_with_annotations() {
    let scene = scene("push");
    let registry = Registry::http(&scene);
    let name = registry.name("team/app:1");
    build(
        &scene,
        &[
            "-t", &name,
            "-o", "type=registry,compression=zstd,compression-level=19,force-compression=true,annotation.own=output",
            "--annotation", "org.example.a=1",
            "--annotation", "index,manifest-descriptor:org.example.b=2",
            "--metadata-file", "metadata.json",
        ],
    )
    .succeeds();
    let metadata = metadata(&scene);
    let place = format!("docker://{name}");
    let digest = scene.shell(&format!(
        "skopeo inspect --tls-verify=false --raw {place} | sha256sum | cut -d' ' -f1"
    ));
    assert_eq!(
        metadata["containerimage.digest"],
        format!("sha256:{digest}")
    );
    assert_eq!(metadata["image.name"], name);
    // An annotation of the index makes one.
    assert_eq!(
        raw(&scene, &place, ".annotations"),
        r#"{"org.example.b":"2"}"#
    );
    assert_eq!(
        raw(&scene, &place, "[.manifests[]|[.platform.os,.annotations]]"),
        r#"[["linux",{"org.example.b":"2"}]]"#
    );
    let manifest = raw(&scene, &place, ".manifests[0].digest");
    let by_digest = format!(
        "docker://{}@{}",
        registry.name("team/app"),
        manifest.trim_matches('"')
    );
    assert_eq!(
        raw(
            &scene,
            &by_digest,
            "[.annotations,(.layers|map(.mediaType)|unique)]"
        ),
        r#"[{"org.example.a":"1","own":"output"},["application/vnd.oci.image.layer.v1.tar+zstd"]]"#
    );
}

#[test]
fn a_registry_and_the_store() {
    let scene = scene("push and load");
    let registry = Registry::http(&scene);
    let name = registry.name("team/app:1");
    let place = format!("docker://{name}");
    build(&scene, &["-t", &name, "--push"]).succeeds();
    // It was not asked for here.
    scene.run("teu-store", ["inspect", &name]).fails(1, &[]);
    build(&scene, &["-t", &name, "--push", "--load"]).succeeds();
    scene.run("teu-store", ["inspect", &name]).succeeds();
    let manifest = raw(
        &scene,
        &place,
        "[.mediaType,(.layers|map(.mediaType)|unique)]",
    );
    assert!(
        manifest.contains("manifest.v1+json") && manifest.contains("tar+gzip"),
        "{manifest}"
    );
    build(
        &scene,
        &["-t", &name, "-o", "type=registry,oci-mediatypes=false"],
    )
    .succeeds();
    let manifest = raw(
        &scene,
        &place,
        "[.mediaType,.config.mediaType,(.layers|map(.mediaType)|unique)]",
    );
    assert!(!manifest.contains("oci"), "{manifest}");
    build(
        &scene,
        &[
            "-t",
            &name,
            "-o",
            "type=image,push=true,push-by-digest=true,store=false",
        ],
    )
    .succeeds();
    build(&scene, &["--push"]).fails(1, &["a registry needs a name"]);
    build(&scene, &["-o", "type=what"]).fails(2, &["type=what is none of"]);
    build(&scene, &["-o", "type=cacheonly"]).succeeds();
}

// BuildKit's attestation manifests: docker and others read them from the index.
#[test]
fn what_is_said_about_an_image() {
    let scene = scene("attestations");
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nARG token=no\nCOPY <<S /var/lib/dpkg/status\nPackage: libc6\nStatus: install ok installed\nVersion: 2.36-9\nArchitecture: amd64\nS\n",
    );
    let plain = build(
        &scene,
        &["-t", "app:1", "-o", "type=oci,dest=plain,tar=false"],
    );
    let id = plain.succeeds();
    assert_eq!(
        raw(&scene, "oci:plain:1", ".manifests"),
        "null",
        "off unless asked for"
    );
    let arguments = [
        "-t",
        "app:1",
        "--build-arg",
        "token=hidden",
        "--sbom",
        "--provenance",
        "-o",
        "type=oci,dest=said,tar=false",
    ];
    build(&scene, &arguments).succeeds();
    let index = raw(
        &scene,
        "oci:said:1",
        "[.manifests[]|[.platform.os,.annotations[\"vnd.docker.reference.type\"]]]",
    );
    assert_eq!(
        index,
        r#"[["linux",null],["unknown","attestation-manifest"]]"#
    );
    assert_eq!(
        raw(
            &scene,
            "oci:said:1",
            ".manifests[1].annotations[\"vnd.docker.reference.digest\"]==.manifests[0].digest"
        ),
        "true"
    );
    let statement = |kind: &str, filter: &str| {
        scene.shell(&format!(
            "cd said/blobs/sha256 && grep -l '\"predicateType\":\"{kind}\"' * | head -1 | xargs jq -c '{filter}'"
        ))
    };
    assert_eq!(
        statement(
            "https://spdx.dev/Document",
            "[.predicate.spdxVersion,.predicate.packages[0].externalRefs[0].referenceLocator]"
        ),
        r#"["SPDX-2.3","pkg:deb/linux/libc6@2.36-9?arch=amd64"]"#
    );
    let provenance = statement("https://slsa.dev/provenance/v1", ".");
    assert!(
        provenance.contains("pkg:docker/busybox@latest"),
        "{provenance}"
    );
    assert!(
        !provenance.contains("hidden"),
        "arguments are told in mode=max only"
    );
    // The image itself is the same, and runs.
    scene
        .run("teu-store", ["import", "-q", "said", "back"])
        .succeeds();
    let own = build(&scene, &["-t", "app:2", "--sbom", "--provenance=mode=max"]).succeeds();
    assert_eq!(own, id);
    build(&scene, &["--attest", "type=what"]).fails(2, &["neither sbom nor provenance"]);
}

/// What is said beside an image in a registry leaves the image as it is without.
#[test]
fn statements_that_refer_to_an_image() {
    let scene = scene("referrers");
    let registry = Registry::http(&scene);
    let (plain, said) = (registry.name("plain:1"), registry.name("said:1"));
    let digest = |name: &str| raw(&scene, &format!("docker://{name}"), ".config.digest");
    build(&scene, &["-t", &plain, "--push"]).succeeds();
    let sbom = "type=sbom,as=referrer";
    build(&scene, &["-t", &said, "--push", "--attest", sbom]).succeeds();
    assert_eq!(digest(&said), digest(&plain), "an image, no index");
    let list = scene.run("teu-store", ["referrers", "--format", "json", &said]);
    let list: Value = serde_json::from_str(&list.succeeds()).unwrap();
    let found = list.to_string();
    assert!(
        found.contains("application/vnd.in-toto+json")
            && found.contains("https://spdx.dev/Document"),
        "{found}"
    );
    // Each where it was asked for.
    let both = ["-t", &said, "--push", "--provenance", "--attest", sbom];
    build(&scene, &both).succeeds();
    let kinds = raw(
        &scene,
        &format!("docker://{said}"),
        "[.manifests[].annotations[\"vnd.docker.reference.type\"]]",
    );
    assert_eq!(kinds, r#"[null,"attestation-manifest"]"#);
    build(&scene, &["-t", "x", "--attest", sbom]).fails(1, &["needs an output to a registry"]);
}

/// A scene in which `base` is an index over two platforms, whose digest comes with it.
fn platforms(name: &str) -> (Scene, String) {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    for architecture in ["amd64", "arm64"] {
        scene.write(format!("base/{architecture}"), architecture);
    }
    let text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    scene.write("base/Dockerfile", text);
    let index = for_both(&scene, &["-t", "base", "base"]).succeeds();
    (scene, index)
}

fn for_both(scene: &Scene, arguments: &[&str]) -> Outcome {
    let both = [
        "build",
        "--progress",
        "plain",
        "--platform",
        "linux/amd64,linux/arm64",
    ];
    scene.run("teu-build", [&both[..], arguments].concat())
}

#[test]
fn several_platforms_in_one_build() {
    let (scene, index) = platforms("platforms");
    // A base that is an index, a stage that runs here for both, and what it makes for each.
    scene.write(
        "context/Dockerfile",
        "FROM --platform=$BUILDPLATFORM busybox AS tools\nRUN echo once > /once\nARG TARGETPLATFORM\nRUN echo for $TARGETPLATFORM > /made\nFROM base\nCOPY --from=tools /once /made /\n",
    );
    let built = for_both(
        &scene,
        &[
            "-t",
            "app",
            "-o",
            "type=oci,dest=layout,tar=false",
            "-o",
            "type=local,dest=out",
            "context",
        ],
    )
    .exits(0);
    assert_ne!(built.stdout.trim(), index.trim());
    for (line, count) in [
        ("RUN echo once", 2),
        ("CACHED", 1),
        ("[linux/arm64 tools 2/2] RUN echo for", 1),
    ] {
        assert_eq!(
            built.stderr.matches(line).count(),
            count,
            "{line:?} in {}",
            built.stderr
        );
    }
    let platforms = "[.manifests[].platform|.os+\"/\"+.architecture]";
    assert_eq!(
        raw(&scene, "oci:layout:latest", platforms),
        "[\"linux/amd64\",\"linux/arm64\"]"
    );
    for architecture in ["amd64", "arm64"] {
        let folder = format!("out/linux_{architecture}");
        let text = scene.shell(&format!("cat {folder}/arch {folder}/made"));
        assert_eq!(text, format!("{architecture}for linux/{architecture}"));
        let inspected = scene.shell(&format!("skopeo inspect --override-arch {architecture} --config oci:layout:latest | jq -r .architecture"));
        assert_eq!(inspected, architecture);
    }
}

#[test]
fn what_cannot_be_built_for_a_platform_is_said() {
    let (scene, _) = platforms("no platform");
    scene.write("context/Dockerfile", "FROM base\nRUN true\n");
    for_both(&scene, &["context"]).fails(1, &["binfmt_misc", "linux/arm64", "2 | RUN true"]);
    let single = [
        "build",
        "-q",
        "--platform",
        "linux/arm64",
        "--build-context",
        "base=docker-image://busybox",
        "context",
    ];
    scene.run("teu-build", single).fails(
        1,
        &[
            "the image in the store is for linux/amd64",
            "linux/arm64 is wanted",
        ],
    );
    scene
        .run(
            "teu-build",
            ["build", "--platform", "windows/amd64", "context"],
        )
        .fails(2, &["windows"]);
}

#[test]
fn foreign_programs_run_by_an_emulator() {
    let scene = Scene::new("emulator");
    // A program for arm64 that a shell can read, and a shell as the emulator of its own user namespace (Linux 6.7).
    scene.shell(
        r#"mkdir -p context/bin emulator && cp /bin/busybox emulator/sh
        { printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000\267\000'; printf '\n[ "$1" = -c ] && eval "$2"\n'; } > context/bin/sh
        chmod 755 context/bin/sh"#,
    );
    scene.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY bin /bin\nRUN echo emulated > /made\n",
    );
    let build = scene.command(
        "teu-build",
        [
            "build",
            "--progress",
            "plain",
            "--platform",
            "linux/arm64",
            "-o",
            "out",
            "context",
        ],
    );
    let words: Vec<String> = std::iter::once(build.get_program())
        .chain(build.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| word != "--cgroup-parent" && !word.starts_with("/teu-test"))
        .collect();
    let register = r#"mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || exit 99
        printf ':teu:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00::'"$PWD"'/emulator/sh:F' > /proc/sys/fs/binfmt_misc/register"#;
    let script = format!("{register}\nexec {}", words.join(" "));
    let outcome = scene.run("unshare", ["-Urm", "sh", "-euc", &script]);
    teu_integration_tests::skip_unless!(
        scene,
        outcome.code() != 99,
        "binfmt_misc of user namespaces needs Linux 6.7"
    );
    let outcome = outcome.exits(0);
    let warning = "warning: RUN steps for linux/arm64 are emulated by ";
    assert!(outcome.stderr.contains(warning), "{}", outcome.stderr);
    assert_eq!(scene.shell("cat out/made"), "emulated");
}

/// Build arguments that BuildKit itself listens to.
#[test]
fn arguments_with_a_meaning_of_their_own() {
    let scene = scene("builtin arguments");
    let argument = |text: &str, more: &[&str]| {
        let all = [&["--build-arg", text][..], more].concat();
        build(&scene, &all)
    };
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c [ $(hostname) = here ]\n",
    );
    let named = "BUILDKIT_SANDBOX_HOSTNAME=here";
    let space = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=mine"];
    argument(named, &space).succeeds();
    build(&scene, &[]).fails(1, &["exit status 1"]);
    let mounts = scene.run("teu-build", ["mounts", "ls"]).succeeds();
    assert!(mounts.contains("mine/c "), "{mounts}");
    scene.write("context/Dockerfile", "FROM busybox\nENV A=1\n");
    let several = "BUILDKIT_MULTI_PLATFORM=1";
    let layout = ["-t", "a:1", "-o", "type=oci,dest=m,tar=false", "-o", "out"];
    argument(several, &layout).succeeds();
    assert_eq!(raw(&scene, "oci:m:1", ".manifests|length"), "1");
    assert!(scene.shell("ls out").starts_with("linux_"));
    let inline = ["-t", "a:2", "-o", "type=oci,dest=i,tar=false"];
    argument("BUILDKIT_INLINE_CACHE=1", &inline).succeeds();
    assert_eq!(
        scene.shell("grep -l teu.buildcache i/blobs/sha256/* | wc -l"),
        "1"
    );
}
