//! Further processes in a running container.

use super::Container;
use serde_json::json;
use teu_integration_tests::Scene;

#[test]
fn exec_joins_and_gives_the_exit_status() {
    let scene = Scene::new("exec");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let outcome = container.exec("hostname; echo err >&2; exit 9").exits(9);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("scene\n", "err\n")
    );
    let outcome = container.call(
        &["exec", "--cwd", "/tmp", "-e", "A=b", "--user", "1000:1001"],
        &["/bin/sh", "-c", "pwd; echo $A; id -u; id -g"],
    );
    assert_eq!(
        outcome.succeeds().lines().collect::<Vec<_>>(),
        ["/tmp", "b", "1000", "1001"]
    );
    container
        .call(&["exec"], &["/no/such"])
        .fails(255, &["no such file or directory"]);
    container
        .call(&["exec"], &["nosuch"])
        .fails(255, &["executable file not found in $PATH"]);
    assert_eq!(container.exec("kill -TERM $$").code(), 143);
}

#[test]
fn exec_takes_a_process_file() {
    let scene = Scene::new("exec process");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let process = json!({"args": ["/bin/sh", "-c", "id -u; pwd; echo $X; grep CapEff /proc/self/status"], "cwd": "/tmp", "env": ["PATH=/bin", "X=y"], "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}, "noNewPrivileges": true});
    let file = scene.write("process.json", process.to_string());
    let out = container
        .call(&["exec", "--process", file.to_str().unwrap()], &[])
        .succeeds();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        ["0", "/tmp", "y", "CapEff:\t0000000000000020"]
    );
}

#[test]
fn exec_can_detach() {
    let scene = Scene::new("exec detach");
    let container = Container::new(&scene, "c", &["/bin/sleep", "1000"], |_| {});
    container.run_detached();
    let command = scene.command(
        "teu-runtime",
        [
            "exec",
            "--detach",
            "--pid-file",
            "exec.pid",
            &container.id,
            "/bin/sleep",
            "999",
        ],
    );
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    scene.shell(&format!("{} >/dev/null 2>&1", words.join(" ")));
    let pid = std::fs::read_to_string(scene.path("exec.pid")).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, "/bin/sleep\0999\0");
}

#[test]
fn exec_needs_a_running_container() {
    let scene = Scene::new("exec stopped");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    container.create();
    container.call(&["start"], &[]).succeeds();
    scene.wait_until("stopped", || container.status() == "stopped");
    let outcome = container.exec("true");
    assert_eq!(outcome.code(), 255, "{outcome}");
    assert!(outcome.stderr.contains("stopped"), "{outcome}");
}
