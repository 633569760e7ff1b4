//! The builder: each row builds, and the Dockerfile itself checks what it got.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};
use teu_integration_tests::Scene;

/// A context with a little of everything.
fn context(scene: &Scene) {
    for (path, text) in [
        ("a.txt", "a\n"),
        ("b.txt", "b\n"),
        ("d/x.txt", "x\n"),
        ("d/e/y.go", "y\n"),
    ] {
        scene.write(format!("context/{path}"), text);
    }
    scene.shell("cd context && ln -s d link && ln -s /etc/shadow outside && chmod 644 a.txt && tar czf t.tgz a.txt d && tar cf t.tar a.txt && tar cJf t.txz a.txt && tar cjf t.tbz a.txt && gzip -k a.txt");
}

fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    context(&scene);
    scene
}

/// Builds `dockerfile` with further arguments; what was printed to standard error.
fn build(scene: &Scene, dockerfile: &str, arguments: &[&str]) -> String {
    scene.write("context/Dockerfile", dockerfile);
    let mut all = vec!["build", "--progress", "plain", "-t", "result"];
    all.extend(arguments);
    all.push("context");
    let outcome = scene.run("teu-build", all).exits(0);
    format!("{outcome:?}")
}

fn all_build(scene: &Scene, rows: &[&str]) {
    for row in rows {
        build(scene, &format!("FROM busybox\n{row}\n"), &[]);
    }
}

#[test]
fn copies() {
    let scene = scene("copies");
    all_build(
        &scene,
        &[
            "COPY --chmod=640 a.txt /\nRUN [ $(stat -c %a /a.txt) = 640 ]",
            "ARG M=600\nCOPY --chmod=$M a.txt /\nRUN [ $(stat -c %a /a.txt) = 600 ]",
            "COPY --chmod=u=rwX,go= a.txt d /o/\nRUN [ $(stat -c %a /o/a.txt /o/e | tr '\\n' ' ') = '600 700' ] || [ \"$(stat -c %a /o/a.txt)\" = 600 ]",
            "COPY --chown=app:extra a.txt /\nRUN [ $(stat -c %u:%g /a.txt) = 1000:2000 ]",
            "COPY --chown=7 a.txt /n/m/\nRUN [ $(stat -c %u:%g /n/m/a.txt) = 7:7 ]",
            "COPY --link a.txt /l/\nRUN [ -f /l/a.txt ]",
            "COPY --parents d/./e/*.go a.txt /p/\nRUN [ -f /p/e/y.go -a -f /p/a.txt ]",
            "COPY --exclude=**/*.go --exclude=x.txt d /o\nRUN [ ! -e /o/e/y.go -a ! -e /o/x.txt -a -d /o/e ]",
            "COPY link /o\nRUN [ -f /o/x.txt ]",
            "COPY . /all\nRUN [ -L /all/outside -a -L /all/link ]",
            "COPY nosuch* /\nRUN true",
            "COPY [\"a.txt\", \"/with space/\"]\nRUN [ -f '/with space/a.txt' ]",
            "RUN ln -s /usr/share /share && mkdir -p /usr/share\nCOPY a.txt /share/\nRUN [ -f /usr/share/a.txt -a -L /share ]",
            "ADD t.tgz /o/\nADD t.tar t.txz t.tbz /o2/\nADD a.txt.gz /o3/\nADD --unpack=false t.tgz /o4/\nRUN [ -f /o/d/e/y.go -a -f /o2/a.txt -a -f /o3/a.txt.gz -a -f /o4/t.tgz ]",
            "COPY <<EOF /h/one\n$PATH \\$x\nEOF\nCOPY <<\"A\" <<B a.txt /h/\n$PATH\nA\ntwo\nB\nRUN [ \"$(cat /h/one)\" = \"$PATH \\$x\" -a \"$(cat /h/A)\" = '$PATH' -a -f /h/B -a -f /h/a.txt ]",
            "COPY --from=busybox /bin/busybox /copy/\nRUN /copy/busybox true",
        ],
    );
    build(
        &scene,
        "FROM busybox AS made\nRUN mkdir /q && echo hi > /q/f && chown 5:6 /q/f && ln /q/f /q/g\nFROM busybox\nCOPY --from=made /q /q\nRUN [ $(stat -c %u:%g /q/f) = 5:6 -a $(stat -c %h /q/f) = 2 ]\n",
        &[],
    );
}

