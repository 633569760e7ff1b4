//! The rules of ARCHITECTURE.md that a machine can check.

use std::path::Path;
use std::process::Command;

/// Who must not link whom, with everything that comes through others.
const NEVER: [(&str, &[&str]); 4] = [
    ("teu-runtime", &["teu-shim", "teu-store", "teu-builder"]),
    ("teu-shim", &["teu-runtime", "teu-store", "teu-builder"]),
    ("teu-store", &["teu-runtime", "teu-shim", "teu-builder"]),
    ("teu-builder", &["teu-runtime", "teu-shim"]),
];

/// What starts threads, compiles regular expressions or brings an async
/// runtime has no place in the two programs that must stay small and
/// single-threaded.
const TOO_LARGE: [&str; 5] = ["regex", "tokio", "rayon", "async-io", "crossbeam-channel"];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

/// Names of all crates that `package` links.
fn links(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "-p",
            package,
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(workspace())
        .output()
        .expect("run cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_do_not_reach_across() {
    for (package, never) in NEVER {
        let linked = links(package);
        for other in never {
            assert!(
                !linked.iter().any(|name| name == other),
                "{package} must not link {other}"
            );
        }
    }
}

#[test]
fn runtime_and_shim_stay_small() {
    for package in ["teu-runtime", "teu-shim"] {
        let linked = links(package);
        for other in TOO_LARGE {
            assert!(
                !linked.iter().any(|name| name == other),
                "{package} must not link {other}"
            );
        }
    }
}

/// The harness executes the programs; linking them would hide what users meet.
#[test]
fn the_harness_links_none_of_ours() {
    let linked = links("teu-integration-tests");
    let ours: Vec<_> = linked
        .iter()
        .filter(|name| name.starts_with("teu-") && *name != "teu-integration-tests")
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

/// `unsafe` stands behind one door in the runtime, one in the shim, and in the
/// harness where namespaces are made.
#[test]
fn unsafe_code_has_one_door_a_crate() {
    let doors = ["runtime/src/sys", "shim/src/sys", "integration-tests/src"];
    let output = Command::new("git")
        .args(["grep", "-lE", r"\bunsafe (\{|fn|impl|extern)", "--", "*.rs"])
        .current_dir(workspace())
        .output()
        .expect("run git grep");
    for file in String::from_utf8_lossy(&output.stdout).lines() {
        assert!(
            doors.iter().any(|door| file.starts_with(door)),
            "{file} holds unsafe code; see ARCHITECTURE.md"
        );
    }
}
