//! security.md, rows B1 to B20, as far as they concern the language, contexts and copies: what a Dockerfile, a context,
//! an archive or a repository may try, beside a sentinel that must stay as it is and be in no image.

use crate::archives::evil_archives;
use crate::server::{GitServer, Web, git};
use crate::{build, files, standard_context};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use teu_integration_tests::tar::{Member, archive};
use teu_integration_tests::{Outcome, Scene, tree};

const SECRET: &str = "sentinel-of-the-host";

/// A scene with busybox, a context and the sentinel at `outside`.
fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    standard_context(&scene);
    scene.write("outside/secret", SECRET);
    scene.write("outside/x/secret", SECRET);
    scene
}

/// Builds beside the sentinel, which must stand; an error is a message.
fn attempt(scene: &Scene, dockerfile: &str, arguments: &[&str]) -> Outcome {
    beside(scene, || build(scene, dockerfile, arguments))
}

fn beside(scene: &Scene, act: impl FnOnce() -> Outcome) -> Outcome {
    let before = tree::describe(&scene.path("outside"));
    let outcome = act();
    assert_eq!(tree::describe(&scene.path("outside")), before, "{outcome}");
    assert!(
        outcome.code() < 100 && !outcome.stderr.contains("panicked"),
        "{outcome}"
    );
    let leaked = scene.run("grep", ["-rqs", SECRET, "data"]);
    assert!(
        !leaked.status.success(),
        "the sentinel is in the store: {outcome}"
    );
    outcome
}

#[test]
fn b1_cache_mounts_are_left_by_no_link() {
    let scene = scene("B1");
    let outside = scene.path("outside").display().to_string();
    let dockerfile = format!(
        "FROM busybox AS swap\nRUN --mount=type=cache,id=c,target=/c for i in $(seq 200); do rm -rf /c/s; ln -s {outside} /c/s; rm /c/s; mkdir /c/s; done\n\
         FROM busybox AS look\nRUN --mount=type=cache,id=c,target=/c mkdir -p /c/s || true\nRUN --mount=type=cache,id=c,source=s,target=/m [ ! -e /m/secret ] && sleep 0.2 && [ ! -e /m/secret ]\n\
         FROM scratch\nCOPY --from=swap /etc/passwd /a\nCOPY --from=look /etc/passwd /b\n"
    );
    for _ in 0..5 {
        let outcome = attempt(&scene, &dockerfile, &["--no-cache"]);
        assert!(!outcome.stderr.contains("exit status"), "{outcome}");
    }
}

#[test]
fn b2_mount_points_are_cleaned_in_the_layer_alone() {
    let scene = scene("B2");
    let outside = scene.path("outside").display().to_string();
    for command in [
        format!("mv /d /e; ln -s {outside} /d"),
        format!("rm -rf /d/y; ln -s {outside} /d/y; mv /d /e; ln -s {outside} /d; true"),
    ] {
        let dockerfile =
            format!("FROM busybox\nRUN mkdir /d\nRUN --mount=type=tmpfs,target=/d/x {command}\n");
        attempt(&scene, &dockerfile, &[]);
    }
}

#[test]
fn b4_malformed_files_are_refused() {
    let scene = scene("B4");
    let long = format!("FROM scratch\nLABEL a={}\n", "x".repeat(10 * 1024 * 1024));
    let many = "FROM scratch\n".to_owned() + &"ENV a=b\n".repeat(30_000);
    let rows = [
        "",
        "\n\n",
        "#",
        "FROM",
        "FROM scratch\nCOPY --from=-1 a b\n",
        "FROM scratch\nCOPY --from=99999999999999999999 a b\n",
        "FROM $X\n",
        "ARG X=$X\nFROM $X\n",
        "FROM scratch AS a\nFROM a AS a\nCOPY --from=a x y\n",
        "FROM scratch\nCOPY <<A <<B /x\nA\n",
        "FROM scratch\nRUN --mount=type=cache,id=\0,target=/x x\n",
        "FROM scratch\nENV \\\n",
        "\u{feff}",
        "FROM scratch\nCOPY [\"\"] /\n",
        &long,
        &many,
    ];
    for row in rows {
        let outcome = attempt(&scene, row, &[]);
        assert!(
            outcome.stderr.len() < 64 * 1024,
            "a message of {} bytes",
            outcome.stderr.len()
        );
    }
    let bytes = [b"FROM scratch\nENV A=".as_slice(), &[0xff, 0xfe]].concat();
    scene.write("context/Dockerfile", bytes);
    let _ = scene
        .run("teu-build", ["build", "context"])
        .fails(1, &["read the Dockerfile"]);
}

