//! Numbers of a container, once and as a stream, and shortages of memory.

use super::{Container, cgroup_v1};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Stdio};
use teu_integration_tests::Scene;

fn sleeper<'a>(scene: &'a Scene, change: impl FnOnce(&mut Value)) -> Container<'a> {
    let container = Container::new(scene, "c", &["/bin/sleep", "1000"], change);
    container.run_detached();
    container
}

fn stats(container: &Container<'_>) -> Value {
    let text = container.call(&["events", "--stats"], &[]).succeeds();
    let event: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id.as_str());
    event["data"].clone()
}

/// `events` in the background, writing to the scene's file `events`.
fn stream(container: &Container<'_>, interval: &str) -> Child {
    let words = ["events", "--interval", interval, &container.id];
    container
        .scene
        .command("teu-runtime", words)
        .stdin(Stdio::null())
        .stdout(File::create(container.scene.path("events")).unwrap())
        .spawn()
        .unwrap()
}

fn lines(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.path("events")).unwrap();
    // The last line may still be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    whole.lines().map(parse).collect()
}

/// Waits for the end of `events`, which must be a good one.
fn ends(scene: &Scene, mut child: Child) {
    let mut status = None;
    scene.wait_until("events ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

#[test]
fn stats_equal_the_files_of_the_cgroup() {
    let scene = Scene::new("stats equal");
    let container = sleeper(&scene, |config| {
        config["linux"]["resources"]["memory"] =
            json!({"limit": 33_554_432, "reservation": 16_777_216});
        config["linux"]["resources"]["pids"] = json!({"limit": 42});
    });
    // Held still, its numbers stay the same while both sides are read.
    container.call(&["pause"], &[]).succeeds();
    let data = stats(&container);
    let number = |controller: &str, file: &str| -> u64 {
        container.cgroup_value(controller, file).parse().unwrap()
    };
    assert_eq!(data["pids"], json!({"current": 1, "limit": 42}));
    let raw = data["memory"]["raw"].as_object().unwrap();
    let stat = container.cgroup_value("memory", "memory.stat");
    assert_eq!(raw.len(), stat.lines().count());
    for line in stat.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        assert_eq!(raw[name].to_string(), value, "{name}");
    }
    assert_eq!(data["memory"]["usage"]["limit"], 33_554_432);
    let (usage, total) = if cgroup_v1() {
        let percpu = container.cgroup_value("cpuacct", "cpuacct.usage_percpu");
        let percpu: Vec<u64> = percpu
            .split(' ')
            .map(|word| word.parse().unwrap())
            .collect();
        assert_eq!(data["cpu"]["usage"]["percpu"], json!(percpu));
        assert_eq!(data["cpuset"]["mems"], json!([0]));
        let usage = number("memory", "memory.usage_in_bytes");
        (usage, number("cpuacct", "cpuacct.usage"))
    } else {
        let stat = container.cgroup_value("", "cpu.stat");
        let micros = stat.lines().next().unwrap().strip_prefix("usage_usec ");
        let nanos = micros.unwrap().parse::<u64>().unwrap() * 1000;
        (number("", "memory.current"), nanos)
    };
    assert_eq!(data["cpu"]["usage"]["total"], total);
    // What the kernel frees lazily may go between the two reads.
    let told = data["memory"]["usage"]["usage"].as_u64().unwrap();
    assert!(told.abs_diff(usage) <= 1 << 20, "{told} {usage}");
    assert_eq!(data["network_interfaces"], Value::Null);
    assert_eq!(data["intel_rdt"], json!({}));
}

#[test]
fn stats_move_under_load() {
    let scene = Scene::new("stats move");
    let container = Container::script(
        &scene,
        "c",
        "while :; do cat /bin/busybox; done >/dev/null",
        |config| {
            config["linux"]["resources"]["cpu"] = json!({"quota": 20_000, "period": 100_000});
        },
    );
    container.run_detached();
    let first = stats(&container);
    let cpu = |data: &Value, key: &str| data["cpu"]["usage"][key].as_u64().unwrap_or(0);
    scene.wait_until("time is used and withheld", || {
        let now = stats(&container);
        cpu(&now, "total") > cpu(&first, "total")
            && cpu(&now, "user") + cpu(&now, "kernel") > 0
            && now["cpu"]["throttling"]["throttledTime"].as_u64() > Some(0)
    });
}

#[test]
fn a_stream_ends_with_the_container() {
    let scene = Scene::new("events stream");
    let container = sleeper(&scene, |_| {});
    let child = stream(&container, "50ms");
    scene.wait_until("three events", || lines(&scene).len() >= 3);
    container.call(&["delete", "--force"], &[]).succeeds();
    ends(&scene, child);
    let head = format!(r#"{{"type":"stats","id":"{}","data":{{"#, container.id);
    let text = std::fs::read_to_string(scene.path("events")).unwrap();
    assert!(text.lines().all(|line| line.starts_with(&head)), "{text}");
}

#[test]
fn a_stream_ends_with_its_reader() {
    let scene = Scene::new("events reader");
    let container = sleeper(&scene, |_| {});
    // The interval is long: the end of the reader must be noticed by itself.
    let line = format!(
        "{} events --interval 1h {} | true",
        runtime(&scene),
        container.id
    );
    scene.shell(&line);
}

fn runtime(scene: &Scene) -> String {
    let command = scene.command("teu-runtime", Vec::<&str>::new());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn want_of_memory_is_told() {
    let scene = Scene::new("oom");
    let container = sleeper(&scene, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
    });
    let child = stream(&container, "50ms");
    scene.wait_until("it streams", || !lines(&scene).is_empty());
    let hog = container.exec("head -c 64m /dev/zero | tail >/dev/null");
    assert_ne!(hog.code(), 0, "{hog}");
    let oom = json!({"type": "oom", "id": container.id});
    scene.wait_until("an oom event", || lines(&scene).contains(&oom));
    container.call(&["delete", "--force"], &[]).succeeds();
    ends(&scene, child);
}

#[test]
fn what_events_cannot_do_is_said() {
    let scene = Scene::new("events refused");
    let container = sleeper(&scene, |_| {});
    let refuse = |interval: &str, words: &str| {
        let _ = container
            .call(&["events", "--interval", interval], &[])
            .fails(1, &[words]);
    };
    refuse("0s", "duration interval must be greater than 0");
    refuse("-1s", "duration interval must be greater than 0");
    refuse("5", "parse error");
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    let _ = container
        .call(&["events"], &[])
        .fails(1, &["is not running"]);
}
