//! Dockerfiles as the world writes them, built with the package registries of Debian, Python, Node and Rust as their
//! networks (`make test-net`): what they make runs and prints what it should, and a second build runs nothing.
//!
//! `net_dockerfiles.txt` has them: `== NAME`, then `-- FILE` of the context, `-- arguments` of the build, `-- run`
//! arguments of the program, `-- serves` a page, `-- prints`; `== base NAME` makes the image NAME that later ones start from.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::path::Path;
use std::time::{Duration, Instant};
use teu_integration_tests::{Scene, missing_command, skip_unless};

/// Time for an installation of packages and its layer.
const LIMIT: Duration = Duration::from_secs(900);

/// What the machine itself trusts: the steps reach the registries by the same way.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Default)]
struct Row<'a> {
    name: &'a str,
    sections: Vec<(&'a str, String)>,
}

impl Row<'_> {
    fn section(&self, name: &str) -> Option<&str> {
        let found = self.sections.iter().find(|(own, _)| *own == name);
        found.map(|(_, text)| text.as_str())
    }

    fn lines(&self, name: &str) -> Vec<&str> {
        self.section(name).unwrap_or_default().lines().collect()
    }
}

fn parse(text: &str) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            rows.push(Row {
                name,
                ..Row::default()
            });
        } else if let Some(name) = line.strip_prefix("-- ") {
            let row = rows.last_mut().unwrap();
            row.sections.push((name, String::new()));
        } else {
            let (_, section) = rows.last_mut().unwrap().sections.last_mut().unwrap();
            section.push_str(line);
            section.push('\n');
        }
    }
    rows
}

/// Makes Debian's base from the sources of this machine.
fn debian(scene: &Scene) -> bool {
    let places = [
        "/etc/apt/sources.list.d/debian.sources",
        "/etc/apt/sources.list",
    ];
    let sources = places.into_iter().find(|place| Path::new(place).exists());
    let arguments = ["--quiet", "--variant=minbase", "bookworm", "base.tar"];
    let made = scene.run_within(LIMIT, "mmdebstrap", arguments.into_iter().chain(sources));
    let import = ["import", "-q", "base.tar", "debian:bookworm-slim"];
    made.status.success() && scene.run("teu-store", import).status.success()
}

/// Builds a row under a name; the image's id, and which steps ran.
fn build(scene: &Scene, row: &Row<'_>, tag: &str) -> (String, Vec<String>) {
    let mut arguments = vec!["build", "--progress", "plain", "-t", tag];
    if Path::new(AUTHORITIES).exists() {
        arguments.extend(["--ca-bundle", AUTHORITIES]);
    }
    arguments.extend(row.lines("arguments"));
    arguments.push("context");
    let outcome = scene.run_within(LIMIT, "teu-build", arguments);
    assert!(outcome.status.success(), "{}: {}", row.name, outcome.stderr);
    let ran = outcome
        .stderr
        .lines()
        .filter(|line| line.contains(" DONE "));
    let ran = ran.map(str::to_owned).collect();
    (outcome.stdout, ran)
}

/// What the program of an image prints, or serves.
fn printed(scene: &Scene, row: &Row<'_>, tag: &str) -> String {
    let Some(place) = row.section("serves") else {
        let mut arguments = vec!["run", "--rm", "--network", "none", tag];
        arguments.extend(row.lines("run"));
        return scene.run_within(LIMIT, "teu", arguments).succeeds();
    };
    let start = ["run", "-d", "--name", "service", "--network", "host", tag];
    scene.run("teu", start).succeeds();
    let url = format!("http://{}", place.trim());
    let mut page = String::new();
    scene.wait_until("the service answers", || {
        let answer = scene.run("curl", ["-fsS", &url]);
        page = answer.stdout;
        answer.status.success()
    });
    scene.run("teu", ["rm", "-f", "service"]).succeeds();
    page
}

fn one(scene: &Scene, row: &Row<'_>) {
    let begin = Instant::now();
    let _ = std::fs::remove_dir_all(scene.path("context"));
    for (name, text) in &row.sections {
        if !["arguments", "run", "prints", "serves"].contains(name) {
            scene.write(Path::new("context").join(name), text);
        }
    }
    let tag = row.name.strip_prefix("base ").unwrap_or("result");
    let (id, ran) = build(scene, row, tag);
    let first = begin.elapsed();
    assert!(!ran.is_empty(), "{}: nothing ran", row.name);
    if let Some(wanted) = row.section("prints") {
        let found = printed(scene, row, tag);
        assert_eq!(found.trim(), wanted.trim(), "{}", row.name);
    }
    let (again, ran) = build(scene, row, tag);
    assert_eq!(ran, Vec::<String>::new(), "{}", row.name);
    assert_eq!(again, id, "{}", row.name);
    eprintln!("{:6.1} s  {}", first.as_secs_f64(), row.name);
}

#[test]
fn dockerfiles_of_the_world_build_and_run() {
    let scene = Scene::on_host_network("dockerfiles");
    skip_unless!(
        scene,
        !missing_command("mmdebstrap"),
        "mmdebstrap makes the base"
    );
    skip_unless!(scene, debian(&scene), "no Debian base");
    let rows = parse(include_str!("net_dockerfiles.txt"));
    assert!(rows.len() > 15);
    rows.iter().for_each(|row| one(&scene, row));
}
