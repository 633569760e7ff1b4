//! What makes a step run again: build, change one thing, build again, and what is said about it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use teu_integration_tests::Scene;

/// How a row builds.
struct Row<'a> {
    /// What it is about.
    what: &'a str,
    /// Built twice, but for what `edit` replaces in it the second time.
    dockerfile: &'a str,
    edit: Option<(&'a str, &'a str)>,
    /// A change of the context between both builds.
    change: &'a str,
    /// Arguments of both builds.
    arguments: [&'a [&'a str]; 2],
    /// The steps that run the second time, by their numbers.
    ran: &'a [usize],
}

const FILES: &str =
    "FROM busybox\nCOPY a.txt /\nRUN cat /a.txt\nCOPY . /all\nRUN ls /all >/dev/null\n";

const ROW: Row<'_> = Row {
    what: "",
    dockerfile: FILES,
    edit: None,
    change: "true",
    arguments: [&[], &[]],
    ran: &[],
};

fn build(scene: &Scene, dockerfile: &str, arguments: &[&str]) -> String {
    scene.write("Dockerfile", dockerfile);
    let mut all = vec!["build", "--progress", "plain", "-f", "Dockerfile"];
    all.extend(arguments);
    all.push("context");
    let outcome = scene.run("teu-build", all).exits(0);
    outcome.stderr.clone()
}

/// The steps that were not reused.
fn ran(output: &str) -> Vec<usize> {
    (1..10)
        .filter(|step| output.contains(&format!("\n#{step} DONE")))
        .collect()
}

fn fill(scene: &Scene) {
    scene.shell("rm -rf context; mkdir -p context/d && cd context && echo a > a.txt && echo b > b.txt && echo x > d/x.txt && chmod 644 a.txt b.txt d/x.txt && chmod 755 d .");
}

fn check(rows: &[Row<'_>]) {
    let scene = Scene::new("rows");
    scene.busybox("busybox");
    for row in rows {
        fill(&scene);
        scene.shell("rm -rf data/store/cache");
        build(&scene, row.dockerfile, row.arguments[0]);
        scene.shell(row.change);
        let dockerfile = match row.edit {
            Some((before, after)) => {
                assert!(row.dockerfile.contains(before), "{}", row.what);
                row.dockerfile.replace(before, after)
            }
            None => row.dockerfile.to_owned(),
        };
        let output = build(&scene, &dockerfile, row.arguments[1]);
        assert_eq!(ran(&output), row.ran, "{}: {output}", row.what);
    }
}

#[test]
fn what_of_the_context_counts() {
    let change = |what, change, ran| Row {
        what,
        change,
        ran,
        ..ROW
    };
    check(&[
        change("nothing", "true", &[]),
        change("mtime", "touch -d 2001-01-01 context/a.txt", &[]),
        change("content", "echo new > context/a.txt", &[1, 2, 3, 4]),
        change("mode", "chmod 600 context/a.txt", &[1, 2, 3, 4]),
        change("owner", "chown 33 context/a.txt", &[]),
        change(
            "xattr",
            "setfattr -n user.k -v v context/a.txt",
            &[1, 2, 3, 4],
        ),
        change(
            "xattr of a directory",
            "setfattr -n user.k -v v context/d",
            &[3, 4],
        ),
        change("mode of a directory", "chmod 700 context/d", &[3, 4]),
        change("unrelated file", "echo > context/new", &[3, 4]),
        change(
            "renamed context",
            "cp -a context other && rm -r context && mv other context",
            &[],
        ),
        change("mtime of a directory", "touch -d 2001-01-01 context/d", &[]),
        Row {
            what: "mode under --chmod",
            dockerfile: "FROM busybox\nCOPY --chmod=644 a.txt /\nRUN cat /a.txt\n",
            change: "chmod 600 context/a.txt",
            ..ROW
        },
        Row {
            what: "owner of a copy from a stage under --chown",
            dockerfile: "FROM busybox AS s\nRUN echo > /f; chown 7 /f\nFROM busybox\nCOPY --chown=5:6 --from=s /f /\nRUN true\n",
            edit: Some(("chown 7", "chown 8")),
            ran: &[1],
            ..ROW
        },
        change("ignore file", "echo d > context/.dockerignore", &[3, 4]),
        Row {
            what: "renamed file of a pattern",
            dockerfile: "FROM busybox\nCOPY *.txt /o/\nRUN ls /o\n",
            change: "mv context/b.txt context/c.txt",
            ran: &[1, 2],
            ..ROW
        },
        Row {
            what: "content that is mounted",
            dockerfile: "FROM busybox\nRUN --mount=type=bind,source=a.txt,target=/m cat /m\n",
            change: "echo new > context/a.txt",
            ran: &[1],
            ..ROW
        },
        Row {
            what: "unrelated file in a mounted context",
            dockerfile: "FROM busybox\nRUN --mount=type=bind,target=/m cat /m/a.txt\n",
            change: "echo > context/new",
            ran: &[1],
            ..ROW
        },
    ]);
}

const TWO: &str = "FROM busybox\nRUN echo 1\nRUN echo 2\n";
const STAGES: &str =
    "FROM busybox AS s1\nRUN echo 1 > /f\nFROM busybox\nCOPY --from=s1 /f /\nRUN echo 2\n";
const COPIED: &str = "FROM busybox\nRUN echo 1\nCOPY a.txt /l/\n";
const LINKED: &str = "FROM busybox\nRUN echo 1\nCOPY --link a.txt /l/\n";
const LABELS: &str = "FROM busybox\nLABEL l=1\nCMD a\nEXPOSE 1\nRUN echo 2\n";
const ENV: &str = "FROM busybox\nENV e=1\n";
const MOUNT: &str = "FROM busybox\nRUN --mount=type=cache,target=/c,id=i1 echo 1\n";
const SWAPPED: &str = "FROM busybox\nRUN echo 1 > /a\nRUN echo 2 > /b\n";

/// What an edit is about, the Dockerfile, what is replaced by what in it, and the steps that run then.
type Edit = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [usize],
);