#[test]
fn b5_ids_and_names_stay_names() {
    let scene = scene("B5");
    let secret = scene.write("told", "x");
    let given = format!("id=../../x,src={}", secret.display());
    for row in [
        "RUN --mount=type=cache,id=../../../../outside,target=/c touch /c/x",
        "RUN --mount=type=cache,id=/etc,target=/c touch /c/x",
        "RUN --mount=type=secret,id=../../x,target=/../../s [ -f /s ]",
        "RUN --mount=type=secret,id=../../x true",
        "COPY <<../../../outside/new /\nx\n../../../outside/new",
        "RUN <<../../x\n#!/bin/sh\ntrue\n../../x",
    ] {
        attempt(
            &scene,
            &format!("FROM busybox\n{row}\n"),
            &["--secret", &given],
        );
    }
}

#[test]
fn b6_b14_repositories_are_confined() {
    let scene = scene("B6");
    let outside = scene.path("outside").display().to_string();
    git(
        &scene,
        &format!(
            "git init -q -b main other; (cd other; cp -r {outside}/. .; git add .; git commit -qm 1)
             git init -q -b main r; cd r
             ln -s {outside} absolute; ln -s ../../../../../.. up; ln -s {outside}/secret Dockerfile; mkdir d; ln -s ../absolute d/in
             printf '* filter=evil\\n*.x export-subst\\n' > .gitattributes
             printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = file://{outside}/../git/other\\n' > .gitmodules
             git add .; git update-index --add --cacheinfo 160000,$(cd ../other && git rev-parse HEAD),s
             git commit -qm 1; git branch plain; git checkout -q plain; git rm -q --cached s; git rm -qf .gitmodules; git commit -qm 2"
        ),
    );
    let server = GitServer::start(&scene);
    let url = server.url("r");
    for directory in ["absolute", "up", "up/etc", "d/in", "../..", "/", "none"] {
        let outcome = attempt(
            &scene,
            &format!("FROM scratch\nADD {url}#plain:{directory} /o/\n"),
            &[],
        );
        if outcome.status.success() {
            assert!(
                !files(&scene).iter().any(|line| line.contains(SECRET)),
                "{directory}"
            );
        }
    }
    let _ = attempt(&scene, &format!("FROM scratch\nADD {url}#main /o/\n"), &[])
        .fails(1, &["submodules"]);
    let _ = attempt(
        &scene,
        &format!("FROM scratch\nADD {url}?branch=main&submodules=false /o/\n"),
        &[],
    )
    .exits(0);
    // A Dockerfile that is a link leads nowhere but into the repository.
    let linked = beside(&scene, || {
        scene.run("teu-build", ["build", &format!("{url}#plain")])
    });
    let _ = linked.fails(1, &["read the Dockerfile"]);
    let hostile = [
        format!("{url}#--upload-pack=touch${{IFS}}{outside}/new"),
        format!("{url}?ref=--upload-pack%3Dx"),
        "ext::sh -c touch% x".to_owned(),
        format!("file://{outside}/../git/other/.git"),
        "ssh://-oProxyCommand=x/y".to_owned(),
        "git@-oProxyCommand=x:y".to_owned(),
        format!("{url}#main:../../outside"),
    ];
    for place in hostile {
        let dockerfile = format!("FROM scratch\nADD [\"{place}\", \"/o/\"]\n");
        let outcome = attempt(&scene, &dockerfile, &[]);
        assert!(!outcome.status.success(), "{place} was added");
        let outcome = beside(&scene, || scene.run("teu-build", ["build", &place]));
        assert!(!outcome.status.success(), "{place} was a context");
    }
}

