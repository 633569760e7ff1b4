//! What builds leave behind to be faster, what they say while they run, and how they end.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;
use teu_integration_tests::Scene;

fn scene(name: &str, dockerfile: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    scene.write("context/a.txt", "a\n");
    scene.write("context/Dockerfile", dockerfile);
    scene
}

fn build(scene: &Scene) -> String {
    let outcome = scene.run("teu-build", ["build", "--progress", "plain", "context"]);
    outcome.exits(0).stderr.clone()
}

fn care(scene: &Scene, arguments: &[&str]) -> String {
    scene.run("teu-build", arguments).succeeds()
}

#[test]
fn cache_mounts_have_names_and_travel() {
    let scene = scene(
        "mounts",
        "FROM busybox\nRUN --mount=type=cache,id=pip,target=/c,uid=7 mkdir -m 750 /c/d && echo x > /c/d/f && ln /c/d/f /c/g && chown 5:6 /c/d/f && ln -s d /c/l\n",
    );
    build(&scene);
    let list: Value =
        serde_json::from_str(&care(&scene, &["mounts", "ls", "--format", "json"])).unwrap();
    assert_eq!(
        list,
        serde_json::json!([{"id": "pip", "mode": 0o755, "uid": 7, "gid": 0}])
    );
    assert!(care(&scene, &["mounts", "ls"]).contains("pip "));
    care(&scene, &["mounts", "export", "pip", "saved.tar"]);
    let members =
        scene.shell("tar tvf saved.tar --numeric-owner | awk '{print $1, $2, $6, $7, $8}'");
    for part in [
        "drwxr-x--- 0/0 d/",
        "-rw-r--r-- 5/6 d/f",
        "hrw-r--r-- 5/6 g link to",
        "lrwxrwxrwx 0/0 l -> d",
    ] {
        assert!(members.contains(part), "{part:?} in {members}");
    }
    care(&scene, &["mounts", "rm", "pip"]);
    assert_eq!(care(&scene, &["mounts", "ls", "--format", "json"]), "[]");
    care(
        &scene,
        &["mounts", "import", "pip", "saved.tar", "--owner", "7"],
    );
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=pip,target=/c,uid=7 [ $(stat -c %u:%a /c) = 7:755 -a $(stat -c %u:%g /c/g) = 5:6 -a $(stat -c %h /c/d/f) = 2 -a $(stat -c %a /c/d) = 750 -a -L /c/l ]\n",
    );
    build(&scene);
    scene
        .run("teu-build", ["mounts", "export", "none", "-"])
        .fails(1, &["there is no cache mount \"none\""]);
}

#[test]
fn the_cache_is_measured_and_pruned() {
    let scene = scene(
        "prune",
        "FROM busybox\nRUN --mount=type=cache,target=/c head -c 3000000 /dev/urandom > /c/f && head -c 5000000 /dev/urandom > /big\nCOPY a.txt /\n",
    );
    build(&scene);
    let df = || -> Vec<(u64, u64)> {
        let text = care(&scene, &["df", "--format", "json"]);
        let parts: Value = serde_json::from_str(&text).unwrap();
        let part = |part: &Value| {
            (
                part["count"].as_u64().unwrap(),
                part["bytes"].as_u64().unwrap(),
            )
        };
        parts.as_array().unwrap().iter().map(part).collect()
    };
    let full = df();
    // A copy has two records: what it does, and what is in its layer.
    assert!(full[0].0 == 3 && full[0].1 > 5_000_000, "{full:?}");
    assert!(full[1].0 == 1 && full[1].1 > 3_000_000, "{full:?}");
    care(&scene, &["prune", "--keep-duration", "1h"]);
    assert_eq!(df(), full, "all was used within the hour");
    care(&scene, &["prune", "--type", "steps"]);
    let rest = df();
    assert!(rest[0].0 == 0 && rest[1] == full[1], "{rest:?}");
    // The image had no name: its layers went with the records.
    let big = scene.shell("find data/store/tars -size +4500k | wc -l");
    assert_eq!(big, "0");
    care(&scene, &["prune"]);
    assert_eq!(df().iter().map(|part| part.0).sum::<u64>(), 0);
    assert!(!build(&scene).contains("CACHED"));
}

