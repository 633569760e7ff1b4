//! How the kernel runs the program: personality, scheduler, I/O priority,
//! CPUs, memory policy. Each is asked of the kernel from inside.

use super::{Container, in_container};
use serde_json::{Value, json};
use teu_integration_tests::{Scene, missing_command, needs_root, skip_unless};

/// Nice value, real-time priority and policy of the shell (`proc(5)`, stat).
const SCHEDULER: &str = "read -r line </proc/$$/stat; set -- $line; echo ${19} ${40} ${41}";

/// Whether the host lets root run a program so: what it refuses there is not
/// the runtime's to give.
fn host_allows(scene: &Scene, program: &str, args: &[&str]) -> bool {
    !missing_command(program) && scene.run(program, args).code() == 0
}

#[test]
fn a_personality_shows_a_smaller_machine() {
    let scene = Scene::new("personality");
    let machine = scene.shell("uname -m");
    let small = match machine.trim() {
        "x86_64" => "i686",
        "aarch64" => "armv8l",
        other => {
            skip_unless!(scene, false, "no 32-bit machine below {other}");
            return;
        }
    };
    skip_unless!(
        scene,
        host_allows(&scene, "setarch", &["linux32", "true"]),
        "the host refuses linux32"
    );
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        // Set before the filter, which need not allow it.
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]});
    });
    container.run_detached();
    assert_eq!(container.exec("uname -m").succeeds().trim(), small);
    let pid = container.state()["pid"].to_string();
    assert_eq!(
        scene.shell(&format!("cat /proc/{pid}/personality")).trim(),
        "00000008"
    );
    let plain = in_container("plain personality", "uname -m", |config| {
        config["linux"]["personality"] = json!({"domain": "LINUX"});
    });
    assert_eq!(plain, machine);
}

#[test]
fn the_scheduler_is_set_without_leaving_the_capability() {
    let scene = Scene::new("scheduler");
    needs_root!(scene, "only root may raise priorities");
    for (scheduler, shown) in [
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "7 0 3"),
        (json!({"policy": "SCHED_OTHER", "nice": -3}), "-3 0 0"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5"),
    ] {
        let out = in_container("scheduler", SCHEDULER, |config| {
            config["process"]["scheduler"] = scheduler;
        });
        assert_eq!(out, shown);
    }
}

#[test]
fn a_process_of_exec_has_its_own_scheduler() {
    let scene = Scene::new("scheduler of exec");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 2});
    });
    container.run_detached();
    assert_eq!(container.exec(SCHEDULER).succeeds(), "2 0 3");
    let process = json!({"args": ["/bin/sh", "-c", SCHEDULER], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "scheduler": {"policy": "SCHED_IDLE"}});
    let file = scene.write("process.json", process.to_string());
    let out = container.call(&["exec", "--process", file.to_str().unwrap()], &[]);
    assert_eq!(out.succeeds(), "0 0 5");
}

#[test]
fn real_time_policies_are_set() {
    let scene = Scene::new("real-time policies");
    let cases = [
        (
            ["-f", "12", "true"].as_slice(),
            json!({"policy": "SCHED_FIFO", "priority": 12, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "12 1",
        ),
        (
            &["-r", "3", "true"],
            json!({"policy": "SCHED_RR", "priority": 3}),
            "3 2",
        ),
        (
            &[
                "-d", "-T", "5000000", "-D", "20000000", "-P", "20000000", "0", "true",
            ],
            json!({"policy": "SCHED_DEADLINE", "runtime": 5_000_000, "deadline": 20_000_000, "period": 20_000_000}),
            "0 6",
        ),
    ];
    // A cgroup of version 1 has no time for real-time tasks unless it is given some.
    let group = format!("/sys/fs/cgroup/cpu{}", scene.cgroup());
    let give = format!("mkdir {group} && echo 20000 >{group}/cpu.rt_runtime_us");
    let with_time = scene.run("sh", ["-c", &give]).code() == 0;
    for (host, scheduler, shown) in cases {
        skip_unless!(
            scene,
            host_allows(&scene, "chrt", host),
            "the host refuses chrt {host:?}"
        );
        let script = "read -r line </proc/$$/stat; set -- $line; echo ${40} ${41}";
        let name = scheduler["policy"].as_str().unwrap().to_lowercase();
        let container = Container::script(&scene, &name, script, |config| {
            config["process"]["scheduler"] = scheduler.clone();
            if with_time {
                config["linux"]["resources"]["cpu"] = json!({"realtimeRuntime": 1000});
            }
        });
        let outcome = container.run();
        if outcome.code() != 0 {
            // Without that time the refusal is named.
            let _ = outcome.fails(1, &["process.scheduler", "not permitted"]);
            teu_integration_tests::skipped(scene.name(), &format!("the cgroup refuses {name}"));
            continue;
        }
        assert_eq!(outcome.succeeds(), shown);
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_is_named() {
    let scene = Scene::new("refused policy");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_ISO"});
    });
    let _ = container.run().fails(1, &["process.scheduler"]);
}

#[test]
fn the_io_priority_is_set() {
    let scene = Scene::new("I/O priority");
    needs_root!(scene, "only root may raise priorities");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |config| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    });
    container.run_detached();
    let pid = container.state()["pid"].to_string();
    let host = scene.run("busybox", ["ionice", "-p", &pid]).succeeds();
    assert!(host.contains("best-effort") && host.contains('6'), "{host}");
    let inside = container.exec("ionice -p $$").succeeds();
    assert_eq!(inside, host);
    // Needs a capability that the container itself has not.
    let urgent = in_container("urgent I/O", "ionice -p $$", |config| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 1});
    });
    assert!(
        urgent.contains("realtime") && urgent.contains('1'),
        "{urgent}"
    );
}

