//! The Dockerfile language and contexts, built and looked at.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod archives;
mod call;
mod contexts;
mod hostile;
mod peers;
mod probes;
mod remote;
mod server;
mod sources;
mod steps;

use std::path::Path;
use teu_integration_tests::{Outcome, Scene};

/// A context with a little of everything, at `context` of the scene.
fn standard_context(scene: &Scene) {
    for (path, text) in [
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("c.md", "c"),
        ("d/x.txt", "x"),
        ("d/y.go", "y"),
        ("d/e/z.txt", "z"),
        ("d/e/w.go", "w"),
        ("etc/passwd", "web:x:33:44::/:\n"),
        ("etc/group", "staff:x:50:\n"),
        ("l/f", "f"),
        ("s/run.sh", "#!"),
        ("su", "su"),
    ] {
        scene.write(format!("context/{path}"), text);
    }
    scene.shell(
        "cd context; find . -type f -exec chmod 644 {} +; chmod 755 s/run.sh; chmod 4755 su
         mkdir -p empty tars abs
         ln -s d link; ln -s a.txt flink; ln -s nowhere dead; ln -s /etc/passwd out
         ln -s f l/in; ln -s ../a.txt l/up; ln -s x l/dead; ln -s /etc/passwd abs/passwd
         mkdir m; printf m > m/f; chmod 640 m/f
         tar --owner=9 --group=8 --numeric-owner -cf t.tar m; rm -r m
         gzip -nc t.tar > t.tgz; cp t.tar tars/; chmod 644 t.tar t.tgz tars/t.tar
         find . -type d -exec chmod 755 {} +",
    );
}

/// Builds `dockerfile` in the scene's context under the name `result`.
fn build(scene: &Scene, dockerfile: &str, arguments: &[&str]) -> Outcome {
    scene.write("context/Dockerfile", dockerfile);
    let mut all = vec!["build", "-q", "-t", "result"];
    all.extend(arguments);
    all.push("context");
    scene.run("teu-build", all)
}

/// The files of the image `result`, a line each.
fn files(scene: &Scene) -> Vec<String> {
    scene.shell("rm -rf bundle");
    scene
        .run("teu-store", ["unpack", "result", "bundle"])
        .succeeds();
    let mut lines = Vec::new();
    list(&scene.path("bundle/rootfs"), "", &mut lines);
    lines.sort();
    lines
}

/// `path`, `|mode` and `|owner` where they are not the usual, then `=content` or `->target`.
fn list(folder: &Path, prefix: &str, lines: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut line = name.clone();
        if meta.is_dir() {
            line.push('/');
            list(&path, &format!("{name}/"), lines);
        }
        let usual = if meta.is_dir() { 0o755 } else { 0o644 };
        if !meta.is_symlink() && meta.mode() & 0o7777 != usual {
            line.push_str(&format!("|{:o}", meta.mode() & 0o7777));
        }
        if (meta.uid(), meta.gid()) != (0, 0) {
            line.push_str(&format!("|{}:{}", meta.uid(), meta.gid()));
        }
        if meta.is_symlink() {
            line.push_str(&format!(
                "->{}",
                std::fs::read_link(&path).unwrap().display()
            ));
        } else if meta.is_file() {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let short = text.len() < 100 && !name.ends_with("Dockerfile");
            let text = text.replace('\n', "\\n").replace('\t', "\\t");
            line.push_str(&format!("={}", if short { &text } else { "..." }));
        }
        lines.push(line);
    }
}