#[test]
fn programs_read_progress() {
    let scene = scene(
        "rawjson",
        "FROM busybox\nRUN echo said; echo more\nCOPY a.txt /\nRUN exit 3\n",
    );
    let outcome = scene.run("teu-build", ["build", "--progress", "rawjson", "context"]);
    let lines: Vec<Value> = outcome
        .stderr
        .lines()
        .map_while(|line| serde_json::from_str(line).ok())
        .collect();
    let vertexes: Vec<&Value> = lines
        .iter()
        .flat_map(|line| line["vertexes"].as_array())
        .flatten()
        .collect();
    assert_eq!(
        vertexes
            .iter()
            .filter(|vertex| vertex["completed"].is_string())
            .count(),
        3
    );
    assert!(vertexes.iter().any(|vertex| vertex["error"].is_string()
        && vertex["name"].as_str().unwrap().contains("RUN exit 3")));
    let logs: Vec<&str> = lines
        .iter()
        .flat_map(|line| line["logs"].as_array())
        .flatten()
        .filter_map(|log| log["data"].as_str())
        .collect();
    assert_eq!(logs, ["c2FpZAo=", "bW9yZQo="]);
    outcome.fails(1, &["exit status 3", "4 | RUN exit 3"]);
    let dot = care(&scene, &["plan", "--format", "dot", "context"]);
    for part in [
        "digraph plan {",
        "step0 -> image0;",
        "step1 -> context [style=dashed];",
        "result -> step2;",
    ] {
        assert!(dot.contains(part), "{part:?} in {dot}");
    }
}

#[test]
fn signals_end_a_build_with_their_number() {
    let scene = scene("signals", "FROM busybox\nRUN echo started; sleep 600\n");
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut command = scene.command("teu-build", ["build", "-q", "context"]);
        let child = command
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        scene.wait_until("the step runs", || {
            !scene
                .shell("ls data/store/tmp/*/runtime 2>/dev/null || true")
                .is_empty()
        });
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(code));
        let left =
            scene.shell("ls -A data/store/tmp data/store/roots | grep -v : | grep . || true");
        assert_eq!(left, "");
    }
}

#[test]
fn what_is_not_reproducible_is_named() {
    let verify = ["build", "--progress", "plain", "--verify-repro", "context"];
    let scene = scene(
        "repro",
        "FROM busybox AS s\nRUN echo same > /same; cat /proc/sys/kernel/random/uuid > /uuid\nRUN cp /uuid /copy\nFROM busybox\nCOPY --from=s /same /\n",
    );
    let outcome = scene.run("teu-build", verify);
    outcome.fails(
        1,
        &["not reproducible", "[s 1/2] RUN", "    /uuid: changed"],
    );
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nCOPY a.txt /\nRUN date > /dev/null; echo x > /x\nWORKDIR /w\n",
    );
    scene.run("teu-build", verify).succeeds();
    // The first run's layers are the cache's.
    assert!(build(&scene).contains("#2 CACHED"));
    // Times as they are, which then is no build twice.
    scene.shell("touch -d 2011-01-01 context/a.txt");
    let keep = [
        "build",
        "-q",
        "--timestamps",
        "keep",
        "-o",
        "kept",
        "context",
    ];
    scene.run("teu-build", keep).succeeds();
    assert_eq!(
        scene.shell("stat -c %y kept/a.txt | cut -c1-10"),
        "2011-01-01"
    );
    scene.shell(
        "touch -d @$(($(date +%s) - 60)) then && test kept/x -nt then && test kept/w -nt then",
    );
    scene
        .run("teu-build", ["build", "-q", "-o", "clamped", "context"])
        .succeeds();
    assert_eq!(
        scene.shell("stat -c %y clamped/a.txt clamped/x | cut -c1-10 | uniq"),
        "1980-01-01"
    );
}

#[test]
fn a_shell_in_what_a_failed_step_left() {
    let scene = scene(
        "shell",
        "FROM busybox\nENV V=seen\nRUN --mount=type=tmpfs,target=/t echo left > /left && exit 4\n",
    );
    let arguments = [
        "build",
        "--progress",
        "plain",
        "--on-failure",
        "shell",
        "context",
    ];
    let input = b"cat /left\necho $V\ngrep -c ' /t tmpfs' /proc/mounts\nexit 9\n";
    let outcome = scene.run_with_input("teu-build", arguments, input);
    assert_eq!(outcome.stdout, "left\nseen\n1\n");
    outcome.fails(
        1,
        &["[stage-0 1/1] failed; here is a shell", "exit status 4"],
    );
    let left = scene.shell("ls -A data/store/tmp data/store/roots | grep -v : | grep . || true");
    assert_eq!(left, "");
}

