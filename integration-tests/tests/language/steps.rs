//! security.md, rows B3, B10, B12 and B16: what a step may try, and what is left of what it was shown.

use crate::{build, files, standard_context};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use teu_integration_tests::{Scene, tree};

const SECRET: &str = "sentinel-of-a-secret";

fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    standard_context(&scene);
    scene
}

#[test]
fn b3_nothing_runs_that_asks_for_more_than_was_allowed() {
    let scene = scene("B3");
    for (row, said) in [
        ("RUN --security=insecure", "security.insecure"),
        ("RUN --network=host", "network.host"),
        ("RUN --security=zzz", "zzz"),
        ("RUN --network=zzz", "zzz"),
        ("RUN --security=sandbox --security=insecure", "security"),
    ] {
        // What would have run first did not, either.
        let dockerfile = format!("FROM busybox\nRUN echo early\n{row} echo late\n");
        scene.write("context/Dockerfile", dockerfile);
        let outcome = scene.run("teu-build", ["build", "--progress", "plain", "context"]);
        let outcome = outcome.fails(1, &[said]);
        assert!(!outcome.stderr.contains("] RUN echo early"), "{outcome}");
    }
}

#[test]
fn b10_writes_into_a_bound_context_are_thrown_away() {
    let scene = scene("B10");
    let writes = "cd /c && echo x >> a.txt && rm -rf d && mkdir new && chmod 000 b.txt && chown 9:9 etc && mv c.md moved && ln -s x y && touch -d @1 s";
    scene.write("other/f", "f");
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=bind,target=/c,rw {writes}\nRUN --mount=type=bind,from=other,target=/o,rw echo x > /o/f && rm /o/f\nRUN --mount=type=bind,target=/c ! touch /c/x && ! chmod 777 /c/a.txt && ! rm /c/b.txt\nRUN [ ! -e /c -a ! -e /o ]\n"
    );
    scene.write("file", &dockerfile);
    let seen = || {
        let describe = |name: &str| tree::describe(&scene.path(name));
        (describe("context"), describe("other"))
    };
    let arguments = [
        "build",
        "-q",
        "-f",
        "file",
        "--build-context",
        "other=other",
        "context",
    ];
    // The same with rules, for which the context is seen through an overlay.
    for ignored in ["", "s/run.sh\n"] {
        scene.write("context/.dockerignore", ignored);
        let before = seen();
        scene.run("teu-build", arguments).succeeds();
        assert_eq!(seen(), before, "{ignored:?}");
    }
}

#[test]
fn b12_secrets_are_in_no_file_after_a_failure_and_after_a_kill() {
    let scene = scene("B12");
    scene.write("secret", SECRET);
    let given = ["--secret", "id=k,src=secret"];
    let found = || scene.shell(&format!("grep -rl {SECRET} data state 2>/dev/null || true"));
    let mounts = "--mount=type=secret,id=k --mount=type=secret,id=k,env=K,target=/s";
    let dockerfile =
        format!("FROM busybox\nRUN {mounts} cp /run/secrets/k /copy && echo $K > /x && exit 3\n");
    let _ = build(&scene, &dockerfile, &given).fails(1, &["exit status 3"]);
    assert_eq!(found(), "");
    // Killed while it runs: the step's own files are there, and what it was shown is in memory alone.
    let dockerfile = format!(
        "FROM busybox\nRUN {mounts} --mount=type=cache,target=/c touch /c/runs && sleep 1000\n"
    );
    scene.write("context/Dockerfile", dockerfile);
    let arguments = ["build", "-q", given[0], given[1], "context"];
    let mut child = scene
        .command("teu-build", arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    scene.wait_until("the step runs", || {
        scene.shell("find data/store/cache/mounts -name runs 2>/dev/null | wc -l") == "1"
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(found(), "");
    // The next build puts away what is left.
    let _ = build(&scene, "FROM busybox\nRUN true\n", &[]).exits(0);
    assert_eq!(found(), "");
    let left = scene.shell("ls data/store/tmp data/store/roots | grep -v : | grep . || true");
    assert_eq!(left, "");
}

/// A stage that other steps copy from cannot change any more: what it makes later is another tree.
#[test]
fn b16_copies_see_one_state_of_a_stage() {
    let scene = scene("B16");
    scene.write("outside/secret", SECRET);
    let outside = scene.path("outside");
    let dockerfile = format!(
        "FROM busybox AS one\nRUN mkdir -p /t/real && echo inside > /t/real/secret && ln -s real /t/way\n\
         FROM one AS two\nRUN rm /t/way && ln -s {0} /t/way && sleep 0.2\n\
         FROM scratch\nCOPY --from=one /t/way/ /one/\nCOPY --from=two /t/real/ /two/\nCOPY --from=one /t/way/secret /three\n",
        outside.display()
    );
    let _ = build(&scene, &dockerfile, &[]).exits(0);
    assert_eq!(
        files(&scene),
        [
            "one/",
            "one/secret=inside\\n",
            "three=inside\\n",
            "two/",
            "two/secret=inside\\n"
        ]
    );
    let leads_out = dockerfile.replace("--from=two /t/real/", "--from=two /t/way/");
    let outcome = build(&scene, &leads_out, &[]);
    assert!(!outcome.status.success(), "{outcome}");
    assert_eq!(scene.shell(&format!("grep -rl {SECRET} data || true")), "");
}
