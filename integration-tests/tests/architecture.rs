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

/// The lines of a part of the runtime that are no comment and no test, with
/// their files.
fn runtime_lines(folders: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "--"])
        .args(folders)
        .current_dir(workspace())
        .output()
        .expect("run git ls-files");
    let mut lines = Vec::new();
    for file in String::from_utf8_lossy(&output.stdout).lines() {
        // The oracle compares with the standard library: all of it is a test.
        if !file.ends_with(".rs") || file.ends_with("/oracle.rs") || file.ends_with("/tests.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(workspace().join(file)) else {
            continue;
        };
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.extend(code.map(|line| (file.to_owned(), line.trim().to_owned())));
    }
    assert!(!lines.is_empty(), "no sources in {folders:?}");
    lines
}

/// What touches a root file system goes by descriptors that `openat2(2)` confined
/// to it, never by a path that the standard library resolves on the host.
/// Allowed: descriptors made into files, and the kernel's own files.
#[test]
fn no_path_of_a_container_goes_to_the_standard_library() {
    let folders = [
        "runtime/src/rootfs",
        "runtime/src/process",
        "runtime/src/init",
    ];
    let calls = [
        " fs::",
        "(fs::",
        "std::fs::",
        "File::open",
        "File::create",
        "OpenOptions",
    ];
    let allowed = ["File::from(", "(\"/proc/", "(\"/sys/module/"];
    for (file, line) in runtime_lines(&folders) {
        let by_library = calls.iter().any(|call| line.contains(call))
            && !line.contains("rustix::fs")
            && !line.starts_with("use ");
        assert!(
            !by_library || allowed.iter().any(|part| line.contains(part)),
            "{file}: {line}"
        );
    }
}

/// Mounts are made by descriptor. `mount(2)` has one place, for what only knows
/// all options in one string, and names a descriptor there.
#[test]
fn mounts_are_made_by_descriptor() {
    let by_path = [
        "mount::mount(",
        "mount_bind",
        "mount_recursive_bind",
        "mount_move(",
        "mount_remount",
        "SYS_mount,",
        "libc::mount(",
    ];
    let found: Vec<_> = runtime_lines(&["runtime/src"])
        .into_iter()
        .filter(|(_, line)| by_path.iter().any(|call| line.contains(call)))
        .collect();
    let one = found.len() == 1 && found[0].0 == "runtime/src/rootfs/mount.rs";
    assert!(one, "{found:?}");
}
