//! How a monitor begins: when its caller says so, and with a runtime that does not outlive it.

use super::post::{ID, same};
use std::time::Duration;
use teu_integration_tests::Scene;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};

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
        assert!(std::fs::read(&runtime).unwrap().starts_with(b"sleep"));
        scene.shell(&format!("kill -9 {}", post.pid()));
        post.wait();
        scene.wait_until("the runtime has ended", || {
            std::fs::read(&runtime).unwrap_or_default().is_empty()
        });
        assert!(!post.path(&format!("exits/{ID}")).exists());
    });
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
