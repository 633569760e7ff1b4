//! containerd-shim-teu-v2 under containerd on a host of cgroup v2, of systemd, and
//! of a CRIU that can work: what hosts without them cannot show.

use super::Shim;
use super::containerd::Containerd;
use super::containerd_shim::Events;
use serde_json::Value;
use std::path::{Path, PathBuf};
use teu_integration_tests::{Scene, missing_command, skip_unless};

/// Counts up in memory of its own, so that a restored one is seen to go on.
const COUNT: [&str; 3] = [
    "sh",
    "-c",
    "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.1; done",
];

fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn criu_works() -> bool {
    let check = std::process::Command::new("criu")
        .args(["check", "--no-default-config"])
        .output();
    check.is_ok_and(|output| output.status.success())
}

/// One number of the figures that containerd gives out; it leaves out those that are 0.
fn figure(metrics: &Value, path: &[&str]) -> u64 {
    let mut value = metrics;
    for name in path {
        value = &value[name];
    }
    value.as_u64().unwrap_or(0)
}

fn metrics(containerd: &Containerd<'_>, id: &str) -> Value {
    let text = containerd.call(&["task", "metrics", "--format", "json", id]);
    serde_json::from_str(&text.succeeds()).unwrap()
}

/// The same numbers of the kernel's own files.
fn kernel(folder: &Path) -> Vec<u64> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let whole = |file: &str| read(file).trim().parse().unwrap_or(u64::MAX);
    let line = |file: &str, name: &str| {
        let text = read(file);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    };
    vec![
        whole("pids.current"),
        whole("pids.max"),
        line("cpu.stat", "usage_usec"),
        line("cpu.stat", "system_usec"),
        whole("memory.current"),
        whole("memory.max"),
        line("memory.stat", "anon"),
        line("memory.stat", "shmem"),
        line("memory.stat", "pgfault"),
        line("memory.events", "oom_kill"),
    ]
}

fn told(metrics: &Value) -> Vec<u64> {
    [
        &["pids", "current"],
        &["pids", "limit"],
        &["cpu", "usage_usec"],
        &["cpu", "system_usec"],
        &["memory", "usage"],
        &["memory", "usage_limit"],
        &["memory", "anon"],
        &["memory", "shmem"],
        &["memory", "pgfault"],
        &["memory_events", "oom_kill"],
    ]
    .map(|path| figure(metrics, path))
    .to_vec()
}

#[test]
fn figures_of_v2_move_and_are_the_kernels() {
    let scene = Scene::new("shim figures of v2");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    skip_unless!(scene, cgroup_v2(), "no cgroup v2");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let flags = ["-d", "--memory-limit", "67108864"];
    let busy = "dd if=/dev/zero of=/dev/shm/x bs=1M count=4 2>/dev/null; while :; do :; done";
    containerd
        .run(&flags, "one", &["sh", "-c", busy])
        .succeeds();
    let used = |metrics: &Value| figure(metrics, &["cpu", "usage_usec"]);
    let first = metrics(&containerd, "one");
    scene.wait_until("it uses the processor, and memory", || {
        let later = metrics(&containerd, "one");
        used(&later) > used(&first) && figure(&later, &["memory", "shmem"]) >= 4 << 20
    });
    assert_eq!(figure(&first, &["memory", "usage_limit"]), 67_108_864);
    // Held still, the figures are the same before and after they are asked for.
    containerd.call(&["task", "pause", "one"]).succeeds();
    let folder = PathBuf::from(format!("/sys/fs/cgroup{}/one", scene.cgroup()));
    let mut seen = (Vec::new(), Vec::new());
    scene.wait_until("figures are the kernel's", || {
        let before = kernel(&folder);
        let said = told(&metrics(&containerd, "one"));
        seen = (before, said);
        seen.0 == kernel(&folder) && seen.0 == seen.1
    });
    containerd.call(&["task", "resume", "one"]).succeeds();
    containerd.remove("one");
}

#[test]
fn who_ends_for_want_of_memory_on_v2_is_told() {
    let scene = Scene::new("shim OOM on v2");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    skip_unless!(scene, cgroup_v2(), "no cgroup v2");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let events = Events::listen(&containerd);
    let flags = ["-d", "--memory-limit", "20971520"];
    let hog = "x=a; while :; do x=$x$x; done";
    containerd.run(&flags, "one", &["sh", "-c", hog]).succeeds();
    events.wait_for("one", &["create", "start", "oom", "exit 137"]);
    containerd.remove("one");
    // A child's end is told too, of a container that goes on.
    let child = "(x=a; while :; do x=$x$x; done); exec sleep 1000";
    containerd
        .run(&flags, "two", &["sh", "-c", child])
        .succeeds();
    events.wait_for("two", &["create", "start", "oom"]);
    containerd.remove("two");
}

