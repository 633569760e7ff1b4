//! Attacks that win by changing a name between the runtime's look and its use.

use serde_json::{Value, json};
use teu_integration_tests::Outcome;

use super::attacker::{Attacker, rounds};
use super::{Attack, Container, bind, push, terminal_in_the_images_dev, unmounted};

/// Creates and deletes against a running attacker; `check` looks at each
/// container that came to be. How many did is printed.
fn race(name: &str, container: &Container<'_>, attacker: Attacker, check: impl Fn(&str)) {
    race_with(name, attacker, || container.run(), check);
}

fn race_with(name: &str, attacker: Attacker, run: impl Fn() -> Outcome, check: impl Fn(&str)) {
    let (mut created, mut refusal) = (0, String::new());
    for _ in 0..rounds() {
        let outcome = run();
        if outcome.status.success() {
            created += 1;
            check(&outcome.stdout);
        } else {
            refusal = outcome.stderr;
        }
    }
    drop(attacker);
    eprintln!(
        "{name}: {created} of {} were created; {}",
        rounds(),
        refusal.trim()
    );
    assert!(created > 0, "{name}: no race is run where all is refused");
}

/// A volume that two containers share, with a directory and a link to exchange.
fn volume(attack: &Attack, target: &str) -> (std::path::PathBuf, Attacker) {
    let volume = attack.scene.path("volume");
    std::fs::create_dir_all(volume.join("dir/sub")).unwrap();
    std::os::unix::fs::symlink(target, volume.join("link")).unwrap();
    let attacker = Attacker::swaps(&volume.join("dir"), &volume.join("link"));
    (volume, attacker)
}

/// What the host has at its top and a busybox root has not.
const OF_THE_HOST: &str = "for f in /vol/dir/* /vol/link/*; do case $f in */boot|*/lib64|*/secret) echo escaped $f;; esac; done; mount";

fn did_not_escape(out: &str) {
    assert!(!out.contains("escaped"), "{out}");
}

/// R9: the destination of a mount is exchanged with a link to the host's root
/// (CVE-2021-30465).
#[test]
fn r09_a_mount_destination_is_swapped() {
    let attack = Attack::new("R9");
    let (volume, attacker) = volume(&attack, "/");
    // The source is the caller's own: a path of the host is meant as the host resolves it.
    let other = attack.scene.path("other");
    std::fs::create_dir(&other).unwrap();
    let container = attack.container(OF_THE_HOST, |config| {
        push(config, "mounts", bind(&volume, "/vol"));
        let tmpfs = json!({"destination": "/vol/dir/sub", "type": "tmpfs", "source": "tmpfs"});
        push(config, "mounts", tmpfs);
        push(config, "mounts", bind(&other, "/vol/dir"));
    });
    race("R9", &container, attacker, did_not_escape);
}

/// R15: the same where the destination has to be made (CVE-2024-45310).
#[test]
fn r15_a_missing_destination_is_swapped() {
    let attack = Attack::new("R15");
    let target = attack.sentinel();
    let (volume, attacker) = volume(&attack, target.to_str().unwrap());
    let file = attack.scene.write("file", "x");
    let container = attack.container(OF_THE_HOST, |config| {
        push(config, "mounts", bind(&volume, "/vol"));
        for number in 0..4 {
            push(config, "mounts", bind(&file, &format!("/vol/dir/new{number}/file")));
            let tmpfs = json!({"destination": format!("/vol/dir/made{number}"), "type": "tmpfs", "source": "tmpfs"});
            push(config, "mounts", tmpfs);
        }
        config["process"]["cwd"] = json!("/vol/dir/cwd");
    });
    race("R15", &container, attacker, did_not_escape);
}