#[test]
fn a_plan_is_executed_as_its_dockerfile_is() {
    let dockerfile = "FROM busybox AS s\nARG A=1\nRUN --mount=type=cache,target=/c --mount=type=bind,target=/x echo $A > /made && cp /x/a.txt /copied\nFROM scratch\nWORKDIR /w\nCOPY --from=s --chmod=u=rwX,go= /made /copied ./\nCOPY <<E /inline\ntext\nE\nENV B=2\nCMD [\"x\"]\n";
    let scene = scene("plans", dockerfile);
    let id = care(&scene, &["build", "-q", "context"]);
    let plan = care(&scene, &["plan", "context"]);
    scene.write("plan.json", &plan);
    scene.write("context/Dockerfile", "not read\n");
    let again = [
        "build",
        "-q",
        "--no-cache",
        "--plan",
        "plan.json",
        "context",
    ];
    assert_eq!(care(&scene, &again), id);
    let piped = ["build", "-q", "--plan", "-", "context"];
    assert_eq!(
        scene
            .run_with_input("teu-build", piped, plan.as_bytes())
            .succeeds(),
        id
    );
    let printed = care(&scene, &["plan", "--plan", "plan.json", "context"]);
    assert_eq!(printed, plan);
    // What it says of a step that fails, and what it may not ask for.
    scene.write("plan.json", plan.replace("&& cp", "&& false && cp"));
    let place = "2 | RUN --mount=type=cache";
    scene
        .run("teu-build", again)
        .fails(1, &["plan.json:2:1", "exit status 1", &place[4..]]);
    scene.write(
        "plan.json",
        plan.replace("\"insecure\": false", "\"insecure\": true"),
    );
    scene
        .run("teu-build", again)
        .fails(1, &["execute the plan", "--allow security.insecure"]);
    scene.write("plan.json", "{}");
    scene
        .run("teu-build", again)
        .fails(1, &["it is no plan", "missing field"]);
}