#[test]
fn runs() {
    let scene = scene("runs");
    all_build(
        &scene,
        &[
            "RUN <<EOF\n#!/bin/busybox sh\n[ $0 = /dev/pipes/EOF ] && echo script > /s\nEOF\nRUN [ -f /s ]",
            "RUN cat <<EOF > /s\na\nb\nEOF\nRUN [ $(wc -l < /s) = 2 ]",
            "RUN <<EOF\nset -e\ncd /tmp\ntouch here\nEOF\nRUN [ -f /tmp/here ]",
            "RUN [\"/bin/busybox\", \"touch\", \"/a b\"]\nRUN [ -f '/a b' ]",
            "SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nWORKDIR rel\nRUN false || [ $(pwd) = /rel ]\nUSER app\nWORKDIR sub\nRUN [ $(id -u) = 1000 -a $(stat -c %u .) = 1000 ]",
            "RUN --network=none [ \"$(ls /sys/class/net)\" = lo ]",
            "RUN rm /bin/yes && mkdir /new && rm -rf /home && mkdir -p /home/other\nRUN [ ! -e /bin/yes -a -d /new -a ! -e /home/app -a -d /home/other ]",
            "RUN chmod 700 /\nRUN [ $(stat -c %a /) = 700 ]",
            "ENV A=1 B=${none:-x}\nARG C=${A}2\nRUN [ $A$B$C = 1x12 ]",
            "RUN grep -q 'Seccomp:.*2' /proc/self/status && [ $(id -u) = 0 ] && ! grep -q 'CapEff:.*3fffffffff' /proc/self/status",
        ],
    );
    build(
        &scene,
        "FROM busybox AS base\nONBUILD COPY a.txt /f\nONBUILD RUN [ -f /f ]\nFROM base\nRUN [ -f /f ]\n",
        &[],
    );
}

#[test]
fn mounts() {
    let scene = scene("mounts");
    let secret = scene.write("secret", "s3cr3t-of-the-scene");
    let secret = format!("id=k,src={}", secret.display());
    let before = scene.shell("find context -newer context/a.txt | sort; ls -R context");
    for row in [
        "RUN --mount=type=bind,target=/c [ -f /c/a.txt ] && ! touch /c/n",
        "RUN --mount=type=bind,source=d,target=/c,rw touch /c/n && [ -f /c/n ]\nRUN [ ! -e /c/n ]",
        "RUN --mount=type=bind,source=a.txt,target=/f,rw echo z >> /f && [ $(wc -l < /f) = 2 ]",
        "RUN --mount=type=bind,from=busybox,source=/etc,target=/e [ -f /e/passwd ]",
        "RUN --mount=type=cache,target=/cc date > /cc/x\nRUN --mount=type=cache,target=/cc,sharing=locked [ -e /cc/x ]\nRUN --mount=type=cache,target=/cc,ro ! touch /cc/y\nRUN [ ! -e /cc/x ]",
        "RUN --mount=type=tmpfs,target=/t,size=1m [ $(df -k /t | tail -1 | awk '{print $2}') = 1024 ]",
        "RUN --mount=type=secret,id=k grep -q 's3cr3t' /run/secrets/k\nRUN --mount=type=secret,id=k,env=K [ ${#K} = 19 ]\nRUN --mount=type=secret,id=k,target=/kk,mode=0440,uid=33 [ $(stat -c %a:%u /kk) = 440:33 ]\nRUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]",
    ] {
        build(
            &scene,
            &format!("FROM busybox\n{row}\n"),
            &["--secret", &secret],
        );
        scene.shell("rm context/Dockerfile");
    }
    assert_eq!(
        before,
        scene.shell("find context -newer context/a.txt | sort; ls -R context"),
        "a step wrote into the context"
    );
    let kept = scene.shell("grep -rl s3cr3t-of-the-scene data || true");
    assert!(kept.is_empty(), "the secret is in {kept}");
}

#[test]
fn mount_points_are_not_in_the_layer() {
    let scene = Scene::new("mount points");
    scene.shell("mkdir context && cp /bin/busybox context/");
    scene.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY busybox /\nRUN [\"/busybox\", \"mkdir\", \"/made\"]\n",
    );
    scene
        .run("teu-build", ["build", "-t", "x", "context"])
        .succeeds();
    let members = scene.shell("for tar in data/store/tars/sha256/*; do tar tf $tar; done | sort");
    assert_eq!(members, "busybox\nmade/");
}

