//! `docker run`: how a program ends, and what it finds around itself.

use std::process::Stdio;

use super::Docker;
use crate::{Shim, under_both_shims};
use teu_integration_tests::Scene;

under_both_shims! { runs_containers }

fn runs_containers(shim: Shim) {
    let scene = Scene::new(&format!("docker run {shim:?}"));
    let Some(docker) = Docker::new(&scene, shim) else {
        return;
    };
    assert_eq!(docker.run(&[], &["echo", "hello"]).succeeds(), "hello");
    let _ = docker.run(&[], &["sh", "-c", "exit 7"]).exits(7);
    // dockerd reads these out of the runtime's words.
    let _ = docker
        .run(&[], &["nosuch"])
        .fails(127, &["executable file not found"]);
    let _ = docker
        .run(&[], &["/etc/passwd"])
        .fails(126, &["permission denied"]);
    let flags = "-m 64m --pids-limit 50 --read-only --tmpfs /scratch -u 1000:1000 -e A=b \
                 --cap-drop ALL --security-opt no-new-privileges --init";
    let script = "id -u; echo $A; grep CapBnd /proc/self/status; touch /scratch/x; touch /x 2>&1";
    let out = docker.shell(flags, script).exits(1).stdout;
    for part in [
        "1000\n",
        "\nb\n",
        "\t0000000000000000\n",
        "Read-only file system",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    let out = docker.run(&["-t"], &["tty"]).succeeds();
    assert_eq!(out.trim_end(), "/dev/pts/0");
    let info = docker.line("info").succeeds();
    assert!(info.contains("Default Runtime: teu"), "{info}");
}

#[test]
fn how_a_program_ended_is_told() {
    let scene = Scene::new("docker exit codes");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    // A program that was killed, and one that took SIGTERM for what it means.
    for (name, order, code) in [("killed", "kill", "137"), ("asked", "stop -t 30", "143")] {
        docker
            .line(&format!(
                "run -d --init --network none --name {name} busybox sleep 1000"
            ))
            .succeeds();
        let mut waiting = docker.spawn(&["wait", name]);
        let waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
        docker.line(&format!("{order} {name}")).succeeds();
        let told = docker.end_of(waiting);
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), code);
        assert_eq!(docker.inspect(name, "State.ExitCode"), code);
        assert_eq!(docker.inspect(name, "State.OOMKilled"), "false");
    }
    docker.detached("one", "", super::LOOP);
    for (program, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -15 $$"], 143),
    ] {
        let told = docker.call(&[&["exec", "one"], program].concat());
        let _ = told.exits(code);
    }
    // Which of them docker makes of it, is its version's affair.
    let missing = docker.line("exec one nosuch").code();
    assert!([126, 127].contains(&missing), "{missing}");
    docker.line("rm -f one").succeeds();
}

#[test]
fn a_program_finds_what_was_asked_for() {
    let scene = Scene::new("docker process");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    scene.write("variables", "FROM_FILE=file\nA=overridden\n");
    let flags = "-e A=b --env-file variables -w /home/app -h box --add-host friend:192.0.2.7";
    let script = "echo $A $FROM_FILE; pwd; hostname; grep -c '192.0.2.7.friend' /etc/hosts";
    assert_eq!(
        docker.shell(flags, script).succeeds(),
        "b file\n/home/app\nbox\n1"
    );
    let who = "id -u; id -g; id -G; echo $HOME";
    for (flags, expected) in [
        ("", "0\n0\n0\n/root"),
        ("-u app", "1000\n1000\n1000 2000\n/home/app"),
        (
            "-u 5:6 --group-add 7 --group-add extra",
            "5\n6\n6 7 2000\n/",
        ),
    ] {
        assert_eq!(docker.shell(flags, who).succeeds(), expected, "{flags}");
    }
    assert_eq!(
        docker.shell("--entrypoint echo", "not run").succeeds(),
        "sh -c not run"
    );
    let flags = "--ulimit nofile=100:200 --ulimit core=0 --ulimit stack=1048576";
    assert_eq!(
        docker
            .shell(flags, "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -s")
            .succeeds(),
        "100\n200\n0\n1024"
    );
    let flags = "--sysctl net.ipv4.ip_default_ttl=77 --shm-size 3m --oom-score-adj 300";
    let script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj; \
                  df -k /dev/shm | tail -n 1 | awk '{print $2}'";
    assert_eq!(docker.shell(flags, script).succeeds(), "77\n300\n3072");
    let namespaces = "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done";
    let flags = "--pid host --ipc host --uts host";
    assert_eq!(
        docker.shell(flags, namespaces).succeeds(),
        scene.shell(namespaces)
    );
}

