//! What containers may use, in the cgroup's own files and in effect.

use super::Podman;
use teu_integration_tests::{Scene, cgroup_file};

#[test]
fn podmans_limits_stand_in_the_cgroup_and_hold() {
    let scene = Scene::new("podman limits");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let flags = "-m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.05 --cpuset-cpus 0 --pids-limit 20";
    // No loop: one that may not fork any more ends, and the container with it.
    podman.detached("one", flags, "sleep 1000 & wait");
    let pid = podman.pid("one");
    let figure = |controller: &str, v1: &str, v2: &str| cgroup_file(pid, controller, v1, v2);
    for (figure, expected) in [
        (
            figure("memory", "memory.limit_in_bytes", "memory.max"),
            "67108864",
        ),
        (
            figure("memory", "memory.soft_limit_in_bytes", "memory.low"),
            "33554432",
        ),
        (figure("cpuset", "cpuset.cpus", "cpuset.cpus"), "0"),
        (figure("pids", "pids.max", "pids.max"), "20"),
    ] {
        assert_eq!(figure, expected);
    }
    let quota = figure("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("5000"), "{quota}");

    // In effect: the twentieth process is refused.
    let many = "for i in $(seq 30); do sleep 1 & done; wait";
    let out = podman.exec("one", many);
    assert!(out.stderr.contains("can't fork"), "{out}");
    scene.wait_until("who computes is held up", || {
        let _ = podman.exec("one", "timeout 1 sh -c 'while :; do :; done'");
        let stat = figure("cpu", "cpu.stat", "cpu.stat");
        let mut throttled = stat
            .lines()
            .filter_map(|line| line.strip_prefix("nr_throttled "));
        throttled.next().unwrap().parse::<u32>().unwrap() > 3
    });

    let words = "update -m 128m --memory-swap 256m --cpus 0.5 one";
    podman.say(words).succeeds();
    assert_eq!(
        figure("memory", "memory.limit_in_bytes", "memory.max"),
        "134217728"
    );
    let quota = figure("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");

    // Podman reads the cgroup's figures itself: it must find it where it looks.
    podman
        .exec("one", "head -c 20000000 /dev/zero > /dev/shm/x")
        .succeeds();
    let stats = podman.say("stats --no-stream --format {{.MemUsageBytes}};{{.PIDS}} one");
    let stats = stats.succeeds();
    let (memory, pids) = stats.split_once(';').unwrap();
    let used: u64 = figure("memory", "memory.usage_in_bytes", "memory.current")
        .parse()
        .unwrap();
    assert!(used > 20_000_000);
    let told = memory
        .split_once("MiB")
        .and_then(|(told, _)| told.parse().ok());
    let told: f64 = told.unwrap_or_else(|| panic!("{stats:?}"));
    assert!(
        (told - used as f64 / 1_048_576.0).abs() < 4.0,
        "{stats}, {used}"
    );
    assert!(
        (1..4).contains(&pids.trim().parse::<u32>().unwrap()),
        "{stats}"
    );
    podman.say("rm -f -t 0 one").succeeds();
}