/// Neither peer knows that a copied layer is the same above any parent.
#[rustfmt::skip]
const EDITS: [Edit; 17] = [
    ("labels", LABELS, "LABEL l=1\nCMD a\nEXPOSE 1", "LABEL l=2\nCMD b\nEXPOSE 2", &[]),
    ("env before run", "FROM busybox\nENV e=1\nRUN echo 2\n", "e=1", "e=2", &[1]),
    ("env before copy", "FROM busybox\nENV e=1\nCOPY a.txt /\n", "e=1", "e=2", &[]),
    ("env alone", ENV, "e=1", "e=2", &[]),
    ("comment and space", TWO, "RUN echo 2", "# c\nRUN   echo 2", &[]),
    ("continuation", "FROM busybox\nRUN echo 2 && echo 3\n", "&& echo", "&& \\\n    echo", &[1]),
    ("stage renamed", STAGES, "AS s1\nRUN echo 1 > /f\nFROM busybox\nCOPY --from=s1", "AS s2\nRUN echo 1 > /f\nFROM busybox\nCOPY --from=s2", &[]),
    ("same file of another stage", STAGES, "echo 1 > /f", "echo other; echo 1 > /f; touch -d 2020-01-01 /f", &[1]),
    ("id of a cache mount", MOUNT, "id=i1", "id=i2", &[]),
    ("linked copy", LINKED, "echo 1", "echo 1 > /new", &[1]),
    ("copy above another parent", COPIED, "echo 1", "echo 1 > /new", &[1]),
    ("copy into another directory of the parent", COPIED, "echo 1", "mkdir -m 700 /l", &[1, 2]),
    ("directory above another parent", "FROM busybox\nRUN echo 1\nWORKDIR /w\n", "echo 1", "echo 1 > /new", &[1]),
    ("parent with the same files", TWO, "RUN echo 1", "RUN echo other", &[1]),
    ("user", "FROM busybox\nUSER 0\nRUN echo 2\n", "USER 0", "USER 1", &[1]),
    ("network", TWO, "RUN echo 2", "RUN --network=none echo 2", &[2]),
    ("swapped", SWAPPED, "RUN echo 1 > /a\nRUN echo 2 > /b", "RUN echo 2 > /b\nRUN echo 1 > /a", &[1, 2]),
];

#[test]
fn what_of_the_dockerfile_counts() {
    let rows = EDITS.map(|(what, dockerfile, before, after, ran)| Row {
        what,
        dockerfile,
        edit: Some((before, after)),
        ran,
        ..ROW
    });
    check(&rows);
}

#[test]
fn what_of_the_arguments_counts() {
    let arg = "FROM busybox\nRUN echo 1\nARG v\nRUN echo 2\n";
    let secret = "FROM busybox\nRUN --mount=type=secret,id=k cat /run/secrets/k\n";
    let row = |what, dockerfile, one, two, ran| Row {
        what,
        dockerfile,
        arguments: [one, two],
        ran,
        ..ROW
    };
    check(&[
        row(
            "declared later",
            arg,
            &["--build-arg", "v=1"],
            &["--build-arg", "v=2"],
            &[2],
        ),
        row(
            "proxy",
            arg,
            &["--build-arg", "http_proxy=a"],
            &["--build-arg", "http_proxy=b"],
            &[],
        ),
        row(
            "secret",
            secret,
            &["--secret", "id=k,src=context/a.txt"],
            &["--secret", "id=k,src=context/b.txt"],
            &[],
        ),
        row(
            "--no-cache, then without",
            "FROM busybox\nRUN echo 1\n",
            &["--no-cache"],
            &[],
            &[],
        ),
        row(
            "--no-cache",
            "FROM busybox\nRUN echo 1\nCOPY a.txt /\nWORKDIR /w\n",
            &[],
            &["--no-cache"],
            &[1, 2, 3],
        ),
    ]);
}

