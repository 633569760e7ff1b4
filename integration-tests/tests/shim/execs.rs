//! Many processes in one container.

use super::sleeping;
use teu_integration_tests::Scene;
use teu_integration_tests::shim::{Cost, Streams, drain, fifo, open_reader};

/// As many as a gate has time for; `make soak` has more.
const EXECS: usize = 150;
/// How much they may cost for good, in KiB: pages of the allocator.
const GROWTH_MAX_KIB: u64 = 256;

#[test]
fn execs_leave_nothing_in_the_shim() {
    let scene = Scene::new("shim: execs");
    let mut shim = sleeping(&scene, "many");
    let pid = shim.pid();
    let out = fifo(scene.path("out"));
    let streams = Streams::to(out.display());
    let mut before = Cost::of(pid);
    for n in 0..EXECS {
        let mut reader = open_reader(&out);
        let (name, status) = (format!("e{n}"), n % 200);
        let script = format!("echo {n}; exit {status}");
        shim.exec(&name, &["sh", "-c", &script], &streams).unwrap();
        shim.start_process(&name).unwrap();
        assert_eq!(shim.wait(&name), Ok(status as u32));
        let seen = drain(&mut reader, std::time::Duration::from_secs(10), 1 << 40);
        assert_eq!(String::from_utf8(seen).unwrap(), format!("{n}\n"));
        shim.delete(&name).unwrap();
        if n == EXECS / 5 {
            before = Cost::of(pid);
        }
    }
    let after = Cost::of(pid);
    assert_eq!(after.descriptors, before.descriptors);
    assert!(
        after.rss <= before.rss + GROWTH_MAX_KIB,
        "{before} -> {after}"
    );
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(
        children.split_whitespace().count(),
        1,
        "init alone, no zombies"
    );
    shim.leave();
}

#[test]
fn twenty_execs_run_at_once() {
    let scene = Scene::new("shim: parallel execs");
    let mut shim = sleeping(&scene, "parallel");
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let mut starts = Vec::new();
    for name in &names {
        let out = scene.path(format!("{name}.log"));
        let streams = Streams::to(format!("file://{}", out.display()));
        let script = format!("echo {name}; sleep 0.3; exit {}", &name[1..]);
        shim.exec(name, &["sh", "-c", &script], &streams).unwrap();
        let whom = teu_integration_tests::shim::messages::ProcessRequest {
            id: shim.id.clone(),
            exec_id: name.clone(),
        };
        starts.push(shim.send("Start", &whom));
    }
    for start in starts {
        let started: teu_integration_tests::shim::messages::PidResponse =
            shim.receive(start).unwrap();
        assert!(started.pid > 0);
    }
    for (n, name) in names.iter().enumerate() {
        assert_eq!(shim.wait(name), Ok(n as u32));
        shim.delete(name).unwrap();
        let log = std::fs::read_to_string(scene.path(format!("{name}.log"))).unwrap();
        assert_eq!(log, format!("{name}\n"));
    }
    shim.leave();
}
