//! How much memory a build takes for a context of many files: its peak, measured by the kernel, against the peak for a
//! context of one file.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Command;
use teu_integration_tests::{Scene, binary};

/// Small files of the context.
const FILES: u64 = 20_000;

/// What each may take, bytes: its name and what statx(2) says of it, twice, and what its hash is known by.
const LIMIT_BYTES: u64 = 500;

/// Runs a command and prints, last, the largest resident set of its processes in KiB.
const MEASURE: &str = "import resource, subprocess, sys\n\
    subprocess.run(sys.argv[1:], check=True)\n\
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";

/// The image's id, and the peak of the build in KiB.
fn build(scene: &Scene, context: &str, flags: &[&str]) -> (String, u64) {
    let mut command = Command::new("python3");
    command.args(["-c", MEASURE]).arg(binary("teu-build"));
    command.arg("--root").arg(scene.store());
    let command = command.args(["build", "-q"]).args(flags);
    let output = command.arg(scene.path(context)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let [id, peak] = lines[..] else {
        panic!("{said} {}", String::from_utf8_lossy(&output.stderr));
    };
    (id.to_owned(), peak.parse().unwrap())
}

#[test]
fn many_files_take_little_each() {
    let scene = Scene::new("memory of a build");
    for context in ["one", "many"] {
        scene.write(
            format!("{context}/Dockerfile"),
            "FROM scratch\nCOPY all /all\n",
        );
    }
    scene.write("one/all/file", "");
    for number in 0..FILES {
        let file = format!("many/all/{}/file-{number}", number % 30);
        scene.write(file, number.to_string());
    }
    let (_, base) = build(&scene, "one", &[]);
    let (id, first) = build(&scene, "many", &[]);
    let (forced, again) = build(&scene, "many", &["--no-cache"]);
    let (reused, unchanged) = build(&scene, "many", &[]);
    assert!(id == forced && id == reused);
    for (what, peak) in [("first", first), ("again", again), ("unchanged", unchanged)] {
        let each = peak.saturating_sub(base) * 1024 / FILES;
        eprintln!("{what}: {each} bytes a file ({peak} KiB, of which {base} for any)");
        assert!(each < LIMIT_BYTES, "{what}: {each} bytes a file");
    }
}
