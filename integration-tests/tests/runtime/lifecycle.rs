//! From create to delete: what each command does, prints and refuses.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::Scene;

#[test]
fn run_gives_the_exit_status_and_output() {
    let scene = Scene::new("run");
    let container = Container::script(&scene, "c", "echo out; echo err >&2; exit 7", |_| {});
    let outcome = container.run().exits(7);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\n", "err\n")
    );
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
}

#[test]
fn run_gives_128_and_the_signal() {
    let scene = Scene::new("run signal");
    let _ = Container::script(&scene, "c", "kill -KILL $$; sleep 9", |_| {}).run();
    // Process 1 of a pid namespace ignores its own signals: a child it is.
    let container = Container::script(&scene, "d", "sh -c 'kill -SEGV $$'; exit $?", |_| {});
    let _ = container.run().exits(139);
}

#[test]
fn lifecycle_of_create_start_kill_delete() {
    let scene = Scene::new("lifecycle");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.create();
    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], container.id.as_str());
    assert_eq!(state["bundle"], container.bundle.to_str().unwrap());
    assert_eq!(
        state["rootfs"],
        container.bundle.join("rootfs").to_str().unwrap()
    );
    assert!(state["pid"].as_i64().unwrap() > 1);
    container.call(&["start"], &[]).succeeds();
    assert_eq!(container.status(), "running");
    container
        .call(&["start"], &[])
        .fails(1, &["cannot start an already running container"]);
    container
        .call(&["delete"], &[])
        .fails(1, &["is not stopped"]);
    container.call(&["kill"], &["KILL"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    container
        .call(&["kill"], &["KILL"])
        .fails(1, &["container not running"]);
    container.call(&["delete"], &[]).succeeds();
    container
        .call(&["state"], &[])
        .fails(1, &["does not exist"]);
    container
        .call(&["delete"], &[])
        .fails(1, &["does not exist"]);
    container.call(&["delete", "--force"], &[]).succeeds();
}

#[test]
fn create_does_not_start_the_program() {
    let scene = Scene::new("create waits");
    let container = Container::script(&scene, "c", "touch /tmp/started; sleep 1000", |config| {
        config["root"]["readonly"] = json!(false);
    });
    container.create();
    let mark = container.bundle.join("rootfs/tmp/started");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!mark.exists());
    container.call(&["start"], &[]).succeeds();
    scene.wait_until("the program runs", || mark.exists());
}

#[test]
fn an_id_is_taken_once() {
    let scene = Scene::new("id taken");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let _ = container.run().fails(1, &["already exists"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn bad_ids_are_refused() {
    let scene = Scene::new("bad ids");
    let bundle = scene.bundle("c", &["/bin/true"], |_| {});
    for id in ["..", ".", "a/b", "a b", "a\nb", "%2e", "\u{2024}\u{2024}"] {
        for verb in ["state", "delete", "kill", "start"] {
            let outcome = scene.run("teu-runtime", [verb, "--", id]);
            assert!(
                !outcome.status.success() && !outcome.stderr.contains("panicked"),
                "{outcome}"
            );
        }
        let outcome = scene.run(
            "teu-runtime",
            ["run", "-b", bundle.to_str().unwrap(), "--", id],
        );
        assert!(!outcome.status.success(), "{outcome}");
    }
}

#[test]
fn list_shows_the_containers() {
    let scene = Scene::new("list");
    // A root that was named must be there: the name may be wrong.
    let _ = scene
        .run("teu-runtime", ["list"])
        .fails(1, &["state/runtime", "no such file or directory"]);
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let table = scene.run("teu-runtime", ["list"]).succeeds();
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let user = scene.run("id", ["-un"]).succeeds();
    assert_eq!(
        (row[0], row[2], row[5]),
        (container.id.as_str(), "running", user.as_str())
    );
    assert_eq!(
        scene.run("teu-runtime", ["list", "-q"]).succeeds(),
        container.id
    );
    let all: Value =
        serde_json::from_str(&scene.run("teu-runtime", ["list", "-f", "json"]).succeeds()).unwrap();
    assert_eq!(all[0]["id"], container.id.as_str());
    assert_eq!(all[0]["status"], "running");
}

#[test]
fn ps_lists_the_processes() {
    let scene = Scene::new("ps");
    let container = Container::script(&scene, "c", "sleep 1000 & wait", |_| {});
    container.run_detached();
    scene.wait_until("two processes", || {
        let pids: Vec<i64> =
            serde_json::from_str(&container.call(&["ps", "--format", "json"], &[]).succeeds())
                .unwrap();
        pids.len() == 2
    });
    let table = container.call(&["ps"], &[]).succeeds();
    assert!(table.lines().next().unwrap().starts_with("UID"), "{table}");
    assert!(table.contains("sleep 1000"), "{table}");
}

#[test]
fn flags_may_follow_the_id() {
    let scene = Scene::new("flags after id");
    let container = Container::script(&scene, "c", "exit 3", |_| {});
    let bundle = container.bundle.to_str().unwrap();
    let outcome = scene.run("teu-runtime", ["run", &container.id, "--bundle", bundle]);
    let _ = outcome.exits(3);
}

#[test]
fn the_pid_file_is_relative_to_the_caller() {
    let scene = Scene::new("pid file");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    let line = format!(
        "{} --pid-file pid.txt >/dev/null 2>&1",
        container.line("create")
    );
    scene.shell(&line);
    let pid = std::fs::read_to_string(scene.path("pid.txt")).unwrap();
    assert_eq!(pid, container.state()["pid"].to_string());
}

#[test]
fn detached_run_survives_its_parent_and_kill_takes_numbers() {
    let scene = Scene::new("detached");
    let container = Container::script(
        &scene,
        "c",
        "trap 'exit 0' USR1; while :; do sleep 0.1; done",
        |_| {},
    );
    container.run_detached();
    assert_eq!(container.status(), "running");
    container.call(&["kill"], &["10"]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    container.call(&["kill"], &["NOSUCH"]).fails(1, &["NOSUCH"]);
}

#[test]
fn a_created_container_ends_at_a_signal_from_its_first_moment() {
    let scene = Scene::new("signal after create");
    for round in 0..8 {
        let name = format!("c{round}");
        let container = Container::new(&scene, &name, &["/bin/true"], |_| {});
        let create = container.line("create");
        let root = create.split(" create ").next().unwrap();
        // One shell, so that nothing passes between the two.
        scene.shell(&format!(
            "{create} >/dev/null 2>&1 && {root} kill {} TERM",
            container.id
        ));
        scene.wait_until("the end of init", || {
            container.state()["status"] == "stopped"
        });
        container.call(&["delete"], &[]).succeeds();
    }
}
