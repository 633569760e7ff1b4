//! The probes of ADD from servers and repositories.

use crate::build;
use crate::probes::scene;
use crate::server::{GitServer, Web, git};
use teu_integration_tests::Scene;

#[test]
fn files_of_servers() {
    let scene = scene("files of servers");
    let web = Web::start();
    web.put("/f.txt", "hello");
    web.put(
        "/t.tar",
        std::fs::read(scene.path("context/t.tar")).unwrap(),
    );
    let (file, tar) = (web.url("/f.txt"), web.url("/t.tar"));
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let rows = [
        (
            "ADD http",
            format!("ADD {file} /o/\nRUN [ $(stat -c %a /o/f.txt) = 600 ]"),
            true,
        ),
        (
            "ADD http --checksum ok",
            format!("ADD --checksum={sum} {file} /x\nRUN [ $(cat /x) = hello ]"),
            true,
        ),
        (
            "ADD http --checksum bad",
            format!("ADD --checksum={} {file} /x", sum.replace('2', "3")),
            false,
        ),
        (
            "ADD http --unpack=true",
            format!("ADD --unpack=true {tar} /o/\nRUN [ -f /o/m/f ]"),
            true,
        ),
        (
            "ADD http leaves archives",
            format!("ADD {tar} /o/\nRUN [ -f /o/t.tar ]"),
            true,
        ),
        (
            "ADD http that is not there",
            format!("ADD {} /x", web.url("/none")),
            false,
        ),
        (
            "ADD http and a file",
            format!("ADD {file} a.txt /o/\nRUN [ -f /o/f.txt -a -f /o/a.txt ]"),
            true,
        ),
        ("COPY of a URL", format!("COPY {file} /x"), false),
    ];
    expect_each(&scene, &rows);
}

#[test]
fn repositories() {
    let scene = scene("repositories");
    git(
        &scene,
        "git init -q -b main r; cd r; mkdir s; echo 1 > gf; echo 2 > s/f; git add .; git commit -qm 1; git tag v1",
    );
    let server = GitServer::start(&scene);
    let repository = server.url("r");
    let rows = [
        (
            "ADD git",
            format!("ADD {repository} /o/\nRUN [ -f /o/gf -a ! -e /o/.git ]"),
            true,
        ),
        (
            "ADD git#ref:subdir",
            format!("ADD {repository}#v1:s /o/\nRUN [ -f /o/f -a ! -e /o/gf ]"),
            true,
        ),
        (
            "ADD --keep-git-dir",
            format!("ADD --keep-git-dir=true {repository} /o/\nRUN [ -f /o/gf -a -d /o/.git ]"),
            true,
        ),
        (
            "ADD git query",
            format!(
                "ADD {repository}?branch=main&subdir=s&mtime=commit /o/\nRUN [ -f /o/f -a ! -e /o/gf ]"
            ),
            true,
        ),
        (
            "ADD git without a reference",
            format!("ADD {repository}#none /o/"),
            false,
        ),
        (
            "ADD git of another commit",
            format!("ADD --checksum=0123456789 {repository} /o/"),
            false,
        ),
    ];
    expect_each(&scene, &rows);
}

fn expect_each(scene: &Scene, rows: &[(&str, String, bool)]) {
    for (name, text, builds) in rows {
        let outcome = build(scene, &format!("FROM busybox\n{text}\n"), &[]);
        assert_eq!(outcome.status.success(), *builds, "{name}: {outcome}");
    }
}