#[test]
fn b7_b18_archives_stay_where_they_are_unpacked() {
    let scene = scene("B7");
    let outside = scene.path("outside").display().to_string();
    for (name, bytes) in evil_archives(&outside) {
        scene.write("context/evil.tar", &bytes);
        for row in [
            "ADD evil.tar /o/".to_owned(),
            "ADD evil.tar /".to_owned(),
            format!("RUN ln -s {outside} /l\nADD evil.tar /l/\nRUN [ ! -e /bin/evil ]"),
        ] {
            let outcome = attempt(
                &scene,
                &format!("FROM busybox\n{row}\nRUN [ -f /etc/passwd -a -x /bin/sh ]\n"),
                &[],
            );
            assert!(!outcome.stderr.contains("exit status"), "{name}: {outcome}");
        }
        let context = [
            &bytes[..bytes.len() - 1024],
            &archive(&[Member {
                name: b"Dockerfile",
                content: b"FROM scratch\nCOPY . /\n",
                ..Member::default()
            }]),
        ]
        .concat();
        beside(&scene, || {
            scene.run_with_input("teu-build", ["build", "-q", "-t", "result", "-"], &context)
        });
    }
}

#[test]
fn b8_mounts_show_nothing_of_the_host() {
    let scene = scene("B8");
    let outside = scene.path("outside").display().to_string();
    scene.shell(&format!(
        "ln -s {outside} context/o; ln -s / context/root; ln -s ../../../../../../.. context/up"
    ));
    let rows = [
        (
            "RUN --mount=source=o,target=/m [ ! -e /m/secret ]".to_owned(),
            false,
        ),
        (
            format!("RUN --mount=source=root,target=/m [ ! -e /m{outside}/secret ]"),
            true,
        ),
        (
            format!("RUN --mount=source=up,target=/m [ ! -e /m{outside}/secret ]"),
            true,
        ),
        (
            format!("RUN --mount=source=../../../../{outside},target=/m true"),
            false,
        ),
        (
            format!(
                "FROM busybox AS evil\nRUN rm -rf /srv && ln -s / /srv && ln -s {outside} /o\nFROM busybox\nRUN --mount=from=evil,source=/srv,target=/m [ ! -e /m{outside}/secret ]"
            ),
            true,
        ),
        (
            format!(
                "FROM busybox AS evil\nRUN ln -s {outside} /o\nFROM busybox\nRUN --mount=from=evil,source=/o,target=/m true"
            ),
            false,
        ),
        (
            "RUN --mount=type=bind,target=/m,bind-propagation=shared true".to_owned(),
            false,
        ),
        (
            "RUN --mount=type=bind,target=/m,bind-propagation=shared,rw=true true".to_owned(),
            false,
        ),
        (
            "RUN --mount=type=bind,target=/m,options=shared true".to_owned(),
            false,
        ),
        (
            "RUN --mount=type=cache,id=../../..,source=../..,target=/c [ -z \"$(ls /c)\" ]"
                .to_owned(),
            true,
        ),
        ("RUN --mount=type=bind,target=/ true".to_owned(), false),
        (
            "RUN --mount=target=/m ! grep -q shared: /proc/self/mountinfo".to_owned(),
            true,
        ),
    ];
    for (row, builds) in rows {
        let outcome = attempt(&scene, &format!("FROM busybox\n{row}\n"), &[]);
        assert_eq!(outcome.status.success(), builds, "{row}: {outcome}");
    }
}

