//! Under a real containerd 2, which Debian does not have: `TEU_CONTAINERD2` names its binary.
//! `ctr` is expected beside it.

use std::path::{Path, PathBuf};
use std::process::Child;

use teu_integration_tests::{Scene, binary, skip_unless};

/// The daemon, without CRI, on sockets and folders of the scene.
fn start(scene: &Scene, program: &Path) -> Child {
    let at = |name: &str| scene.path(name).display().to_string();
    let config = format!(
        "version = 3\nroot = {:?}\nstate = {:?}\n\
         disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
        at("root"),
        at("state"),
        at("c.sock"),
        at("c.sock.ttrpc")
    );
    let config = scene.write("containerd.toml", config);
    let mut daemon = scene.command(
        program.to_str().unwrap(),
        ["-c".as_ref(), config.as_os_str()],
    );
    let log = std::fs::File::create(scene.path("containerd.log")).unwrap();
    daemon
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
fn containerd_2_runs_containers() {
    let scene = Scene::new("shim containerd 2");
    let program = std::env::var_os("TEU_CONTAINERD2").map(PathBuf::from);
    skip_unless!(
        scene,
        program.is_some(),
        "TEU_CONTAINERD2 names no containerd 2"
    );
    let program = program.unwrap();
    let mut daemon = start(&scene, &program);
    let ctr = program.parent().unwrap().join("ctr").display().to_string();
    let namespace = scene.cgroup().trim_start_matches('/').to_owned();
    let socket = scene.path("c.sock").display().to_string();
    let call =
        |words: &[&str]| scene.run(&ctr, [&["-a", &socket, "-n", &namespace], words].concat());
    scene.wait_until("containerd 2 answers", || call(&["version"]).code() == 0);
    scene.busybox("busybox");
    scene
        .run(
            "teu-store",
            [
                "export",
                "-q",
                "--format",
                "oci-archive",
                "-o",
                "busybox.tar",
                "busybox",
            ],
        )
        .succeeds();
    call(&["image", "import", "busybox.tar"]).succeeds();
    let shim = binary("containerd-shim-teu-v2").display().to_string();
    let cgroup = format!("{}/one", scene.cgroup());
    let run = |flags: &[&str], program: &[&str]| {
        let own = ["run", "--runtime", &shim, "--cgroup", &cgroup];
        call(
            &[
                &own[..],
                flags,
                &["docker.io/library/busybox:latest", "one"],
                program,
            ]
            .concat(),
        )
    };
    assert_eq!(run(&["--rm"], &["echo", "hello"]).succeeds(), "hello");
    let _ = run(&["--rm"], &["sh", "-c", "exit 9"]).exits(9);
    run(&["-d"], &["sleep", "1000"]).succeeds();
    let _ = call(&[
        "task",
        "exec",
        "--exec-id",
        "e",
        "one",
        "sh",
        "-c",
        "exit 4",
    ])
    .exits(4);
    call(&["task", "kill", "-s", "9", "one"]).succeeds();
    scene.wait_until("it is stopped", || {
        call(&["task", "ls"]).succeeds().contains("STOPPED")
    });
    let _ = call(&["task", "rm", "one"]);
    call(&["container", "rm", "one"]).succeeds();
    if let Some(pid) = rustix::process::Pid::from_raw(daemon.id().cast_signed()) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
    daemon.wait().unwrap();
}
