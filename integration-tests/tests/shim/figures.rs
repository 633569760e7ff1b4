//! What containers use, and when they are killed for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::sleeping;
use teu_integration_tests::shim::messages::{ProcessRequest, StatsResponse};
use teu_integration_tests::shim::{Cost, Shim, Streams};
use teu_integration_tests::{Scene, skip_unless};

/// A message's numbers by their path of field numbers (`4.33.2`), the first of
/// each: enough to read figures without knowing their types.
fn numbers(bytes: &[u8]) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    collect(bytes, "", &mut found);
    found
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn collect(mut bytes: &[u8], path: &str, found: &mut HashMap<String, u64>) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let path = format!("{path}{}", key >> 3);
        match key & 7 {
            0 => {
                let value = varint(&mut bytes)?;
                found.entry(path).or_insert(value);
            }
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                collect(bytes.get(..length)?, &format!("{path}."), found);
                bytes = &bytes[length..];
            }
            _ => return None,
        }
    }
    Some(())
}

fn stats(shim: &mut Shim<'_>) -> (String, HashMap<String, u64>) {
    let whom = ProcessRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
    };
    let answer: StatsResponse = shim.call("Stats", &whom).unwrap();
    let any = answer.stats.unwrap();
    (any.type_url, numbers(&any.value))
}

/// The cgroup of the container `id`: of a controller of v1, or the only one.
fn cgroup(scene: &Scene, controller: &str, id: &str) -> PathBuf {
    let v1 = PathBuf::from(format!(
        "/sys/fs/cgroup/{controller}{}/{id}",
        scene.cgroup()
    ));
    if v1.is_dir() {
        return v1;
    }
    PathBuf::from(format!("/sys/fs/cgroup{}/{id}", scene.cgroup()))
}

fn value(path: PathBuf) -> u64 {
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn figures_are_those_of_the_cgroups_and_move_under_load() {
    let scene = Scene::new("shim: stats");
    let mut shim = Shim::start(
        &scene,
        "stats",
        &["sh", "-c", "while :; do :; done"],
        |config| {
            config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 67_108_864});
            config["linux"]["resources"]["pids"] = serde_json::json!({"limit": 33});
        },
    );
    shim.create(&Streams::default()).unwrap();
    shim.start_process("").unwrap();
    let (kind, first) = stats(&mut shim);
    let v1 = kind == "io.containerd.cgroups.v1.Metrics";
    assert!(v1 || kind == "io.containerd.cgroups.v2.Metrics", "{kind}");
    let (memory, cpu) = (
        cgroup(&scene, "memory", "stats"),
        cgroup(&scene, "cpuacct", "stats"),
    );
    // Field numbers of metrics.proto.
    let (limit, pids, pids_limit, total) = if v1 {
        ("4.33.1", "2.1", "2.2", "3.1.1")
    } else {
        ("4.33", "1.1", "1.2", "2.1")
    };
    assert_eq!(first[limit], 67_108_864);
    assert_eq!((first[pids], first[pids_limit]), (1, 33));
    std::thread::sleep(Duration::from_millis(300));
    let (_, second) = stats(&mut shim);
    let moved = second[total] - first[total];
    let unit = if v1 { 1_000_000 } else { 1_000 };
    assert!(
        moved >= 50 * unit,
        "{moved} units of processor time in 300 ms"
    );
    if v1 {
        assert!(second[total] <= value(cpu.join("cpuacct.usage")));
        assert_eq!(
            second["4.33.2"],
            value(memory.join("memory.usage_in_bytes"))
        );
        assert_eq!(
            second["4.33.3"],
            value(memory.join("memory.max_usage_in_bytes"))
        );
    } else {
        assert_eq!(second["4.32"], value(memory.join("memory.current")));
    }
    shim.leave();
}

#[test]
fn an_oom_kill_is_told_before_the_exit_that_it_caused() {
    let scene = Scene::new("shim: oom");
    let memory = cgroup(&scene, "memory", "x");
    let counted = memory.starts_with("/sys/fs/cgroup/memory/")
        || std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|names| names.contains("memory"))
        || PathBuf::from("/sys/fs/cgroup/memory").is_dir();
    skip_unless!(scene, counted, "no memory controller");
    let mut shim = Shim::start(&scene, "oom", &["tail", "/dev/zero"], |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 16_777_216});
    });
    shim.create(&Streams::default()).unwrap();
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(137));
    scene.wait_until("the exit is told", || {
        shim.events.topics().contains(&"/tasks/exit".to_owned())
    });
    let told = ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"];
    assert_eq!(shim.events.topics(), told);
    shim.leave();
}

/// A child of the container's first process is the victim: nobody exits that containerd knows.
#[test]
fn an_oom_kill_inside_is_told_too() {
    let scene = Scene::new("shim: oom of a child");
    let has_memory = std::path::Path::new("/sys/fs/cgroup/memory").is_dir()
        || std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|names| names.contains("memory"));
    skip_unless!(scene, has_memory, "no memory controller");
    let script = "tail /dev/zero; sleep 1000";
    let mut shim = Shim::start(&scene, "inside", &["sh", "-c", script], |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 16_777_216});
    });
    shim.create(&Streams::default()).unwrap();
    shim.start_process("").unwrap();
    let ooms = |shim: &Shim<'_>| {
        let topics = shim.events.topics();
        topics.iter().filter(|topic| *topic == "/tasks/oom").count()
    };
    scene.wait_until("the kill is told", || ooms(&shim) > 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ooms(&shim), 1);
    shim.leave();
}

#[test]
fn a_container_that_is_gone_has_no_figures() {
    let scene = Scene::new("shim: stats of nothing");
    let mut shim = sleeping(&scene, "gone");
    let pid = shim.pid();
    shim.kill("", 9).unwrap();
    let _ = shim.wait("").unwrap();
    shim.delete("").unwrap();
    let whom = ProcessRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
    };
    let error = shim.call::<StatsResponse>("Stats", &whom).unwrap_err();
    assert_eq!(error.code, 5, "{error:?}");
    shim.shut_down(pid);
}

/// The most that a container may cost while nothing happens, of five: resident, proportional
/// and private memory of its shim and its keeper, in KiB.
const IDLE_MAX: [u64; 3] = [1600, 500, 300];

#[test]
fn an_idle_container_costs_little() {
    let scene = Scene::new("idle shims");
    let mut shims = ["a", "b", "c", "d", "e"].map(|id| sleeping(&scene, id));
    let pids = shims.each_mut().map(Shim::pids);
    let mean = || {
        let costs = pids.iter().flatten().map(|pid| Cost::of(*pid));
        let sum = costs.fold(Cost::default(), |sum, cost| sum + cost);
        [sum.rss, sum.pss, sum.private].map(|kib| kib / 5)
    };
    // Programs with all that debugging needs are larger: they are only asked what they cost.
    if std::env::var_os("TEU_BINARIES").is_some() {
        scene.wait_until(&format!("{:?} become {IDLE_MAX:?}", mean()), || {
            mean()
                .iter()
                .zip(IDLE_MAX)
                .all(|(cost, most)| *cost <= most)
        });
    }
    eprintln!("idle, each of five: RSS, PSS, private {:?} KiB", mean());
    for shim in &mut shims {
        shim.kill("", 9).unwrap();
        assert_eq!(shim.wait("").unwrap(), 137);
        shim.delete("").unwrap();
    }
    for mut shim in shims {
        let pid = shim.pid();
        shim.shut_down(pid);
    }
}
