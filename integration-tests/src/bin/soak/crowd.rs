//! A thousand containers on the machine at once, each with its shim.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Verdict;
use teu_integration_tests::Scene;
use teu_integration_tests::fixture::{minimal_config, write_config};
use teu_integration_tests::shim::{Cost, Shim, Streams};

/// How long a shim is left alone before it is looked what it costs.
const IDLE: Duration = Duration::from_secs(35);

pub(crate) fn run(quick: bool) -> Verdict {
    let count: u32 = if quick { 20 } else { 1000 };
    let scene = Scene::new("soak: crowd");
    let begin = Instant::now();
    let mut shims = start_all(&scene, count);
    println!("  {count} started, {:?} each", begin.elapsed() / count);
    // To ask wakes a shim; an idle one gives its pages back after a while.
    let pids: Vec<Vec<u32>> = shims.iter_mut().map(Shim::pids).collect();
    std::thread::sleep(IDLE);
    let cost = |pids: &Vec<u32>| {
        pids.iter()
            .fold(Cost::default(), |sum, pid| sum + Cost::of(*pid))
    };
    let costs: Vec<Cost> = pids.iter().map(cost).collect();
    let mean = |of: fn(&Cost) -> u64| costs.iter().map(of).sum::<u64>() / u64::from(count);
    println!(
        "  a shim with its keeper: RSS {} KiB, PSS {} KiB, private {} KiB",
        mean(|cost| cost.rss),
        mean(|cost| cost.pss),
        mean(|cost| cost.private)
    );
    let begin = Instant::now();
    let ended = shims.iter_mut().zip(0..).filter_map(|(shim, n)| {
        let killed = shim.kill("", 15).is_ok();
        let waited = shim.wait("").ok()?;
        let deleted = shim.delete("").ok()?.exit_status;
        (killed && waited == status(n) && deleted == waited).then_some(())
    });
    let right = ended.count();
    println!(
        "  {right} ended with their status, {:?} each",
        begin.elapsed() / count
    );
    let mut verdict = Verdict::default();
    verdict.check(
        right == count as usize,
        format!("{count} containers start, stop and report"),
    );
    let topics = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
    ];
    let events: Vec<_> = shims.iter().map(|shim| shim.events.clone()).collect();
    for mut shim in shims {
        let pid = shim.pid();
        shim.shut_down(pid);
    }
    // A shim leaves when all its events are acknowledged.
    let told = events
        .iter()
        .filter(|events| events.topics() == topics)
        .count();
    verdict.check(
        told == count as usize,
        format!("{told} of them told all events in order"),
    );
    verdict
}

/// What container `n` exits with.
fn status(n: u32) -> u32 {
    n % 200
}

fn start_all(scene: &Scene, count: u32) -> Vec<Shim<'_>> {
    let rootfs = scene.rootfs("rootfs");
    let start = |n| {
        let id = format!("c{n}");
        let bundle = scene.path(&id);
        std::fs::create_dir_all(bundle.join("rootfs")).expect("make a bundle");
        let script = format!(
            "trap 'exit {}' TERM; while :; do sleep 1000 & wait; done",
            status(n)
        );
        let mut config = minimal_config(&["sh", "-c", &script]);
        config["root"]["path"] = json!(rootfs);
        config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", scene.cgroup()));
        write_config(&bundle, &config);
        let mut shim = Shim::start_at(scene, &id, bundle);
        shim.create(&Streams::default()).expect("create");
        shim.start_process("").expect("start");
        shim
    };
    (0..count).map(start).collect()
}
