//! The shim is killed, and containerd is: what becomes of the containers.

use super::{Containerd, Events, bundle, kill, shim_of};
use crate::Shim;
use rustix::process::{Pid, Signal, kill_process};
use teu_integration_tests::{Scene, missing_command, skip_unless};

#[test]
fn the_fate_of_a_container_whose_shim_was_killed() {
    let scene = Scene::new("shim killed");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, Shim::Ours);
    let events = Events::listen(&containerd);
    containerd
        .run(&["-d"], "one", &["sleep", "1000"])
        .succeeds();
    let address = std::fs::read_to_string(bundle(&containerd, "one").join("address")).unwrap();
    kill(shim_of(&scene, "one").unwrap(), Signal::KILL);
    // containerd asks for it to be removed, which kills it: that is its true status.
    events.wait_for("one", &["create", "start", "exit 137", "delete"]);
    assert!(
        !std::path::Path::new(address.trim_start_matches("unix://")).exists(),
        "{address}"
    );
    containerd.call(&["container", "rm", "one"]).succeeds();
    // One that has ended before its shim was killed has the status it ended with.
    containerd
        .run(&["-d"], "two", &["sh", "-c", "exit 33"])
        .succeeds();
    events.wait_for("two", &["create", "start", "exit 33"]);
    kill(shim_of(&scene, "two").unwrap(), Signal::KILL);
    events.wait_for("two", &["create", "start", "exit 33", "exit 33", "delete"]);
    containerd.call(&["container", "rm", "two"]).succeeds();
}

/// containerd is killed, a container and the process beside it end, and containerd comes back: it
/// hears of both.
fn ends_while_containerd_is_away(containerd: &mut Containerd<'_>, bundle: &std::path::Path) {
    let scene = containerd.scene;
    let init = std::fs::read_to_string(bundle.join("init.pid")).unwrap();
    containerd.daemon.take().unwrap().kill();
    let init = Pid::from_raw(init.trim().parse().unwrap()).unwrap();
    let journal = bundle.join("events");
    scene.wait_until("the exits are in the journal", || {
        // The first process of a pid namespace gets a signal only once it has a handler for it.
        let _ = kill_process(init, Signal::USR1);
        std::fs::read(&journal).is_ok_and(|bytes| {
            String::from_utf8_lossy(&bytes)
                .matches("/tasks/exit")
                .count()
                == 2
        })
    });
    let before = std::fs::read_to_string(scene.path("containerd.log"))
        .unwrap()
        .len();
    containerd.resume();
    scene.wait_until("the exit arrives", || {
        let log = std::fs::read_to_string(scene.path("containerd.log")).unwrap();
        let forwarded = log[before..]
            .lines()
            .filter(|line| line.contains("event forwarded") && line.contains("topic=/tasks/exit"));
        // That of the process beside it too.
        forwarded.count() >= 2
    });
    scene.wait_until("the journal is empty", || {
        std::fs::metadata(&journal).map_or(true, |meta| meta.len() == 0)
    });
}

#[test]
fn containerd_may_die_and_come_back() {
    let scene = Scene::new("shim outlives");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let mut containerd = Containerd::start(&scene, Shim::Ours);
    containerd
        .run(&["-d"], "stays", &["sleep", "1000"])
        .succeeds();
    let script = "trap 'exit 5' USR1; while :; do sleep 0.1; done";
    containerd
        .run(&["-d"], "ends", &["sh", "-c", script])
        .succeeds();
    let exec = "task exec -d --exec-id beside ends sleep 1000".split(' ');
    containerd.call(&exec.collect::<Vec<_>>()).succeeds();
    let bundle = bundle(&containerd, "ends");
    ends_while_containerd_is_away(&mut containerd, &bundle);
    // From 1.7 on containerd removes what ended while it was away.
    let removed = !bundle.exists();
    assert_eq!(containerd.status("stays").as_deref(), Some("RUNNING"));
    let ended = Some("STOPPED").filter(|_| !removed);
    assert_eq!(containerd.status("ends").as_deref(), ended);
    let _ = containerd
        .exec("stays", "e", &["sh", "-c", "exit 6"])
        .exits(6);
    let told = containerd.call(&["task", "rm", "ends"]);
    let expected = if removed { "not found" } else { "exit code 5" };
    assert!(told.stderr.contains(expected), "{}", told.stderr);
    containerd.remove("stays");
    containerd.call(&["container", "rm", "ends"]).succeeds();
}
