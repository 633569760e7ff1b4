//! How a monitor begins: when its caller says so, and with a runtime that does not outlive it.

use super::post::{ID, same};
use std::time::Duration;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Scene, skip_unless};

#[test]
fn a_container_waits_for_its_callers_word() {
    let scene = Scene::new("conmon's start pipe");
    same(&scene, |post| {
        post.program("exit 4");
        let mut command = post.command("-b @/bundle -l none");
        command.env("_OCI_STARTPIPE", "4");
        let monitor = std::thread::spawn(move || run_limited(command, b"", TIME_LIMIT));
        std::thread::sleep(Duration::from_millis(300));
        let before = (post.read("monitor"), post.read("calls"));
        assert_eq!(before, (String::new(), String::new()));
        std::fs::write(post.path("start"), "go").unwrap();
        monitor.join().unwrap().succeeds();
        post.wait();
        assert!(post.read("calls").contains("create"));
    });
}

#[test]
fn a_runtime_does_not_outlive_its_monitor() {
    let scene = Scene::new("conmon's death");
    same(&scene, |post| {
        let runtime = post.read("runtime");
        let hangs = runtime.replace(
            "exec 9",
            "echo $$ >$home/runtime-pid; exec sleep 1000\nexec 9",
        );
        post.write("runtime", hangs);
        post.start("-l none").succeeds();
        post.wait_for("runtime-pid", "\n");
        let runtime = post.read("runtime-pid");
        let runtime = format!("/proc/{}/cmdline", runtime.trim());
        scene.wait_until("the runtime hangs", || {
            std::fs::read(&runtime).unwrap().starts_with(b"sleep")
        });
        scene.shell(&format!("kill -9 {}", post.pid()));
        post.wait();
        scene.wait_until("the runtime has ended", || {
            std::fs::read(&runtime).unwrap_or_default().is_empty()
        });
        assert!(!post.path(&format!("exits/{ID}")).exists());
    });
}

/// Whether this process may ask the kernel to spare it. `capabilities(7)`: CAP_SYS_RESOURCE is bit 24.
fn may_be_spared() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(effective.unwrap().trim(), 16).unwrap() >> 24 & 1 == 1
}

#[test]
fn who_watches_is_spared_when_memory_runs_out_and_who_is_watched_is_not() {
    let scene = Scene::new("conmon's out-of-memory score");
    skip_unless!(scene, may_be_spared(), "CAP_SYS_RESOURCE is lacking");
    let score = |pid: &str| {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        score.unwrap().trim().to_owned()
    };
    let own = score("self");
    let seen = same(&scene, |post| {
        post.program("echo up; while [ ! -e $HOME_OF_TEST/enough ]; do sleep 0.05; done");
        post.start("-l @/log").succeeds();
        post.wait_for("log", "up");
        let scores = [&post.read("monitor"), &post.read("pid")].map(|pid| score(pid.trim()));
        post.write("enough", "");
        post.wait();
        scores
    });
    assert_eq!(seen, ["-1000".to_owned(), own]);
}

#[test]
fn an_exec_session_that_cannot_begin_is_told_of() {
    let scene = Scene::new("conmon's failing exec");
    let seen = same(&scene, |post| {
        post.write("refuses", "exec failed: no such thing");
        post.write("spec", "true");
        let started = post.start("-e --exec-process-spec @/spec -l none");
        started.succeeds();
        post.wait();
        post.read("sync")
    });
    assert_eq!(
        seen,
        "{\"data\": -1, \"message\": \"exec failed: no such thing\"}\n"
    );
}