/// CPUs that the shell may run on, as the kernel lists them.
const CPUS: &str = "while read -r name list; do [ $name = Cpus_allowed_list: ] && echo $list; done </proc/self/status; true";

#[test]
fn exec_runs_on_the_final_cpus_and_init_does_not() {
    let scene = Scene::new("CPUs of exec");
    needs_root!(scene, "under strace newuidmap has no privilege");
    skip_unless!(
        scene,
        host_allows(&scene, "taskset", &["-c", "0,1", "true"]),
        "CPUs 0 and 1 are needed"
    );
    let container = Container::script(&scene, "c", &format!("{CPUS}; exec sleep 1000"), |config| {
        config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    });
    container.run_detached();
    assert_eq!(container.exec(CPUS).succeeds(), "1");
    let pid = container.state()["pid"].to_string();
    let of_init = scene.shell(&format!(
        "grep Cpus_allowed_list /proc/{pid}/status | cut -f2"
    ));
    let own = scene.shell("grep Cpus_allowed_list /proc/self/status | cut -f2");
    assert_eq!(of_init, own, "the setting is for exec alone");
    skip_unless!(scene, !missing_command("strace"), "strace is not installed");
    let command = scene.command("teu-runtime", ["exec", &container.id, "/bin/true"]);
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let traced = [
        "-f",
        "-qq",
        "-e",
        "trace=sched_setaffinity,setns,clone3",
        "--",
    ];
    let words: Vec<_> = traced
        .into_iter()
        .map(std::ffi::OsStr::new)
        .chain(words)
        .collect();
    let trace = scene.run("strace", words).stderr;
    let at = |part: &str| {
        trace
            .find(part)
            .unwrap_or_else(|| panic!("no {part} in {trace}"))
    };
    assert!(at(", [0])") < at("clone3("), "{trace}");
    assert!(at("clone3(") < at(", [1])"), "{trace}");
    assert!(at(", [1])") < trace.rfind("setns(").unwrap(), "{trace}");
}

#[test]
fn a_cpu_that_is_not_there_is_named() {
    let scene = Scene::new("missing CPU");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    for (initial, last, field) in [
        ("1023", "", "process.execCPUAffinity.initial"),
        ("", "1023", "process.execCPUAffinity.final"),
        ("", "1-0", "process.execCPUAffinity.final"),
    ] {
        let process = json!({"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "execCPUAffinity": {"initial": initial, "final": last}});
        let file = scene.write("process.json", process.to_string());
        let _ = container
            .call(&["exec", "--process", file.to_str().unwrap()], &[])
            .fails(255, &[field]);
    }
}

#[test]
fn the_memory_policy_is_set() {
    let scene = Scene::new("memory policy");
    skip_unless!(
        scene,
        std::path::Path::new("/proc/self/numa_maps").exists(),
        "this kernel has no NUMA"
    );
    for (name, policy, shown) in [
        ("bind", json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            "static",
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "interleave=static:0",
        ),
        ("local", json!({"mode": "MPOL_LOCAL"}), "local"),
        ("default", json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let container = Container::new(&scene, name, &["/bin/sleep", "1000"], |config| {
            config["linux"]["memoryPolicy"] = policy;
        });
        container.run_detached();
        let pid = container.state()["pid"].to_string();
        let maps = scene.shell(&format!("cat /proc/{pid}/numa_maps"));
        assert!(maps.contains(&format!(" {shown} ")), "{name}: {maps}");
        let inside = container.exec("cat /proc/$$/numa_maps").succeeds();
        assert!(inside.contains(&format!(" {shown} ")), "{name}: {inside}");
    }
}

#[test]
fn what_is_not_carried_out_is_refused_by_its_name() {
    let scene = Scene::new("refused fields");
    let cases: [(&str, Value, &str); 8] = [
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags",
        ),
        (
            "/process/scheduler",
            json!({"policy": "FIFO"}),
            "process.scheduler.policy",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority",
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "x"}),
            "process.execCPUAffinity.final",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "x"}),
            "linux.memoryPolicy.nodes is an invalid memory policy node",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_DEFAULT", "nodes": "0"}),
            "linux.memoryPolicy: set_mempolicy: invalid argument",
        ),
        ("/linux/netDevices", json!({"a/b": {}}), "linux.netDevices"),
        (
            "/linux/intelRdt",
            json!({"closID": ".."}),
            "intelRdt.ClosID",
        ),
    ];
    for (number, (place, value, field)) in cases.into_iter().enumerate() {
        let (section, name) = place[1..].split_once('/').unwrap();
        let container = Container::new(&scene, &format!("c{number}"), &["/bin/true"], |config| {
            config[section][name] = value;
        });
        let _ = container.run().fails(1, &[field]);
    }
    assert_eq!(scene.run("teu-runtime", ["list", "-q"]).succeeds(), "");
}