#[test]
fn capabilities_and_calls_are_what_was_allowed() {
    let scene = Scene::new("docker privileges");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let status = |flags: &str, field: &str| {
        let script = format!("sed -n 's/^{field}:[[:space:]]*//p' /proc/self/status");
        docker.shell(flags, &script).succeeds()
    };
    assert_eq!(status("", "CapEff"), "00000000a80425fb");
    let flags = "--cap-drop ALL --cap-add CHOWN --cap-add NET_ADMIN";
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(flags, set), "0000000000001001");
    }
    assert_eq!(status("-u 1000", "CapEff"), "0000000000000000");
    // All that this machine can give: 38 that docker 20 knows of, but for one that is dropped. Later
    // ones do not take the name of one that the machine lacks.
    let all = ["--cap-add ALL --cap-drop SYS_RESOURCE", "--cap-add ALL"];
    let read = "sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status";
    let all = all.map(|flags| docker.shell(flags, read));
    let all = all.iter().find(|out| out.code() == 0).unwrap();
    let all = u64::from_str_radix(all.stdout.trim(), 16).unwrap();
    assert!(all.count_ones() >= 37, "{all:x}");
    let link = "ip link add type dummy 2>/dev/null; ip link set lo down && echo changed";
    assert_eq!(
        docker.shell("--cap-add NET_ADMIN", link).succeeds(),
        "changed"
    );
    assert_ne!(docker.shell("", link).code(), 0);

    assert_eq!(status("", "Seccomp"), "2");
    assert_eq!(status("--security-opt seccomp=unconfined", "Seccomp"), "0");
    let share = "unshare -U true";
    assert_ne!(docker.shell("", share).code(), 0, "the default profile");
    let open = "--security-opt seccomp=unconfined";
    docker.shell(open, share).succeeds();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    scene.write("profile.json", profile);
    let own = "--security-opt seccomp=profile.json";
    let script = "mkdir /tmp/new 2>&1; touch /tmp/file && echo touched";
    let out = docker.shell(own, script).succeeds();
    assert!(
        out.contains("No space left on device") && out.ends_with("touched"),
        "{out}"
    );
    assert_eq!(status("", "NoNewPrivs"), "0");
    let flags = "--security-opt no-new-privileges";
    assert_eq!(status(flags, "NoNewPrivs"), "1");
}

#[test]
fn devices_are_those_that_were_named() {
    let scene = Scene::new("docker devices");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    // The host's log may be written to, not read: neither is docker's default.
    let flags = "--device /dev/kmsg:/dev/mine:w";
    let opened =
        |flags: &str, how: &str| docker.shell(flags, &format!("exec 3{how} && echo opened"));
    assert_eq!(opened(flags, "> /dev/mine").succeeds(), "opened");
    let _ = opened(flags, "< /dev/mine").fails(1, &["Operation not permitted"]);
    // A node may be made, but what it names is not the container's until a rule says so.
    let node = "mknod /tmp/node c 1 11 && exec 3> /tmp/node && echo opened";
    let _ = docker
        .shell("", node)
        .fails(1, &["Operation not permitted"]);
    let flags = ["--device-cgroup-rule", "c 1:11 w"];
    let out = docker.run(&flags, &["sh", "-c", node]);
    assert_eq!(out.succeeds(), "opened");
    let nodes = "ls /dev";
    let out = docker.shell("", nodes).succeeds();
    assert!(!out.contains("kmsg") && out.contains("null"), "{out}");
}