/// R7, R18: /proc of the image is exchanged with a link while it is mounted and
/// written to (CVE-2019-19921, CVE-2025-52881, CVE-2025-62596).
#[test]
fn r07_r18_proc_is_swapped() {
    let attack = Attack::new("R7 R18 race");
    // The names go on changing under the program: it looks until it sees.
    let script = "n=0; until [ $n = 20000 ] || cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj 2>/dev/null; do n=$((n+1)); done";
    let container = attack.container(script, |config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        config["process"]["oomScoreAdj"] = json!(500);
    });
    // Whoever writes through a false /proc leaves traces in the sentinel.
    let sentinel = attack.sentinel();
    container.link("other", &sentinel);
    let attacker = Attacker::swaps(&container.root("proc"), &container.root("other"));
    race("R7 R18", &container, attacker, |out| {
        assert_eq!(out.split_whitespace().last(), Some("500"), "{out:?}");
        assert!(out.split_whitespace().any(|word| word == "77"), "{out:?}");
    });
}

/// R16: /dev/null of the image is exchanged while masks are made (CVE-2025-31133).
#[test]
fn r16_the_null_device_is_swapped() {
    let attack = Attack::new("R16 race");
    let script = "stat -c %t,%T /proc/uptime /proc/cpuinfo /proc/self/status";
    let container = attack.container(script, |config| {
        unmounted(config, "/dev");
        config["linux"]["maskedPaths"] = json!(["/proc/uptime", "/proc/cpuinfo"]);
    });
    attack.scene.shell(&format!(
        "mknod -m 666 {} c 1 3",
        container.root("dev/null").display()
    ));
    container.link("dev/other", "/proc/sys/kernel/core_pattern");
    let attacker = Attacker::swaps(&container.root("dev/null"), &container.root("dev/other"));
    race("R16", &container, attacker, |out| {
        assert_eq!(out.trim(), "1,3\n1,3\n0,0")
    });
}

/// R17: /dev/console is exchanged while the terminal is bound on it (CVE-2025-52565).
#[test]
fn r17_the_console_is_swapped() {
    let attack = Attack::new("R17 race");
    let container = terminal_in_the_images_dev(&attack);
    std::fs::write(container.root("dev/console"), "").unwrap();
    container.link("dev/other", attack.sentinel().join("secret"));
    let attacker = Attacker::swaps(&container.root("dev/console"), &container.root("dev/other"));
    race_with("R17", attacker, || container.run_in_terminal(), |_| ());
}

/// R22: a part of a read-only path is exchanged (CVE-2026-115521, GHSA-3q8j-pf29-vwv8).
#[test]
fn r22_a_read_only_path_is_swapped() {
    let attack = Attack::new("R22");
    let script = "touch /x 2>&1; touch /vol/dir/x 2>&1; touch /vol/dir/sub/x 2>&1; true";
    let target = attack.sentinel();
    let (volume, attacker) = volume(&attack, target.to_str().unwrap());
    let container = attack.container(script, |config| {
        config["root"]["readonly"] = json!(true);
        push(config, "mounts", bind(&volume, "/vol"));
        config["linux"]["readonlyPaths"] = json!(["/vol/dir", "/vol/dir/sub", "/vol"]);
        config["linux"]["maskedPaths"] = json!(["/vol/link/secret"]);
    });
    std::fs::create_dir_all(container.root("vol")).unwrap();
    race("R22", &container, attacker, |out| {
        assert!(out.starts_with("touch: /x: Read-only file system"), "{out}");
    });
    assert!(!volume.join("dir/x").exists() && !volume.join("link/x").exists());
    assert!(!volume.join("dir/sub/x").exists() && !volume.join("link/sub/x").exists());
}

/// R14: the working directory is exchanged (CVE-2024-21626, with a race).
#[test]
fn r14_the_working_directory_is_swapped() {
    let attack = Attack::new("R14 race");
    let target = attack.sentinel();
    let container = attack.container("pwd -P; ls", |config: &mut Value| {
        config["process"]["cwd"] = json!("/work");
    });
    std::fs::create_dir(container.root("work")).unwrap();
    container.link("other", &target);
    let attacker = Attacker::swaps(&container.root("work"), &container.root("other"));
    race("R14", &container, attacker, |out| {
        assert!(!out.contains("secret"), "{out}")
    });
}