/// With SIGCHLD ignored the end of a step is not told, unless it is asked for.
#[test]
fn a_caller_that_hears_no_signals_gets_its_build() {
    let scene = scene(
        "deaf",
        "FROM busybox\nRUN { grep -E '^Sig(Blk|Ign)' /proc/self/status; :; }\n",
    );
    let words = ["build", "--progress", "plain", "context"];
    let outcome = scene.run_deaf("teu-build", words);
    let said = &outcome.exits(0).stderr;
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn steps_trust_certificates_that_no_image_has() {
    let scene = Scene::new("certificates");
    scene.busybox("busybox");
    let certificate =
        |word: &str| format!("-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n");
    scene.write("ours.pem", certificate("b3Vycw=="));
    scene.write("context/certs", certificate("dGhlaXJz"));
    let base = "FROM busybox\nCOPY --chmod=640 certs /etc/ssl/certs/ca-certificates.crt\nRUN ln -s certs/ca-certificates.crt /etc/ssl/cert.pem && chmod 751 /etc/ssl && chown 5:6 /etc/ssl\n";
    let build = |more: &str, arguments: &[&str]| {
        scene.write("context/Dockerfile", format!("{base}{more}"));
        let all = [&["build", "--progress", "plain"], arguments, &["context"]].concat();
        scene.run("teu-build", all)
    };
    let trusting = ["--ca-bundle", "ours.pem"];
    let sees = "RUN for file in /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem $SSL_CERT_FILE $CURL_CA_BUNDLE; do grep b3Vycw $file || exit 1; done; stat -c %a:%u:%g /etc/ssl > /was\n";
    let id = build(sees, &[&trusting[..], &["-o", "out", "--load"]].concat())
        .exits(0)
        .stdout;
    assert_eq!(
        scene.shell("cat out/etc/ssl/cert.pem"),
        scene.shell("cat context/certs")
    );
    assert_eq!(
        scene.shell("cat out/was; grep -rl b3Vycw out data/store/tars || true"),
        "751:5:6"
    );
    // Nothing of it is in the key.
    let again = build(sees, &[]).exits(0);
    assert_eq!(again.stdout, id);
    assert_eq!(
        again.stderr.matches("CACHED").count(),
        3,
        "{}",
        again.stderr
    );
    // A step may install certificates, and own variables count; what would take ours along is refused.
    let _ = build("ENV SSL_CERT_FILE=/own\nRUN [ $SSL_CERT_FILE = /own ] && echo new > /n && mv -f /n /etc/ssl/certs/ca-certificates.crt\n", &trusting).exits(0);
    build("RUN echo more >> /etc/ssl/cert.pem\n", &trusting)
        .fails(1, &["/etc/ssl/certs/ca-certificates.crt", "--ca-bundle"]);
    build(sees, &["--ca-bundle", "context/Dockerfile"]).fails(1, &["no certificate in PEM"]);
}

#[test]
fn an_image_of_a_layout_is_named_by_its_digest() {
    let scene = scene("layouts", "FROM busybox\nCOPY a.txt /\n");
    care(
        &scene,
        &[
            "build",
            "-q",
            "-o",
            "type=oci,dest=layout,tar=false,name=x:1",
            "context",
        ],
    );
    let digest = scene.shell("jq -r '.manifests[0].digest' layout/index.json");
    scene.write(
        "other/Dockerfile",
        "FROM it\nRUN [ $(cat /a.txt) = a ] && grep '127.0.0.1.here' /etc/hosts\n",
    );
    let build = |place: &str| {
        let context = format!("it=oci-layout://layout{place}");
        scene.run(
            "teu-build",
            [
                "build",
                "-q",
                "--build-context",
                &context,
                "--add-host",
                "here:host-gateway",
                "other",
            ],
        )
    };
    build(&format!("@{digest}")).succeeds();
    build(&format!(":1@{digest}")).succeeds();
    let other = format!("sha256:{}", "0".repeat(64));
    build(&format!("@{other}")).fails(1, &["it holds no sha256:000"]);
    build("@sha256:0").fails(1, &["PATH[:TAG][@DIGEST]"]);
}

#[test]
fn what_is_ignored_is_hidden_from_steps_that_bind_the_context() {
    const LIST: &str = "cd /c && find . ! -name . | sort && stat -c '%a %u %Y' sub && stat -c %a .";
    let scene = scene(
        "hidden",
        &format!(
            "FROM busybox\n\
             RUN --mount=type=bind,target=/c ({LIST}) > /seen\n\
             RUN --mount=type=bind,target=/c,rw echo x > /c/new && rm /c/a.txt && ({LIST}) > /written\n\
             RUN --mount=type=bind,source=sub/deep,target=/c ls -A /c > /below\n\
             RUN --mount=type=bind,source=a.txt,target=/f,rw echo b >> /f && cat /f > /file\n"
        ),
    );
    scene.write(
        "context/.dockerignore",
        "secret\nsub/*\n!sub/deep/kept\n*.key\n",
    );
    for file in [
        "secret/f",
        "sub/left",
        "sub/deep/kept",
        "sub/deep/not",
        "x.key",
    ] {
        scene.write(format!("context/{file}"), file);
    }
    scene.shell(
        "chmod 750 context context/sub && chown 7 context/sub && touch -d @1000000000 context/sub",
    );
    let built = ["build", "-q", "-o", "type=local,dest=out", "context"];
    scene.run("teu-build", built).succeeds();
    let read = |name: &str| std::fs::read_to_string(scene.path("out").join(name)).unwrap();
    let shown = "./.dockerignore\n./Dockerfile\n./a.txt\n./sub\n./sub/deep\n./sub/deep/kept\n750 7 1000000000\n750\n";
    assert_eq!(read("seen"), shown);
    let written = shown.replace("./a.txt", "./new");
    assert_eq!(read("written"), written);
    assert_eq!(read("below"), "kept\n");
    assert_eq!(read("file"), "a\nb\n");
    for (source, fine) in [
        ("x.key", false),
        ("secret", false),
        ("sub/left", false),
        ("sub", true),
    ] {
        let line = format!("FROM busybox\nRUN --mount=type=bind,source={source},target=/m true\n");
        scene.write("context/Dockerfile", line);
        let outcome = scene.run("teu-build", ["build", "-q", "context"]);
        assert_eq!(outcome.code() == 0, fine, "{source}: {}", outcome.stderr);
    }
}