const CAUSES: &str = "FROM base AS s\nARG v=1\nENV e=1\nCOPY d /d\nRUN ls /d > /list\n";

/// A change of the context, an edit of the Dockerfile, the first step that runs, and why.
#[rustfmt::skip]
const NAMED: [(&str, [&str; 2], usize, &str); 9] = [
    ("chmod 600 context/d/x.txt", ["", ""], 1, "d/x.txt: mode 644 -> 600"),
    ("echo more >> context/d/x.txt", ["", ""], 1, "d/x.txt: content"),
    ("setfattr -n user.k -v v context/d/x.txt", ["", ""], 1, "d/x.txt: extended attribute user.k"),
    ("setfattr -n user.k -v v2 context/d/x.txt", ["", ""], 1, "d/x.txt: extended attribute user.k"),
    ("echo > context/d/y.txt", ["", ""], 1, "d/y.txt: new"),
    ("echo d/x.txt > context/.dockerignore", ["", ""], 1, "d/x.txt: left out by the ignore pattern \"d/x.txt\""),
    ("true", ["v=1", "v=2"], 2, "ARG v: \"1\" -> \"2\""),
    ("true", ["e=1", "e=2"], 2, "ENV e: \"1\" -> \"2\""),
    ("true", ["ls", "ls -a"], 2, "the command: \"/bin/sh -c ls /d > /list\" -> \"/bin/sh -c ls -a /d > /list\""),
];

fn causes() -> Scene {
    let scene = Scene::new("causes");
    scene.busybox("busybox");
    scene
        .run("teu-store", ["tag", "busybox", "base"])
        .succeeds();
    fill(&scene);
    build(&scene, CAUSES, &[]);
    scene
}

fn why(scene: &Scene, step: &str) -> String {
    scene.run("teu-build", ["why", step, "context"]).succeeds()
}

/// Of the first step that ran exactly the one cause is named.
#[test]
fn the_cause_is_named() {
    let scene = causes();
    for (change, [before, after], step, cause) in NAMED {
        scene.shell(change);
        let output = build(&scene, &CAUSES.replace(before, after), &["--explain"]);
        let title = format!("\n#{step} [s {step}/2]");
        let (_, said) = output.rsplit_once(&title).unwrap();
        let (_, said) = said.split_once("  ran:\n").unwrap();
        let lines = said.lines().take_while(|line| line.starts_with("    "));
        let said: Vec<&str> = lines.map(str::trim).collect();
        assert_eq!(said, [cause], "{output}");
        let again = why(&scene, &step.to_string());
        assert!(again.ends_with(&format!("ran:\n    {cause}")), "{again}");
        // Steps after it point to it.
        if step == 1 {
            let after = why(&scene, "s 2/2");
            assert!(
                after.ends_with("the files that [s 1/2] COPY d /d made"),
                "{after}"
            );
        }
        build(&scene, CAUSES, &[]);
    }
}

#[test]
fn owners_and_bases_are_named() {
    let scene = causes();
    // Owners count where they are copied.
    let from = |owner: u32| {
        format!(
            "FROM base AS s\nRUN echo > /f; chown {owner} /f\nFROM base AS t\nCOPY --from=s /f /\n"
        )
    };
    build(&scene, &from(1), &[]);
    let output = build(&scene, &from(2), &["--explain"]);
    assert!(
        output.contains("  ran:\n    f: owner 1:0 -> 2:0\n"),
        "{output}"
    );
    build(&scene, CAUSES, &[]);
    scene.write("other/Dockerfile", "FROM busybox\nRUN touch /other\n");
    scene
        .run("teu-build", ["build", "-q", "-t", "base", "other"])
        .succeeds();
    build(&scene, CAUSES, &[]);
    let said = why(&scene, "RUN");
    assert!(
        said.contains("ran:\n    the base image: base (") && said.contains(") -> base ("),
        "{said}"
    );
    scene
        .run("teu-build", ["why", "7", "context"])
        .fails(1, &["the last build had no step \"7\"", "[s 1/2]"]);
    scene.run("teu-build", ["why", "1", "other"]).succeeds();
    scene
        .run("teu-build", ["why", "1", "data"])
        .fails(1, &["no build of the context"]);
}
