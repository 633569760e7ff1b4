//! Users, groups, capabilities, environment.

use serde_json::{Value, json};

use super::Attack;

/// The words of `/proc/self/status` behind a name.
fn status(out: &str, name: &str) -> String {
    let line = out
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {out}"))
        .split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}

/// R2: a user of the image whose name is a number (CVE-2016-3697).
#[test]
fn r02_a_number_is_a_uid() {
    let attack = Attack::new("R2");
    let container = attack.container("sleep 1000", |_| {});
    std::fs::write(
        container.root("etc/passwd"),
        "1000:x:0:0::/:/bin/sh\n1001:x:0:0::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(container.root("etc/group"), "1000:x:0:1000\n").unwrap();
    container.leave(&["run", "--detach"]);
    let id = |words: &[&str]| container.exec(words, &["/bin/id", "-u"]).succeeds();
    assert_eq!(id(&["-u", "1000"]), "1000");
    assert_eq!(id(&["-u", "1001:1000"]), "1001");
    let group = container
        .exec(&["-u", "1001:1000"], &["/bin/id", "-g"])
        .succeeds();
    assert_eq!(group, "1000");
}

/// R3: an ordinary user has no capability (CVE-2016-8867).
#[test]
fn r03_ordinary_users_hold_no_capabilities() {
    let attack = Attack::new("R3");
    let container = attack.container("cat /proc/self/status", |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let out = container.run().succeeds();
    for set in ["CapEff", "CapPrm", "CapAmb", "CapInh"] {
        assert_eq!(status(&out, set), "0000000000000000", "{set}: {out}");
    }
}

/// R11: no inheritable capability unless asked for (CVE-2022-24769, 27649,
/// 27650, 27651, 27652, 29162, CVE-2025-27612).
#[test]
fn r11_nothing_is_inheritable_unasked() {
    let attack = Attack::new("R11");
    let none = "0000000000000000";
    let container = attack.container("cat /proc/self/status; sleep 1000", |_| {});
    container.leave(&["run", "--detach"]);
    let inheritable = |flags: &[&str], args: &[&str]| {
        let out = container.exec(flags, args).succeeds();
        status(&out, "CapInh")
    };
    let cat = ["/bin/cat", "/proc/self/status"];
    assert_eq!(inheritable(&[], &cat), none);
    assert_eq!(inheritable(&["--cap", "CAP_KILL"], &cat), none);
    let out = container.in_terminal(&["exec", "--tty"], &cat).succeeds();
    assert_eq!(status(&out, "CapInh"), none);
    let process = json!({"args": cat, "cwd": "/", "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}});
    let file = attack.scene.write("process.json", process.to_string());
    assert_eq!(
        inheritable(&["--process", file.to_str().unwrap()], &[]),
        none
    );
    container.delete();
    let asked = attack.container("cat /proc/self/status", |config| {
        config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    });
    assert_eq!(
        status(&asked.run().succeeds(), "CapInh"),
        "0000000000000020"
    );
}

/// R24, R25: every form of `--user` is that uid or an error, and none but "0"
/// forms is root (CVE-2026-30892, CVE-2024-40635, CVE-2026-46680).
#[test]
fn r24_r25_a_uid_is_read_exactly() {
    let attack = Attack::new("R24 R25");
    let container = attack.container("sleep 1000", |_| {});
    container.leave(&["run", "--detach"]);
    let good = [
        ("1", "1 0"),
        ("1:1", "1 1"),
        ("1:2", "1 2"),
        ("1000", "1000 0"),
        ("0", "0 0"),
        ("0:5", "0 5"),
        ("2147483647", "2147483647 0"),
        ("65534:65534", "65534 65534"),
        ("01", "1 0"),
        ("00:07", "0 7"),
        ("4294967294", "4294967294 0"),
        // As with runc, no value is none: who the configuration says.
        ("", "0 0"),
    ];
    for (user, ids) in good {
        let out = container.exec(
            &[&format!("--user={user}")],
            &["/bin/sh", "-c", "echo $(id -u) $(id -g)"],
        );
        assert_eq!(out.succeeds(), ids, "--user {user}");
    }
    let bad = [
        ":1",
        ":",
        "1:",
        "-1",
        "--1",
        "4294967295",
        "4294967296",
        "4294967297",
        "8589934592",
        "18446744073709551616",
        "0x1",
        "0x0",
        " 1",
        "1 ",
        "1abc",
        "abc",
        "root",
        "+x",
        "+1",
        "+0",
        "1:+2",
        "1:1:",
        "1:-1",
        "1:4294967295",
        "1:4294967296",
        "1:abc",
        "1:1:1",
        "1.0",
        "１",
        "٠",
        "1,2",
        "0\n",
        "1e3",
    ];
    for user in bad {
        let out = container.exec(&[&format!("--user={user}")], &["/bin/id", "-u"]);
        if out.status.success() {
            // Accepted forms must at least not be root by accident.
            assert_ne!(out.stdout.trim(), "0", "--user {user:?}: {out}");
            panic!("--user {user:?} is accepted: {out}");
        }
    }
}

/// R25: the same in a configuration, where the largest number means "nobody".
#[test]
fn r25_a_configured_uid_is_read_exactly() {
    let attack = Attack::new("R25");
    for uid in [
        json!(-1),
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!("0"),
        json!(1.5),
    ] {
        let container = attack.container("id -u", |config: &mut Value| {
            config["process"]["user"]["uid"] = uid.clone();
        });
        assert_eq!(container.run_or_refuse(), None, "uid {uid}");
    }
}

/// R26: groups are those of the configuration, no more and no less
/// (CVE-2023-25173, CVE-2022-36109, 2989, 2990, 2995).
#[test]
fn r26_groups_are_exact() {
    let attack = Attack::new("R26");
    for (groups, out) in [
        (json!([]), "7"),
        (json!([8, 2000]), "7 8 2000"),
        (json!([7]), "7"),
    ] {
        let container = attack.container("id -G; cat /closed 2>&1", |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 7, "additionalGids": groups});
        });
        attack.scene.shell(&format!(
            "echo open > {0}; chown 0:2000 {0}; chmod 604 {0}",
            container.root("closed").display()
        ));
        let got = container.run().stdout;
        assert_eq!(got.lines().next(), Some(out), "{got}");
        // A file that its group may not read, though others may.
        assert_eq!(
            got.contains("Permission denied"),
            out.contains("2000"),
            "{got}"
        );
    }
    let container = attack.container("sleep 1000", |config| {
        config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [10, 20]});
    });
    container.leave(&["run", "--detach"]);
    let out = container.exec(
        &["-u", "1000:7", "--additional-gids", "30"],
        &["/bin/id", "-G"],
    );
    // As runc has it, those of the configuration stay.
    assert_eq!(out.succeeds(), "7 10 20 30");
}

