//! What a program finds around itself, and what it may do.

use super::Podman;
use teu_integration_tests::Scene;

#[test]
fn podmans_program_finds_what_was_asked_for() {
    let scene = Scene::new("podman process");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let file = scene.write("variables", "FROM_FILE=file\nA=overridden\n");
    let file = file.display();
    let flags = format!(
        "-e A=b --env-file {file} -w /home/app -h box --add-host friend:192.0.2.7 --init \
         --ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=10000 --sysctl net.ipv4.ip_default_ttl=77 --shm-size 3m --oom-score-adj 300"
    );
    let script = "echo $A $FROM_FILE; pwd; hostname; grep -c '192.0.2.7.friend' /etc/hosts; \
                  ulimit -Sn; ulimit -Hn; ulimit -c; \
                  cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj; \
                  df -k /dev/shm | tail -n 1 | awk '{print $2}'; echo $(($$ > 1))";
    assert_eq!(
        podman.shell(&flags, script).succeeds(),
        "b file\n/home/app\nbox\n1\n100\n200\n0\n77\n300\n3072\n1"
    );
    let who = "id -u; id -g; id -G; echo $HOME";
    for (flags, expected) in [
        ("-u app", "1000\n1000\n1000 2000\n/home/app"),
        (
            "-u 5:6 --group-add 7 --group-add extra",
            "5\n6\n6 7 2000\n/",
        ),
    ] {
        assert_eq!(podman.shell(flags, who).succeeds(), expected, "{flags}");
    }
    let out = podman.shell("--entrypoint echo", "not run").succeeds();
    assert_eq!(out, "sh -c not run");
    let namespaces = "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done";
    let hosts = "--pid host --ipc host --uts host";
    assert_eq!(
        podman.shell(hosts, namespaces).succeeds(),
        scene.shell(namespaces)
    );
}

#[test]
fn podmans_capabilities_calls_and_devices_are_what_was_allowed() {
    let scene = Scene::new("podman privileges");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let status = |flags: &str| {
        let script =
            "sed -nE 's/^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs):[[:space:]]*//p' /proc/self/status";
        let out = podman.shell(flags, script).succeeds();
        out.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let some = "0000000000001001";
    let flags =
        "--cap-drop ALL --cap-add CHOWN --cap-add NET_ADMIN --security-opt seccomp=unconfined";
    assert_eq!(status(flags), [some, some, "0", "0"]);
    let flags = "-u 1000 --security-opt no-new-privileges";
    let found = status(flags);
    assert_eq!(found[0], "0000000000000000");
    assert_eq!(found[2..], ["1", "2"]);
    let link = "ip link set lo down && echo changed";
    let allowed = podman.shell("--cap-add NET_ADMIN", link);
    assert_eq!(allowed.succeeds(), "changed");
    assert_ne!(podman.shell("", link).code(), 0);

    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    let profile = scene.write("profile.json", profile);
    let own = format!("--security-opt seccomp={}", profile.display());
    let script = "mkdir /tmp/new 2>&1; touch /tmp/file && echo touched";
    let out = podman.shell(&own, script).succeeds();
    assert!(
        out.contains("No space left on device") && out.ends_with("touched"),
        "{out}"
    );

    // The host's log may be written to, not read; another name for it is no way round.
    let flags = "--cap-add MKNOD --device /dev/kmsg:/dev/mine:w";
    let script = "(exec 3> /dev/mine) && echo written; (exec 3< /dev/mine) 2>&1; \
                  mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c; \
                  mknod /tmp/disk b 1 0 && (exec 3< /tmp/disk) 2>&1; true";
    let out = podman.shell(flags, script).succeeds();
    let refused = out.matches("Operation not permitted").count();
    assert!(out.starts_with("written\n"), "{out}");
    assert!(out.contains("\n1\n") && refused == 2, "{out}");
}

/// What an exec session finds is the container's, changed as its flags say.
#[test]
fn podmans_exec_sessions_have_settings_of_their_own() {
    let scene = Scene::new("podman exec's flags");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    podman.detached("one", "-e A=a -w /tmp --cap-drop ALL", "exec sleep 1000");
    let script = "echo $A $B; pwd; id -u; sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status";
    let exec = |flags: &str| {
        let flags = flags.split_whitespace();
        let words = ["exec"].into_iter().chain(flags);
        let words = words.chain(["one", "sh", "-c", script]);
        podman.call(&words.collect::<Vec<_>>()).succeeds()
    };
    assert_eq!(exec(""), "a\n/tmp\n0\n0000000000000000");
    let changed = exec("-e B=b --env A=c -w /home -u app");
    assert_eq!(changed, "c b\n/home\n1000\n0000000000000000");
    let most = exec("--privileged");
    let most = most.lines().last().unwrap();
    assert!(
        u64::from_str_radix(most, 16).unwrap().count_ones() > 30,
        "{most}"
    );
    let listed = podman.say("top one args").succeeds();
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["COMMAND", "sleep 1000 "]
    );
    podman.say("rm -f -t 0 one").succeeds();
}
