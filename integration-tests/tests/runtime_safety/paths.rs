//! Names in the image that lead elsewhere: nothing outside the root is made,
//! opened or mounted on.

use serde_json::json;

use super::{Attack, bind, push, terminal_in_the_images_dev, unmounted};

/// R1: a link at a mount's destination (CVE-2015-3627, 3629, 3630, 3631).
#[test]
fn r01_a_link_at_a_mount_destination() {
    let attack = Attack::new("R1");
    let data = attack.scene.path("data");
    std::fs::create_dir_all(&data).unwrap();
    for what in ["tmpfs", "bind"] {
        let container = attack.container("true", |config| {
            let mount = match what {
                "tmpfs" => json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}),
                _ => bind(&data, "/mnt"),
            };
            push(config, "mounts", mount);
        });
        container.link("mnt", attack.sentinel());
        let _ = container.run_or_refuse();
    }
    let container = attack.container("true", |config| {
        push(config, "mounts", bind(&data, "/proc/x"));
    });
    let _ = container.run().fails(1, &["/proc"]);
}

/// R7, R28: /proc or /sys of the image is a link (CVE-2019-19921, CVE-2023-27561,
/// CVE-2023-28642, CVE-2025-54867).
#[test]
fn r07_r28_proc_and_sys_must_be_directories() {
    let attack = Attack::new("R7 R28");
    for (name, target) in [
        ("proc", "/vol/proc"),
        ("proc", ".."),
        ("sys", "/"),
        ("sys", "/proc"),
        ("proc", "/sys"),
    ] {
        let container = attack.container("true", |_| {});
        std::fs::create_dir_all(container.root("vol/proc")).unwrap();
        container.link(name, target);
        let _ = container.run().fails(1, &[&format!("/{name}")]);
    }
}

/// R8: the last part of a file's destination is a link (CVE-2019-18837).
#[test]
fn r08_a_file_bound_over_a_link() {
    let attack = Attack::new("R8");
    let file = attack.scene.write("resolv.conf", "nameserver ::1\n");
    let container = attack.container("cat /etc/resolv.conf", |config| {
        push(config, "mounts", bind(&file, "/etc/resolv.conf"));
    });
    container.link("etc/resolv.conf", attack.sentinel().join("new"));
    let _ = container.run_or_refuse();
    assert!(!attack.sentinel().join("new").exists());
}

/// R16: /dev/null of the image is a link, and masks are made of it
/// (CVE-2025-31133, CVE-2025-62161).
#[test]
fn r16_masks_are_the_null_device() {
    let attack = Attack::new("R16");
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"] {
        let container = attack.container("stat -c %t,%T /proc/uptime", |config| {
            unmounted(config, "/dev");
            config["linux"]["maskedPaths"] = json!(["/proc/uptime"]);
        });
        container.link("dev/null", target);
        if let Some(out) = container.run_or_refuse() {
            assert_eq!(out.trim(), "1,3");
        }
    }
}

/// R19: /dev of the image is a link to the host (CVE-2026-41579, CVE-2026-47766).
#[test]
fn r19_dev_is_a_link() {
    let attack = Attack::new("R19");
    for mounted in [true, false] {
        let container = attack.container("true", |config| {
            if !mounted {
                unmounted(config, "/dev");
            }
            config["process"]["terminal"] = json!(false);
        });
        container.link("dev", attack.sentinel());
        let _ = container.run_or_refuse();
    }
}

/// R20: /dev/console is a link, with a terminal (CVE-2026-88264).
#[test]
fn r20_the_console_is_a_link() {
    let attack = Attack::new("R20");
    let container = terminal_in_the_images_dev(&attack);
    container.link("dev/console", attack.sentinel().join("x"));
    let _ = container.run_in_terminal();
    assert!(!attack.sentinel().join("x").exists());
}

/// R17: /dev/pts is a directory of the attacker's (CVE-2025-52565).
#[test]
fn r17_a_terminal_comes_from_a_devpts() {
    let attack = Attack::new("R17");
    let pts = attack.scene.path("pts");
    std::fs::create_dir(&pts).unwrap();
    std::os::unix::fs::symlink(attack.sentinel().join("ptmx"), pts.join("ptmx")).unwrap();
    std::os::unix::fs::symlink(attack.sentinel().join("secret"), pts.join("0")).unwrap();
    let container = attack.container("true", |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/pts");
        push(config, "mounts", bind(&pts, "/dev/pts"));
        config["process"]["terminal"] = json!(true);
    });
    let outcome = container.run_in_terminal();
    assert!(
        outcome.stdout.contains("/dev/pts") && !outcome.status.success(),
        "{outcome}"
    );
}