/// R30: HOME with a line break reaches no file (CVE-2022-4318).
#[test]
fn r30_an_environment_writes_no_passwd() {
    let attack = Attack::new("R30");
    let home = "HOME=/x\nroot2::0:0::/:/bin/sh";
    let container = attack.container("cat /etc/passwd", |config| {
        config["process"]["env"] = json!([home, "PATH=/bin"]);
    });
    let before = std::fs::read(container.root("etc/passwd")).unwrap();
    let out = container.run().succeeds();
    assert!(!out.contains("root2"), "{out}");
    assert_eq!(before, std::fs::read(container.root("etc/passwd")).unwrap());
}

/// R34: malformed variables bring nothing of the host's environment
/// (CVE-2026-57231).
#[test]
fn r34_the_hosts_environment_stays_outside() {
    let attack = Attack::new("R34");
    let odd = [
        "*",
        "CANARY",
        "CAN*",
        "=x",
        "=",
        "",
        "A",
        "$CANARY",
        "${CANARY}",
        "X=${CANARY}",
        "X=*",
        "CANARY_=",
        "%CANARY%",
        "-CANARY",
        "CANARY ",
        "!CANARY",
        "PATH=/bin",
    ];
    let container = attack.container("cat /proc/self/environ | tr '\\0' '\\n'", |config| {
        config["process"]["env"] = json!(odd);
    });
    let mut command = container.command(&["run"]);
    let file = attack.scene.path("out");
    command
        .env("CANARY", "sings")
        .stdout(std::fs::File::create(&file).unwrap());
    let _ = command.status().unwrap();
    let out = std::fs::read_to_string(&file).unwrap();
    assert!(
        !out.contains("sings") && !out.contains("TEU_TEST_SCENE"),
        "{out}"
    );
    let container = attack.container("true", |config| {
        config["process"]["env"] = json!(["A=b\u{0}CANARY=1"]);
    });
    assert_eq!(container.run_or_refuse(), None);
}
