//! Ids, the state directory, and what is in the way of `delete`.

use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Attack, Container};

/// R41: every verb refuses an id that is no name (crun 1.20 and 1.28, GHSA-x7pf).
#[test]
fn r41_ids_are_names() {
    let attack = Attack::new("R41");
    let container = attack.container("true", |_| {});
    let bundle = container.bundle.to_str().unwrap();
    let long = "x".repeat(1025);
    let odd = [
        "..",
        ".",
        "../sentinel",
        "a/b",
        "/etc",
        "a/../..",
        "%2e%2e/",
        "a\nb",
        "a b",
        "",
        "\u{2024}\u{2024}",
        "-x/..",
        "a\\b",
        "*",
        &long,
    ];
    let verbs: [&[&str]; 12] = [
        &["create", "-b", bundle],
        &["run", "-b", bundle],
        &["start"],
        &["state"],
        &["delete"],
        &["delete", "--force"],
        &["kill"],
        &["pause"],
        &["resume"],
        &["ps"],
        &["update", "--pids-limit", "5"],
        &["exec"],
    ];
    for id in odd {
        for verb in verbs {
            let rest: &[&str] = if verb[0] == "exec" {
                &["/bin/true"]
            } else {
                &[]
            };
            let words = [verb, &["--", id], rest].concat();
            let outcome = attack.scene.run("teu-runtime", words);
            assert!(!outcome.status.success(), "{outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        }
    }
    let long = "x".repeat(300);
    let outcome = attack
        .scene
        .run("teu-runtime", ["delete", "--force", &long]);
    assert!(outcome.code() < 2, "{outcome}");
}

/// R38: what we make is for nobody else, whatever the mask of the caller
/// (CVE-2024-25621, CVE-2021-41091, CVE-2021-41103).
#[test]
fn r38_the_state_is_not_open_to_others() {
    let attack = Attack::new("R38");
    let container = attack.container("sleep 1000", |config| {
        let never = json!({"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"});
        config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [never]});
    });
    let mut shell = attack
        .scene
        .command("sh", ["-c", "umask 0; exec \"$@\"", "sh"]);
    let create = container.command(&["create"]);
    shell.arg(create.get_program()).args(create.get_args());
    shell
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    assert!(shell.status().unwrap().success());
    let root = attack.scene.path("state/runtime");
    let mut seen = 0;
    for path in [root.clone(), root.join(&container.id)] {
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{path:?} is {mode:o}");
        for entry in std::fs::read_dir(&path).unwrap() {
            let meta = entry.unwrap().metadata().unwrap();
            seen += 1;
            assert!(meta.is_dir() || meta.is_symlink() || meta.mode() & 0o022 == 0 || path != root);
        }
    }
    assert!(seen > 4);
}

/// R42: a very deep directory in the root does not hold up `delete`
/// (bugzilla.redhat.com 1982526).
#[test]
fn r42_deep_directories_do_not_matter() {
    let attack = Attack::new("R42");
    let script =
        "i=0; while [ $i -lt 3000 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done; sleep 1000";
    let container = attack.container(script, |_| {});
    container.leave(&["run", "--detach"]);
    let deep = |levels| (0..levels).fold(container.root(""), |path: PathBuf, _| path.join("d"));
    attack
        .scene
        .wait_until("a deep directory", || deep(1000).exists());
    let begun = Instant::now();
    container.delete();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Everything of a container's record, to be put back.
fn record(container: &Container<'_>) -> (PathBuf, Vec<(PathBuf, Vec<u8>)>) {
    let folder = container.scene.path("state/runtime").join(&container.id);
    let files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let content = files.filter_map(|path| {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_symlink() {
            std::fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            return None;
        };
        Some((path, bytes))
    });
    let content = content.collect();
    (folder, content)
}

/// Writes a file or a link of a record, whichever it is.
fn put(path: &Path, bytes: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let _ = std::fs::remove_file(path);
    if path.ends_with("init") {
        // An empty link cannot be made; what is empty is absent.
        let target = std::ffi::OsStr::from_bytes(bytes);
        let _ = std::os::unix::fs::symlink(target, path);
    } else {
        std::fs::write(path, bytes).unwrap();
    }
}

/// The bytes cut at every length, and with some bits turned. Of the page for
/// failures, which is long and mostly empty, a sample.
fn damages(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let step = (bytes.len() * 8).div_ceil(100).max(1);
    let cut_step = if bytes.len() > 2048 { 64 } else { 1 };
    let cut = (0..bytes.len())
        .step_by(cut_step)
        .map(|length| bytes[..length].to_vec());
    let turned = (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    cut.chain(turned)
}

/// A damaged record of a container whose processes have ended: `list` shows the
/// others and `delete --force` removes it, at every length of every file.
#[test]
fn damaged_records_hold_up_nobody() {
    let attack = Attack::new("damaged records");
    let other = attack
        .scene
        .bundle("other", &["/bin/sleep", "1000"], |_| {});
    let other_id = format!("{}-other", attack.scene.mark());
    let mut command = attack.scene.command(
        "teu-runtime",
        ["run", "--detach", "-b", other.to_str().unwrap(), &other_id],
    );
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    assert!(command.status().unwrap().success());
    let container = attack.container("sleep 1000", |config| {
        let never = json!({"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"});
        config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [never]});
    });
    container.leave(&["run", "--detach"]);
    let (folder, content) = record(&container);
    assert!(content.len() >= 4, "{content:?}");
    container.delete();
    let mut count = 0;
    for (damaged, bytes) in &content {
        for damage in damages(bytes) {
            count += 1;
            std::fs::create_dir(&folder).unwrap();
            content.iter().for_each(|(path, bytes)| put(path, bytes));
            put(damaged, &damage);
            // The failure page is long and looked at by nobody here.
            if count % 8 == 0 {
                let listed = attack
                    .scene
                    .run("teu-runtime", ["list", "--quiet"])
                    .succeeds();
                assert!(listed.lines().any(|id| id == other_id), "{listed}");
            }
            container.delete();
            assert!(!folder.exists());
        }
    }
    eprintln!("{count} damaged records in {} files", content.len());
    attack
        .scene
        .run("teu-runtime", ["delete", "--force", &other_id])
        .succeeds();
}

/// What is done to the bytes of a file.
type Damage = fn(&[u8]) -> Vec<u8>;

/// A damaged state of a container that runs: its processes end and its cgroups
/// go all the same.
#[test]
fn damaged_states_of_running_containers_leave_nothing() {
    let attack = Attack::new("damaged running");
    let container = attack.container("sleep 1000", |_| {});
    let cuts: [Damage; 4] = [
        |_| Vec::new(),
        |bytes| bytes[..bytes.len() / 2].to_vec(),
        |bytes| {
            let mut bytes = bytes.to_vec();
            bytes[100] ^= 1;
            bytes
        },
        |bytes| [bytes, b"x"].concat(),
    ];
    for (round, cut) in cuts.iter().enumerate() {
        container.leave(&["run", "--detach"]);
        let state: Value =
            serde_json::from_str(&container.call(&["state"], &[]).succeeds()).unwrap();
        let pid = state["pid"].as_i64().unwrap();
        if round % 2 == 1 {
            container.call(&["pause"], &[]).succeeds();
        }
        let file = attack
            .scene
            .path("state/runtime")
            .join(&container.id)
            .join("state.json");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, cut(&bytes)).unwrap();
        let _ = container.call(&["state"], &[]).fails(1, &["damaged"]);
        container.delete();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    // That nothing is left of the cgroups is asserted when the scene ends.
}