/// R27: whatever the runtime makes in a root stands there already, as a link to
/// the host (CVE-2025-24965).
#[test]
fn r27_every_stub_is_a_link() {
    let attack = Attack::new("R27");
    let file = attack.scene.write("hosts", "::1 localhost\n");
    let places = [
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "run/secrets",
        ".dockerenv",
        "data",
    ];
    let devices = [
        "dev/null",
        "dev/zero",
        "dev/tty",
        "dev/ptmx",
        "dev/fd",
        "dev/stdin",
        "dev/shm",
    ];
    for dev in [true, false] {
        let container = attack.container("true", |config| {
            for place in places {
                push(config, "mounts", bind(&file, &format!("/{place}")));
            }
            if !dev {
                unmounted(config, "/dev");
            }
        });
        for name in places.iter().chain(&devices) {
            container.link(name, attack.sentinel().join("made").join(name));
        }
        let _ = container.run_or_refuse();
    }
}

/// R29: a directory above a destination leads out (CVE-2024-5154, CVE-2025-0750).
#[test]
fn r29_etc_climbs_out() {
    let attack = Attack::new("R29");
    let file = attack.scene.write("hosts", "::1 localhost\n");
    let sentinel = attack.sentinel();
    let climb = "../../../../../../../..";
    for target in [
        format!("{climb}{}", sentinel.display()),
        sentinel.display().to_string(),
    ] {
        let container = attack.container("true", |config| {
            push(config, "mounts", bind(&file, "/etc/hosts"));
            push(
                config,
                "mounts",
                json!({"destination": "/etc/new/deep", "type": "tmpfs", "source": "tmpfs"}),
            );
        });
        container.link("etc", &target);
        let _ = container.run_or_refuse();
    }
}

/// R14: a working directory through a descriptor (CVE-2024-21626).
#[test]
fn r14_a_working_directory_stays_inside() {
    let attack = Attack::new("R14 cwd");
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let container = attack.container("pwd; cat secret", |config| {
            config["process"]["cwd"] = json!(cwd);
        });
        assert_eq!(container.run_or_refuse(), None, "{cwd}");
    }
    let container = attack.container("pwd -P", |config| {
        config["process"]["cwd"] = json!("/way/out");
    });
    container.link("way", "/proc/self/fd/7");
    let _ = container.run_or_refuse();
    let container = attack.container("pwd -P; ls", |config| {
        config["process"]["cwd"] = json!("/up/sentinel");
    });
    container.link("up", "../../../../../..");
    if let Some(out) = container.run_or_refuse() {
        assert_eq!(out.lines().next(), Some("/sentinel"), "{out}");
        assert!(!out.contains("secret"), "{out}");
    }
}

/// R14: the same for `exec --cwd`.
#[test]
fn r14_exec_cwd_stays_inside() {
    let attack = Attack::new("R14 exec");
    let container = attack.container("sleep 1000", |_| {});
    container.link("out", "/proc/self/fd/8");
    container.leave(&["run", "--detach"]);
    for number in 3..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let outcome = container.exec(&["--cwd", &cwd], &["/bin/pwd"]);
        assert!(!outcome.status.success(), "{outcome}");
    }
    assert!(
        !container
            .exec(&["--cwd", "/out"], &["/bin/pwd"])
            .status
            .success()
    );
}

/// R23: names that mean something to other tools (CVE-2026-119101, 115520, 119614):
/// a destination is the directory of that name and nothing else.
#[test]
fn r23_odd_names_are_names() {
    let attack = Attack::new("R23");
    let file = attack.scene.write("data/file", "here\n");
    let names = ["/a]:b", "/a,b", "/[x]", "/a\\040b", "/ü\nx", "/%s", "/-rf"];
    let container = attack.container("for d in '/a]:b' /a,b '/[x]' '/a\\040b' '/%s' /-rf; do cat \"$d/file\"; done; grep -c /data /proc/self/mountinfo", |config| {
        for name in names {
            push(config, "mounts", bind(file.parent().unwrap(), name));
        }
    });
    let out = container.run().succeeds();
    assert_eq!(
        out.lines().filter(|line| *line == "here").count(),
        6,
        "{out}"
    );
    assert_eq!(out.lines().last(), Some("7"), "{out}");
}