#[test]
fn b9_b19_links_that_change_under_a_copy_lead_nowhere() {
    let scene = scene("B9");
    scene.shell("mkdir context/swap; echo inside > context/swap/secret");
    let stop = AtomicBool::new(false);
    let (swap, outside) = (scene.path("context/swap"), scene.path("outside"));
    let kept = scene.path("context/kept");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = std::fs::rename(&swap, &kept);
                let _ = std::os::unix::fs::symlink(&outside, &swap);
                let _ = std::fs::remove_file(&swap);
                let _ = std::fs::rename(&kept, &swap);
            }
        });
        for row in [
            "COPY swap /o",
            "COPY swap/secret /o",
            "COPY s* /o/",
            "RUN --mount=source=swap,target=/m cat /m/secret > /o || true",
        ] {
            for _ in 0..8 {
                attempt(&scene, &format!("FROM busybox\n{row}\n"), &["--no-cache"]);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn b11_passwords_and_the_environment_stay_out() {
    let scene = scene("B11");
    let web = Web::start();
    web.put("/f", "content");
    web.put("/away", format!("->http://localhost:{}/f", web.port));
    let login = |path: &str| web.url(path).replace("http://", "http://user:pass-canary@");
    scene.write(
        "context/Dockerfile",
        format!(
            "FROM busybox\nADD {} {} /o/\nRUN ! env | grep -q canary\n",
            login("/f"),
            login("/away")
        ),
    );
    let mut command = scene.command(
        "teu-build",
        ["build", "--progress", "plain", "-t", "result", "context"],
    );
    command
        .env("CANARY", "env-canary")
        .env("GIT_TOKEN", "env-canary");
    let outcome =
        teu_integration_tests::command::run_limited(command, b"", Duration::from_secs(60)).exits(0);
    assert!(
        !outcome.stdout.contains("canary") && !outcome.stderr.contains("pass-canary"),
        "{outcome}"
    );
    let kept = scene.shell("grep -rlE '(pass|env)-canary' data || true");
    assert!(kept.is_empty(), "in {kept}");
    let sent: Vec<String> = web
        .asked()
        .into_iter()
        .filter(|head| head.to_lowercase().contains("authorization"))
        .collect();
    assert_eq!(
        sent.len(),
        2,
        "to its own server, and not where that leads: {sent:?}"
    );
    assert!(
        sent.iter().all(|head| !head.contains("localhost")),
        "{sent:?}"
    );
    git(
        &scene,
        "git init -q -b main r; cd r; echo 1 > f; git add .; git commit -qm 1",
    );
    let refused = build(
        &scene,
        &format!("FROM scratch\nADD {} /\n", login("/x.git")),
        &[],
    );
    assert!(
        !format!(
            "{}{}",
            refused.stdout,
            refused.stderr.replace(&login("/x.git"), "")
        )
        .contains("canary"),
        "{refused}"
    );
}

#[test]
fn b13_an_image_with_the_same_history_is_another() {
    let scene = scene("B13");
    for content in ["one", "two"] {
        scene.shell(&format!(
            "rm -rf r; cp -a busybox-rootfs r; printf {content} > r/f; tar -C r -cf r.tar ."
        ));
        scene
            .run("teu-store", ["import", "r.tar", "base"])
            .succeeds();
        let _ = build(&scene, "FROM base\nRUN cat /f > /g\n", &[]).exits(0);
        assert!(files(&scene).contains(&format!("g={content}")));
    }
}

#[test]
fn b15_programs_of_the_image_run_in_the_image_alone() {
    let scene = scene("B15");
    let ran = scene.path("outside/ran").display().to_string();
    let trojan = format!("#!/bin/busybox sh\ntouch {ran} 2>/dev/null\nexit 0\n");
    scene.write("trojan", trojan);
    scene.shell("chmod 755 trojan; for name in tar gzip unpigz xz bzip2 zstd git id getent; do rm -f busybox-rootfs/bin/$name; cp trojan busybox-rootfs/bin/$name; done
        echo 'passwd: evil' > busybox-rootfs/etc/nsswitch.conf; tar -C busybox-rootfs -cf r.tar .");
    scene
        .run("teu-store", ["import", "r.tar", "trojan"])
        .succeeds();
    let dockerfile = "FROM trojan\nENV PATH=/bin\nADD t.tgz t.tar /o/\nCOPY --chown=app:extra a.txt /\nUSER app\nWORKDIR /w\nRUN [ -f /o/m/f ]\n";
    let _ = attempt(&scene, dockerfile, &[]).exits(0);
}

#[test]
fn b17_paths_end_at_the_root() {
    let scene = scene("B17");
    for row in [
        "COPY a.txt /../../../../outside/new",
        "COPY a.txt ../../../../../outside/new",
        "COPY --link a.txt /../../outside/new",
        "COPY --parents ../../../outside/secret /",
        "COPY --parents ./../outside/./secret /",
        "COPY --exclude=../../outside --exclude=/.. . /",
        "COPY ../outside/secret /",
        "COPY ../../../../../../../../../etc/shadow /",
        "ADD t.tar /../../outside/",
        "WORKDIR ../../../../outside",
        "WORKDIR /a/../../..",
    ] {
        let outcome = attempt(&scene, &format!("FROM scratch\n{row}\n"), &[]);
        if outcome.status.success() {
            assert!(
                !files(&scene).iter().any(|line| line.contains("root:")),
                "{row}"
            );
        }
    }
}

#[test]
fn b20_bombs_go_off_quietly() {
    let scene = scene("B20");
    let doubled: String = (0..40).map(|_| "ARG A=x$A$A\n").collect();
    let globs = "*?".repeat(500);
    let rows = [
        format!("FROM scratch\n{doubled}"),
        format!("{doubled}FROM $A\n"),
        format!("FROM scratch\nENV A=x\n{}", "ENV A=$A$A\n".repeat(40)),
        format!("FROM scratch\nENV A={}\n", "${a:-".repeat(10_000)),
        format!(
            "FROM scratch\nENV V={}b A=${{V##{}}}\n",
            "a".repeat(20_000),
            "*a".repeat(2_000)
        ),
        format!("FROM scratch\nCOPY {globs} /\n"),
        format!("FROM scratch\nCOPY {} /\n", format!("{globs} ").repeat(200)),
        format!("FROM scratch\nCOPY --exclude={} . /\n", "**/".repeat(2_000)),
        format!("FROM scratch\nENV {}\n", "a=b ".repeat(100_000)),
        format!("FROM scratch\nCOPY <<E /\n{}\nE\n", "$A".repeat(100_000)),
        format!(
            "FROM scratch\nRUN {} x\n",
            "--mount=type=tmpfs,target=/x ".repeat(20_000)
        ),
        format!("FROM scratch\nRUN {}\n", "<<E ".repeat(20_000)),
        "FROM scratch AS a\n".repeat(10_000),
    ];
    for (number, row) in rows.iter().enumerate() {
        scene.write("context/Dockerfile", row);
        let begin = Instant::now();
        // Half a gigabyte of address space, of which most is the program itself.
        let outcome = scene.run(
            "sh",
            [
                "-c",
                &format!(
                    "ulimit -v 1000000; exec {} --root data/store plan context >/dev/null",
                    teu_integration_tests::binary("teu-build").display()
                ),
            ],
        );
        assert!(
            outcome.code() < 100 && !outcome.stderr.contains("panicked"),
            "{number}: {outcome}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{number}: {:?}",
            begin.elapsed()
        );
    }
    scene.write(
        "context/.dockerignore",
        "**/a*b*c*d*e*f*g*h*i*j*k*l\n".repeat(5_000),
    );
    scene.shell(&format!(
        "mkdir -p context/deep/{0}; touch context/deep/{0}/{0}",
        "abcdefghijk".repeat(10)
    ));
    let begin = Instant::now();
    let _ = attempt(&scene, "FROM scratch\nCOPY . /\n", &[]).exits(0);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}
