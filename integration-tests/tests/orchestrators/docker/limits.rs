//! What containers may use, in the cgroup's own files and in effect.

use super::{Docker, LOOP};
use crate::{Shim, cgroup_file};
use teu_integration_tests::Scene;

#[test]
fn limits_stand_in_the_cgroup_and_hold() {
    let scene = Scene::new("docker limits");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let flags = "-m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.05 --cpu-shares 512 \
                 --cpuset-cpus 0 --pids-limit 20";
    // No loop: one that may not fork any more ends, and the container with it.
    docker.detached("one", flags, "sleep 1000 & wait");
    let pid = docker.pid("one");
    let figure = |controller: &str, v1: &str, v2: &str| cgroup_file(pid, controller, v1, v2);
    assert_eq!(
        figure("memory", "memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(
        figure("memory", "memory.soft_limit_in_bytes", "memory.low"),
        "33554432"
    );
    let quota = figure("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("5000"), "{quota}");
    let shares = figure("cpu", "cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "20", "{shares}");
    assert_eq!(figure("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(figure("pids", "pids.max", "pids.max"), "20");
    let parent = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(parent.contains(&scene.cgroup()), "{parent}");

    // In effect: the twentieth process is refused.
    let many = "for i in $(seq 30); do sleep 1 & done; wait";
    let out = docker.script("exec one", many);
    assert!(out.stderr.contains("can't fork"), "{out}");
    scene.wait_until("they have ended", || {
        figure("pids", "pids.current", "pids.current")
            .parse::<u32>()
            .unwrap()
            < 5
    });
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let out = docker.script("exec one", allowed).succeeds();
    assert_eq!(out.split_whitespace().last(), Some("0"));
    scene.wait_until("who computes is held up", || {
        let _ = docker.script("exec one", "timeout 1 sh -c 'while :; do :; done'");
        let stat = figure("cpu", "cpu.stat", "cpu.stat");
        let mut throttled = stat
            .lines()
            .filter_map(|line| line.strip_prefix("nr_throttled "));
        throttled.next().unwrap().parse::<u32>().unwrap() > 3
    });

    let words = "update -m 128m --memory-swap 256m --cpus 0.5 --pids-limit 40 one";
    docker.line(words).succeeds();
    assert_eq!(
        figure("memory", "memory.limit_in_bytes", "memory.max"),
        "134217728"
    );
    let quota = figure("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    assert_eq!(figure("pids", "pids.max", "pids.max"), "40");
    docker.line("rm -f one").succeeds();
}

#[test]
fn who_uses_too_much_memory_is_killed() {
    let scene = Scene::new("docker oom");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let fill = "x=$(yes | head -c 100000000); echo no";
    let line = "run --network none --name init -m 8m busybox";
    let _ = docker.script(line, fill).exits(137);
    assert_eq!(docker.inspect("init", "State.OOMKilled"), "true");
    // A child is killed; the container goes on, and ends as it likes.
    let line = "run --network none --name child -m 8m busybox";
    let _ = docker
        .script(line, &format!("sh -c '{fill}'; exit 4"))
        .exits(4);
    scene.wait_until("docker has heard of both", || {
        docker.events("oom", "name") == ["init", "child"]
    });
}

#[test]
fn figures_are_the_cgroups() {
    let scene = Scene::new("docker stats");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    docker.detached("one", "-m 64m", LOOP);
    let pid = docker.pid("one");
    let stats = || -> serde_json::Value {
        let socket = scene.path("docker.sock").display().to_string();
        let address = "http://localhost/containers/one/stats?stream=false&one-shot=true";
        let out = scene.run("curl", ["-s", "--unix-socket", &socket, address]);
        serde_json::from_str(&out.succeeds()).unwrap()
    };
    let cpu = |stats: &serde_json::Value| stats["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    let first = stats();
    assert_eq!(first["memory_stats"]["limit"], 64 << 20);
    let used = || cgroup_file(pid, "cpuacct", "cpuacct.usage", "cpu.stat");
    let used = || -> u64 {
        let text = used();
        let usec = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        usec.map_or_else(
            || text.parse().unwrap(),
            |usec| usec.parse::<u64>().unwrap() * 1000,
        )
    };
    let before = used();
    let between = stats();
    let after = used();
    let told = cpu(&between).unwrap();
    assert!(
        before / 1000 <= told / 1000 && told <= after + 1000,
        "{before} <= {told} <= {after}"
    );
    // Under load they move: processes, memory, time.
    let load = "head -c 20000000 /dev/zero > /dev/shm/x; \
                for i in 1 2 3; do sleep 1000 & done; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    docker.script("exec one", load).succeeds();
    let loaded = stats();
    let memory = |stats: &serde_json::Value| stats["memory_stats"]["usage"].as_u64().unwrap();
    assert!(memory(&loaded) > memory(&first) + 19_000_000, "{loaded}");
    assert!(cpu(&loaded) > cpu(&between), "{loaded}");
    let inside = cgroup_file(pid, "pids", "pids.current", "pids.current");
    let told = loaded["pids_stats"]["current"].as_u64().unwrap();
    assert!(
        told >= 4 && told.abs_diff(inside.parse().unwrap()) <= 1,
        "{told}, {inside}"
    );
    let top = docker.line("top one -o pid,args").succeeds();
    assert_eq!(top.matches("sleep 1000").count(), 3, "{top}");
    assert!(top.contains(&pid.to_string()), "{top}");
    docker.line("rm -f one").succeeds();
}
