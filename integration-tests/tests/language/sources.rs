//! Contexts from everywhere: standard input, URLs, repositories, names; and agents.

use crate::server::{GitServer, Web, git};
use crate::{build, files, standard_context};
use std::process::Stdio;
use teu_integration_tests::{Outcome, Scene};

/// Builds the context `place`, with this on standard input.
fn build_from(scene: &Scene, place: &str, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut all = vec!["build", "-q", "-t", "result"];
    all.extend(arguments);
    all.push(place);
    scene.run_with_input("teu-build", all, input)
}

const DOCKERFILE: &str = "FROM scratch\nCOPY . /o/\n";

#[test]
fn standard_input() {
    let scene = Scene::new("stdin");
    scene.write("c/Dockerfile", DOCKERFILE);
    scene.write("c/other/My.file", "FROM scratch\nCOPY f /g\n");
    scene.write("c/other/My.file.dockerignore", "x");
    scene.write("c/f", "f");
    scene.write("c/.dockerignore", "Dockerfile\nother\n.dockerignore\n");
    let wanted = ["o/", "o/f=f"];
    for pack in ["cat", "gzip -c", "bzip2 -c", "xz -c", "zstd -qc"] {
        scene.shell(&format!("tar -C c -cf - . | {pack} > c.tar"));
        let tar = std::fs::read(scene.path("c.tar")).unwrap();
        let _ = build_from(&scene, "-", &[], &tar).exits(0);
        assert_eq!(files(&scene), wanted, "{pack}");
        if pack == "cat" {
            let _ = build_from(&scene, "-", &["-f", "other/My.file"], &tar).exits(0);
            assert_eq!(files(&scene), ["g=f"]);
        }
    }
    let _ = build_from(&scene, "-", &[], b"FROM scratch\nCOPY <<E /x\nhi\nE\n").exits(0);
    assert_eq!(files(&scene), ["x=hi\\n"]);
    let _ = build_from(&scene, "-", &[], b"FROM scratch\nCOPY f /\n").fails(1, &["no such file"]);
    let _ = build_from(&scene, "c", &["-f", "-"], b"FROM scratch\nCOPY f /\n").exits(0);
    assert_eq!(files(&scene), ["f=f"]);
    let _ = build_from(&scene, "-", &["-f", "-"], b"FROM scratch\n").fails(1, &["standard input"]);
    let _ = build_from(&scene, "-", &[], &[0xff; 700]).fails(1, &["standard input"]);
}

#[test]
fn urls_and_repositories() {
    let scene = Scene::new("remote contexts");
    git(
        &scene,
        "git init -q -b main r; cd r; printf 'FROM scratch\\nCOPY . /o/\\n' > Dockerfile; mkdir s; cp Dockerfile s/; echo 1 > s/f; git add .; git commit -qm 1",
    );
    let server = GitServer::start(&scene);
    let _ = build_from(&scene, &server.url("r"), &[], b"").exits(0);
    assert_eq!(
        files(&scene),
        [
            "o/",
            "o/Dockerfile=...",
            "o/s/",
            "o/s/Dockerfile=...",
            "o/s/f=1\\n"
        ]
    );
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    let _ = build_from(&scene, &server.url("r"), &keep, b"").exits(0);
    let kept = files(&scene);
    assert!(
        kept.iter().any(|line| line.starts_with("o/.git/HEAD=")),
        "{kept:?}"
    );
    let _ = build_from(&scene, &(server.url("r") + "#main:s"), &[], b"").exits(0);
    assert_eq!(files(&scene), ["o/", "o/Dockerfile=...", "o/f=1\\n"]);
    let web = Web::start();
    scene.shell("tar -C git/r/s -czf c.tgz .");
    web.put("/c.tgz", std::fs::read(scene.path("c.tgz")).unwrap());
    web.put("/Dockerfile", "FROM scratch\nENV A=1\n");
    let _ = build_from(&scene, &web.url("/c.tgz"), &[], b"").exits(0);
    assert_eq!(files(&scene), ["o/", "o/Dockerfile=...", "o/f=1\\n"]);
    let _ = build_from(&scene, &web.url("/Dockerfile"), &[], b"").exits(0);
    let _ = build_from(&scene, &web.url("/none"), &[], b"").fails(1, &["404"]);
    let left = scene.shell("ls data/store/tmp data/store/roots | grep -v : | grep . || true");
    assert!(left.is_empty(), "left: {left}");
}

