//! What the program finds: environment, user, capabilities, limits, descriptors.

use super::{Container, in_container};
use serde_json::json;
use teu_integration_tests::Scene;

#[test]
fn environment_and_working_directory() {
    let out = in_container(
        "environment",
        "pwd; echo \"$GREETING\"; echo $HOME; env | wc -l",
        |config| {
            config["process"]["cwd"] = json!("/tmp");
            config["process"]["env"] = json!(["PATH=/bin", "GREETING=a b\nc"]);
        },
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..4], ["/tmp", "a b", "c", "/root"]);
}

#[test]
fn a_missing_working_directory_is_made() {
    let out = in_container("working directory", "pwd", |config| {
        config["process"]["cwd"] = json!("/made/for/me");
        config["root"]["readonly"] = json!(false);
    });
    assert_eq!(out, "/made/for/me");
}

#[test]
fn user_groups_and_umask() {
    let out = in_container("user", "id -u; id -g; id -G; umask", |config| {
        config["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 2000], "umask": 0o27});
    });
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["1000", "1001", "1001 5 2000", "0027"]
    );
}

#[test]
fn capabilities_are_those_asked_for() {
    let out = in_container("capabilities", "grep ^Cap /proc/self/status", |config| {
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let set = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let (chown, kill) = (1 << 0, 1 << 5);
    assert_eq!(
        [
            set("CapInh"),
            set("CapPrm"),
            set("CapEff"),
            set("CapBnd"),
            set("CapAmb")
        ],
        [kill, kill, kill, kill | chown, kill]
    );
}

#[test]
fn a_user_without_ambient_capabilities_has_none() {
    let out = in_container(
        "no ambient",
        "grep -E '^Cap(Eff|Amb|Inh)' /proc/self/status",
        |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        },
    );
    for line in out.lines() {
        assert!(line.ends_with("0000000000000000"), "{out}");
    }
}

#[test]
fn limits_and_no_new_privileges() {
    let out = in_container(
        "limits",
        "ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj",
        |config| {
            config["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 600}]);
            config["process"]["oomScoreAdj"] = json!(777);
        },
    );
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["512", "600", "NoNewPrivs:\t1", "777"]
    );
}

#[test]
fn no_descriptor_leaks_into_the_container() {
    let scene = Scene::new("descriptors");
    let container = Container::script(&scene, "c", "ls /proc/self/fd", |_| {});
    let out = scene.shell(&format!("exec 7</etc/passwd; {}", container.line("run")));
    // `ls` holds the directory it reads as descriptor 3.
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn preserved_descriptors_are_passed() {
    let scene = Scene::new("preserved descriptors");
    let container = Container::script(&scene, "c", "cat <&3; cat <&4", |_| {});
    scene.write("three", "3");
    scene.write("four", "4");
    let line = container.line("run --preserve-fds 2");
    assert_eq!(scene.shell(&format!("exec 3<three 4<four; {line}")), "34");
}