#[test]
fn systemd_makes_the_cgroup() {
    let scene = Scene::new("shim and systemd");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    skip_unless!(scene, systemd_runs(), "no systemd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let slice = format!("{}.slice", scene.mark().replace('-', "_"));
    let place = format!("{slice}:{}:one", scene.mark());
    let unit = format!("{}-one.scope", scene.mark());
    let flags = [
        "-d",
        "--memory-limit",
        "67108864",
        "--runc-systemd-cgroup",
        "--cgroup",
        &place,
    ];
    containerd.run(&flags, "one", &["sleep", "1000"]).succeeds();
    let property = |name: &str| {
        let words = ["show", "--value", "--property", name, &unit];
        scene.run("systemctl", words).succeeds()
    };
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(property("MemoryMax"), "67108864");
    assert_eq!(property("ControlGroup"), format!("/{slice}/{unit}"));
    let exec = [
        "task",
        "exec",
        "--exec-id",
        "e",
        "one",
        "cat",
        "/proc/1/comm",
    ];
    assert_eq!(containerd.call(&exec).succeeds(), "sleep");
    containerd.call(&["task", "pause", "one"]).succeeds();
    containerd.call(&["task", "resume", "one"]).succeeds();
    if cgroup_v2() {
        let memory = figure(&metrics(&containerd, "one"), &["memory", "usage_limit"]);
        assert_eq!(memory, 67_108_864);
    }
    containerd.remove("one");
    scene.wait_until("the unit is gone", || property("ActiveState") == "inactive");
    let _ = scene.run("systemctl", ["stop", &slice]);
}

/// How far a container of [`COUNT`] has come.
fn count(containerd: &Containerd<'_>, id: &str) -> u64 {
    let text = containerd
        .exec(id, "count", &["cat", "/dev/shm/count"])
        .succeeds();
    text.trim().parse().unwrap_or(0)
}

fn counted(containerd: &Containerd<'_>, id: &str, beyond: u64) -> u64 {
    let mut seen = 0;
    containerd.scene.wait_until("it counts", || {
        seen = count(containerd, id);
        seen > beyond
    });
    seen
}

#[test]
fn a_task_is_written_down_and_ends_or_goes_on() {
    let scene = Scene::new("shim checkpoint");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    skip_unless!(scene, criu_works(), "no CRIU that can work here");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let events = Events::listen(&containerd);
    containerd.run(&["-d"], "one", &COUNT).succeeds();
    let reached = counted(&containerd, "one", 1);
    let images = scene.path("images").display().to_string();
    let work = scene.path("work").display().to_string();
    std::fs::create_dir(&images).unwrap();
    let checkpoint = [
        "task",
        "checkpoint",
        "--image-path",
        &images,
        "--work-path",
        &work,
    ];
    containerd
        .call(&[&checkpoint[..], &["one"]].concat())
        .succeeds();
    assert!(scene.path("images/inventory.img").is_file());
    assert!(scene.path("work/dump.log").is_file());
    counted(&containerd, "one", reached);
    let exit = [&checkpoint[..], &["--exit", "one"]].concat();
    containerd.call(&exit).succeeds();
    scene.wait_until(&format!("it has ended, of {:?}", events.of("one")), || {
        events.of("one").contains(&"exit 137".to_owned())
    });
    let checkpoints = events
        .of("one")
        .iter()
        .filter(|topic| *topic == "checkpointed")
        .count();
    assert_eq!(checkpoints, 2, "{:?}", events.of("one"));
    containerd.remove("one");
}

#[test]
fn a_container_is_restored_from_its_checkpoint() {
    let scene = Scene::new("shim restore");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    skip_unless!(scene, criu_works(), "no CRIU that can work here");
    let containerd = Containerd::start(&scene, Shim::Ours);
    containerd.run(&["-d"], "one", &COUNT).succeeds();
    let reached = counted(&containerd, "one", 3);
    let kept = "localhost/kept:latest";
    let checkpoint = [
        "container",
        "checkpoint",
        "--rw",
        "--image",
        "--task",
        "one",
        kept,
    ];
    containerd.call(&checkpoint).succeeds();
    counted(&containerd, "one", reached);
    containerd.remove("one");
    let restore = ["container", "restore", "--rw", "--live", "one", kept];
    // Its streams are ctr's: they must not be the test's.
    let ctr = scene
        .command("ctr", containerd.own_flags())
        .args(restore)
        .status();
    assert!(ctr.is_ok_and(|status| status.success()));
    assert!(counted(&containerd, "one", reached) > reached);
    let _ = containerd
        .exec("one", "e", &["sh", "-c", "exit 4"])
        .exits(4);
    containerd.remove("one");
}