#[test]
fn an_unchanged_file_is_not_sent_again() {
    let scene = Scene::new("etag");
    standard_context(&scene);
    let web = Web::start();
    web.put("/f", "one");
    let dockerfile = format!("FROM scratch\nADD {} /\n", web.url("/f"));
    let _ = build(&scene, &dockerfile, &[]).exits(0);
    assert_eq!(files(&scene), ["f|600=one"]);
    web.asked();
    let _ = build(&scene, &dockerfile, &[]).exits(0);
    let asked = web.asked();
    assert!(
        asked.len() == 1 && asked[0].to_lowercase().contains("if-none-match"),
        "{asked:?}"
    );
    web.put("/f", "two");
    let _ = build(&scene, &dockerfile, &[]).exits(0);
    assert_eq!(files(&scene), ["f|600=two"]);
}

#[test]
fn named_contexts() {
    let scene = Scene::new("named");
    scene.busybox("busybox");
    standard_context(&scene);
    scene.write("n/f", "n");
    scene.write("n/no", "n");
    scene.write("n/.dockerignore", "no\n.dockerignore\n");
    git(
        &scene,
        "git init -q -b main r; cd r; echo 1 > gf; git add .; git commit -qm 1",
    );
    let server = GitServer::start(&scene);
    let web = Web::start();
    web.put(
        "/t.tar",
        std::fs::read(scene.path("context/t.tar")).unwrap(),
    );
    scene
        .run(
            "teu-store",
            ["copy", "--quiet", "store:busybox", "oci:layout:v1"],
        )
        .succeeds();
    let (git_context, tar_context) = (
        format!("g={}", server.url("r")),
        format!("t={}", web.url("/t.tar")),
    );
    let rows: [(&str, &[&str], &[&str]); 7] = [
        ("FROM scratch\nCOPY --from=n / /\n", &["n=n"], &["f=n"]),
        ("FROM n\n", &["n=n"], &["f=n"]),
        (
            "FROM alpine:3 AS x\nFROM scratch\nCOPY --from=x /f /\n",
            &["docker.io/library/alpine:3=n"],
            &["f=n"],
        ),
        (
            "FROM basis\nFROM scratch\nCOPY --from=basis /etc/hostname* /etc/group /\n",
            &["basis=docker-image://busybox"],
            &["group=root:x:0:\\napp:x:1000:\\nextra:x:2000:app\\n"],
        ),
        (
            "FROM scratch\nCOPY --from=lay /etc/group /\n",
            &["lay=oci-layout://layout:v1"],
            &["group=root:x:0:\\napp:x:1000:\\nextra:x:2000:app\\n"],
        ),
        (
            "FROM scratch\nCOPY --from=g gf /\n",
            &[&git_context],
            &["gf=1\\n"],
        ),
        (
            "FROM scratch\nCOPY --from=t /m /\n",
            &[&tar_context],
            &["f|640=m"],
        ),
    ];
    for (dockerfile, contexts, wanted) in rows {
        let mut arguments = Vec::new();
        for context in contexts {
            arguments.extend(["--build-context", context]);
        }
        let _ = build(&scene, dockerfile, &arguments).exits(0);
        assert_eq!(files(&scene), wanted, "{dockerfile}");
    }
    let mount = "FROM busybox\nRUN --mount=from=n,target=/m [ -f /m/f ]\n";
    let _ = build(&scene, mount, &["--build-context", "n=n"]).exits(0);
    let names = scene.run("teu-store", ["images"]).succeeds();
    assert!(!names.contains("context.teu"), "{names}");
}

