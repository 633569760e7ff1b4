//! The same contexts built by Debian's buildah: files and configuration are equal, but for stated noise.
//!
//! Noise: the label that buildah adds, `ArgsEscaped`, the working directory `/` that buildah leaves out, and all of what
//! the reference says that the two do differently (`**` in COPY, `SHELL` for CMD, setuid bits, ranges of ports, globs
//! without a match); and the places of mounts, which buildah leaves in the image behind a RUN.

use crate::{build, files, standard_context};
use serde_json::Value;
use teu_integration_tests::{Scene, skipped};

/// A stage of busybox, for rows with steps that run.
const BASE: &str = "FROM scratch AS base\nADD base.tar /\nENV PATH=/bin\nFROM base\n";

const ROWS: [&str; 28] = [
    "COPY a.txt b.txt /n/",
    "COPY d /n",
    "COPY d/ /n/m/",
    "COPY *.txt /n/",
    "COPY link /n",
    "COPY l /n",
    "COPY --chown=5:6 d /n",
    "COPY --chmod=640 a.txt /x",
    "COPY [\"a.txt\", \"/a b\"]",
    "ADD t.tar t.tgz /n/",
    "WORKDIR /w\nCOPY a.txt sub/",
    "ENV A=1 B=\"x y\"\nENV C=$A-${D:-d} E=${A:+e}\nLABEL l=$A m=\"n o\"",
    "ARG X=1\nARG Y\nENV Z=$X-$Y",
    "ENTRYPOINT [\"a\"]\nCMD [\"b\", \"c\"]\nUSER 5:6\nEXPOSE 80 81/udp\nVOLUME /v\nSTOPSIGNAL SIGINT",
    "SHELL [\"/x\", \"-y\"]\nCMD [\"a\"]",
    "HEALTHCHECK --interval=1m --retries=3 CMD x y",
    "ENTRYPOINT [\"x\"]\nCMD [\"y\"]\nFROM 0\nENTRYPOINT [\"z\"]",
    "COPY d/x.txt a.txt ./n/\nCOPY l d /all/",
    "ENV A=a/b.c\nENV B=${A}x C=${N:-${A}} D=\"${A}\"' x' E=a\\ b",
    "HEALTHCHECK NONE\nEXPOSE 8000/tcp 8001\nSTOPSIGNAL 9\nLABEL a.b=\"c d\" e='f'",
    "WORKDIR /a\nWORKDIR b\nCOPY --chown=7:8 a.txt .\nWORKDIR ../c",
    "COPY a.txt /q\nFROM 0\nCOPY --from=first --chown=1:2 --chmod=600 q /m",
    "ADD t.tgz /n/\nADD a.txt /n/b/",
    "COPY d/e link/ /n/",
    "VOLUME [\"/v\", \"/w\"]\nUSER 33:50\nCMD x \"y z\" && w",
    "BASE RUN mkdir -p /x/y && chmod 750 /x && chown 5:6 /x/y && echo hi > /x/f && ln -s f /x/l && rm /bin/ls\nRUN cat /x/f > /g && rm /x/f",
    "BASE ENV A=1\nARG B=2\nWORKDIR /w\nUSER 1000:1000\nRUN [ $A$B$(id -u) = 121000 ] && pwd > /tmp/here\nUSER 0\nRUN [\"sh\", \"-c\", \"echo exec > there\"]",
    "BASE RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=bind,source=a.txt,target=/m touch /c/x /t/y && cat /m > /d",
];

/// Where a builder mounts something for a RUN.
const PLACES: [&str; 9] = [
    "c/",
    "dev/",
    "etc/host",
    "etc/resolv.conf",
    "m|",
    "proc/",
    "run/",
    "sys/",
    "t/",
];

/// What two images are compared by.
fn looks(scene: &Scene) -> (Vec<String>, Value) {
    let text = scene.run("teu-store", ["inspect", "result"]).succeeds();
    let value: Value = serde_json::from_str(&text).unwrap();
    let mut config = value[0]["config"]["config"].clone();
    let fields = config.as_object_mut().unwrap();
    // What docker once kept of the container in which an image was made.
    for field in [
        "ArgsEscaped",
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Domainname",
        "Hostname",
        "Image",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    ] {
        fields.remove(field);
    }
    if fields
        .get("WorkingDir")
        .is_some_and(|path| path == "/" || path == "")
    {
        fields.remove("WorkingDir");
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
        if labels.is_empty() {
            fields.remove("Labels");
        }
    }
    fields.retain(|_, value| {
        !value.is_null() && *value != serde_json::json!([]) && *value != serde_json::json!({})
    });
    let mut files = files(scene);
    files.retain(|line| !PLACES.iter().any(|place| line.starts_with(place)));
    (files, config)
}

#[test]
fn buildah_builds_the_same() {
    let scene = Scene::new("buildah");
    standard_context(&scene);
    scene.rootfs("base");
    scene.shell("tar -C base --numeric-owner -cf context/base.tar bin etc tmp");
    let buildah = |arguments: &str| {
        let own = "--root buildah/root --runroot buildah/run --storage-driver vfs";
        scene.run("sh", ["-c", &format!("exec buildah {own} {arguments}")])
    };
    if !buildah("version").status.success() {
        return skipped("buildah_builds_the_same", "buildah does not run here");
    }
    let mut different = Vec::new();
    for row in ROWS {
        let dockerfile = match row.strip_prefix("BASE ") {
            Some(steps) => format!("{BASE}{steps}\n"),
            None => format!("FROM scratch\n{row}\n"),
        };
        let dockerfile = dockerfile.replace("FROM 0", "FROM first").replacen(
            "FROM scratch",
            if row.contains("FROM 0") {
                "FROM scratch AS first"
            } else {
                "FROM scratch"
            },
            1,
        );
        let _ = build(&scene, &dockerfile, &[]).exits(0);
        let ours = looks(&scene);
        let built = buildah("bud --isolation chroot --format docker -q -t peer context");
        if !built.status.success() {
            different.push(format!("{row}: buildah: {}", built.stderr));
            continue;
        }
        scene.shell("rm -rf peer.tar");
        let _ = buildah("push -q peer docker-archive:peer.tar:peer:latest").exits(0);
        scene
            .run("teu-store", ["import", "--quiet", "peer.tar", "result"])
            .succeeds();
        let theirs = looks(&scene);
        if ours != theirs {
            different.push(format!("{row}:\nours   {ours:?}\ntheirs {theirs:?}"));
        }
    }
    scene.shell("rm -rf buildah/root buildah/run || true");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