/// One change a row: whether the two steps run again.
#[test]
fn what_the_cache_sees() {
    let scene = scene("cache");
    let dockerfile = "FROM busybox\nENV V=1\nCOPY d /d\nRUN ls /d > /list\n";
    let steps = |output: &str| -> Vec<bool> {
        (1..=2)
            .map(|step| output.contains(&format!("#{step} CACHED")))
            .collect()
    };
    assert_eq!(steps(&build(&scene, dockerfile, &[])), [false, false]);
    let rows: [(&str, &str, [bool; 2]); 9] = [
        ("nothing", "true", [true, true]),
        ("mtime", "touch context/d/x.txt", [true, true]),
        ("another file", "touch context/other", [true, true]),
        ("owner", "chown 33 context/d/x.txt", [true, true]),
        ("mode", "chmod 600 context/d/x.txt", [false, false]),
        ("content", "echo more >> context/d/x.txt", [false, false]),
        (
            "xattr",
            "setfattr -n user.k -v v context/d/x.txt",
            [false, false],
        ),
        ("name", "mv context/d/x.txt context/d/z.txt", [false, false]),
        (
            "ignored",
            "echo d/z.txt > context/.dockerignore",
            [false, false],
        ),
    ];
    for (what, change, cached) in rows {
        scene.shell(change);
        assert_eq!(steps(&build(&scene, dockerfile, &[])), cached, "{what}");
    }
    let labelled = dockerfile.replace("ENV", "LABEL l=1\nCMD x\nENV");
    assert_eq!(
        steps(&build(&scene, &labelled, &[])),
        [true, true],
        "metadata"
    );
    let env = dockerfile.replace("V=1", "V=2");
    assert_eq!(
        steps(&build(&scene, &env, &[])),
        [true, false],
        "ENV is seen by RUN only"
    );
    assert_eq!(
        steps(&build(&scene, dockerfile, &["--no-cache"])),
        [false, false]
    );
}

#[test]
fn a_stage_that_gives_the_same_files_changes_nothing() {
    let scene = scene("same files");
    let dockerfile = |command: &str| {
        format!(
            "FROM busybox AS made\nRUN {command}; echo 1 > /f\nFROM busybox\nCOPY --from=made /f /\nRUN cat /f\n"
        )
    };
    build(&scene, &dockerfile("true"), &[]);
    let output = build(&scene, &dockerfile("touch /other"), &[]);
    assert!(
        !output.contains("#1 CACHED")
            && output.contains("#2 CACHED")
            && output.contains("#3 CACHED"),
        "{output}"
    );
}

#[test]
fn the_same_image_on_any_day_in_any_store() {
    let (one, two) = (scene("one"), scene("two"));
    let dockerfile = "FROM scratch AS s\nCOPY . /c\nFROM s\nCOPY <<X /x\nhi\nX\n";
    let id = |scene: &Scene| {
        scene.write("context/Dockerfile", dockerfile);
        scene
            .run("teu-build", ["build", "-q", "context"])
            .succeeds()
    };
    two.shell("find context -exec touch -h -d 2001-01-01 {} +");
    // Archives of `context` carry the times of the day: they are content.
    for scene in [&one, &two] {
        scene.shell("rm context/t.* context/*.gz");
    }
    assert_eq!(id(&one), id(&two));
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let scene = scene("interrupted");
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo started; sleep 600\n",
    );
    let mut command = scene.command("teu-build", ["build", "--progress", "plain", "context"]);
    let child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let begin = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(
        scene.shell("ls data/store/tmp data/store/roots | grep -v : | grep . || true"),
        ""
    );
}

#[test]
fn after_a_kill_the_next_build_cleans_up() {
    let scene = scene("killed");
    scene.write("context/Dockerfile", "FROM busybox\nRUN sleep 600\n");
    let mut child = scene
        .command("teu-build", ["build", "context"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    child.kill().unwrap();
    child.wait().unwrap();
    build(&scene, "FROM busybox\nRUN echo next\n", &[]);
    assert_eq!(
        scene.shell("ls -A data/store/roots data/store/tmp | grep -v : | grep . || true"),
        ""
    );
}

#[test]
fn builds_at_once_do_the_work_once() {
    let scene = scene("at once");
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /u\nCOPY a.txt /\n",
    );
    let start = |number: u32| {
        let name = format!("image{number}");
        scene
            .command("teu-build", ["build", "-q", "-t", &name, "context"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(start).collect();
    let mut ids: Vec<String> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        ids.push(String::from_utf8(output.stdout).unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}