#[test]
fn agents() {
    let scene = Scene::new("agents");
    scene.busybox("busybox");
    standard_context(&scene);
    let socket = scene.path("agent");
    let mut agent = scene
        .command("ssh-agent", ["-D", "-a", socket.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    scene.wait_until("the agent listens", || socket.exists());
    let given = format!("default={}", socket.display());
    let rows = [
        "RUN --mount=type=ssh [ -S $SSH_AUTH_SOCK -a $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 ]",
        "RUN --mount=type=ssh,mode=0666,uid=5,gid=6,target=/s [ $(stat -c %a:%u:%g $SSH_AUTH_SOCK) = 666:5:6 ]",
        "RUN --mount=type=ssh,required [ -S $SSH_AUTH_SOCK ]",
        "RUN --mount=type=ssh,id=other [ -z \"$SSH_AUTH_SOCK\" ]",
    ];
    let outcomes: Vec<Outcome> = rows
        .iter()
        .map(|row| {
            build(
                &scene,
                &format!("FROM busybox\n{row}\nRUN [ ! -e /run/buildkit ]\n"),
                &["--ssh", &given],
            )
        })
        .collect();
    let missing = build(
        &scene,
        "FROM busybox\nRUN --mount=type=ssh,id=x,required true\n",
        &["--ssh", &given],
    );
    agent.kill().unwrap();
    agent.wait().unwrap();
    for outcome in outcomes {
        let _ = outcome.exits(0);
    }
    let _ = missing.fails(1, &["\"x\" is required"]);
}

/// `SOURCE_DATE_EPOCH=context`, as BuildKit has it: the time of the commit, of the server, of the newest member.
#[test]
fn the_time_of_a_context() {
    let scene = Scene::new("dates");
    scene.busybox("busybox");
    let says = "ARG SOURCE_DATE_EPOCH\nRUN echo \"=$SOURCE_DATE_EPOCH=\" > /seen\n";
    let asked = |global: &str| format!("{global}FROM busybox\n{says}");
    git(
        &scene,
        &format!(
            "git init -q -b main r; cd r; printf '{}' > Dockerfile; printf '{}' > Own; git add .; GIT_COMMITTER_DATE='1700000001 +0200' git commit -qm 1",
            asked("").replace('\n', "\\n"),
            asked("ARG SOURCE_DATE_EPOCH=context\n").replace('\n', "\\n"),
        ),
    );
    let server = GitServer::start(&scene);
    let expect = |place: &str, arguments: &[&str], input: &[u8], seen: &str, created: &str| {
        let _ = build_from(&scene, place, arguments, input).exits(0);
        let text = scene
            .run("teu-store", ["inspect", "--format", "json", "result"])
            .succeeds();
        assert!(
            text.contains(created),
            "{place} {arguments:?}: no {created} in {text}"
        );
        let all = [arguments, &["-o", "out"]].concat();
        let _ = build_from(&scene, place, &all, input).exits(0);
        assert_eq!(
            scene.shell("cat out/seen"),
            format!("={seen}="),
            "{place} {arguments:?}"
        );
    };
    let (repository, of_context) = (server.url("r"), "SOURCE_DATE_EPOCH=context");
    let dated = ("1700000001", "2023-11-14T22:13:21Z");
    expect(
        &repository,
        &["--build-arg", of_context],
        b"",
        dated.0,
        dated.1,
    );
    expect(&repository, &["-f", "Own"], b"", dated.0, dated.1);
    expect(&repository, &[], b"", "", "1980-01-01T00:00:00Z");
    let given = ["-f", "Own", "--build-arg", "SOURCE_DATE_EPOCH=5"];
    expect(&repository, &given, b"", "5", "1970-01-01T00:00:05Z");
    // A directory changes as the user works, and has no time.
    scene.write("c/Dockerfile", asked(""));
    expect(
        "c",
        &["--build-arg", of_context],
        b"",
        "",
        "1980-01-01T00:00:00Z",
    );
    scene.write("c/Dockerfile", asked("ARG SOURCE_DATE_EPOCH=1600000000\n"));
    expect("c", &[], b"", "1600000000", "2020-09-13T12:26:40Z");
    scene.shell(
        "touch -d @1650000000 c/Dockerfile && touch -d @1640000000 c/f && tar -C c -cf c.tar .",
    );
    let tar = std::fs::read(scene.path("c.tar")).unwrap();
    expect(
        "-",
        &["--build-arg", of_context],
        &tar,
        "1650000000",
        "2022-04-15T05:20:00Z",
    );
    scene.write("c/Dockerfile", asked("ARG SOURCE_DATE_EPOCH=soon\n"));
    let _ = build_from(&scene, "c", &[], b"").fails(1, &["\"soon\"", "the word context"]);
}
