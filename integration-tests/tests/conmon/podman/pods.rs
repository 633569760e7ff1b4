//! Several containers at once.

use super::Podman;
use teu_integration_tests::{Scene, skip_unless};

/// One that says something, and one that fails again and again after it has read it.
const KUBE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  restartPolicy: OnFailure
  volumes: [{name: shared, hostPath: {path: SHARED, type: Directory}}]
  containers:
  - name: one
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [/bin/sh, -c, 'echo played $WORD; echo said > /data/file; exec /bin/sleep 1000']
    env: [{name: WORD, value: here}]
    volumeMounts: [{name: shared, mountPath: /data}]
    resources: {limits: {memory: 64Mi}}
    securityContext: {capabilities: {drop: [ALL]}}
  - name: two
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [/bin/sh, -c, 'while ! test -s /data/file; do sleep 0.1; done; cat /data/file; id -u; exit 3']
    volumeMounts: [{name: shared, mountPath: /data}]
    securityContext: {runAsUser: 7}
";

/// podman's own cgroup of a pod, seen with 4.3 under crun and conmon, too.
const NO_DEVICES: &str = "podman denies a pod all devices in cgroup v2 without systemd";

fn pods_have_devices() -> bool {
    !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn podman_makes_pods() {
    let scene = Scene::new("podman pod");
    skip_unless!(scene, pods_have_devices(), "{NO_DEVICES}");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let create = [
        "pod",
        "create",
        "--name",
        "pod",
        "--network",
        "none",
        "--cgroup-parent",
    ];
    podman
        .call(&[&create[..], &[&scene.cgroup()]].concat())
        .succeeds();
    let run = |words: &[&str]| podman.call(&[&["run", "--pod", "pod"], words].concat());
    let namespaces = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done";
    let shell = ["busybox", "sh", "-c", namespaces];
    let first = run(&[&["--rm"], &shell[..]].concat()).succeeds();
    let script = "trap 'exit 4' TERM; while :; do sleep 0.1; done";
    for name in ["one", "two"] {
        run(&["-d", "--name", name, "busybox", "sh", "-c", script]).succeeds();
    }
    assert_eq!(podman.exec("one", namespaces).succeeds(), first);
    let states = |expected: &str| {
        let told = podman.say("ps -a --filter name=^(one|two)$ --format {{.Status}}");
        let told = told.succeeds();
        let told: Vec<&str> = told.lines().collect();
        let fits = told.iter().all(|state| state.starts_with(expected));
        assert!(told.len() == 2 && fits, "{expected}: {told:?}");
    };
    for (order, state) in [
        ("pause", "Paused"),
        ("unpause", "Up"),
        ("restart", "Up"),
        ("stop", "Exited"),
    ] {
        podman.say(&format!("pod {order} pod")).succeeds();
        states(state);
    }
    let code = podman.inspect("two", "{{.State.ExitCode}}");
    assert_eq!(code, "4", "it was asked to end, not killed");
    podman.remove_pod("pod");
}

#[test]
fn podman_plays_kubernetes_files() {
    let scene = Scene::new("podman play kube");
    skip_unless!(scene, pods_have_devices(), "{NO_DEVICES}");
    let Some(mut podman) = Podman::new(&scene) else {
        return;
    };
    // Nobody else's pods are there: whoever removed what is empty would meet pods that are just being made.
    podman.cgroups.push("/libpod_parent".to_owned());
    scene.shell("mkdir shared");
    let shared = scene.path("shared").display().to_string();
    let file = scene.write("pod.yaml", KUBE.replace("SHARED", &shared));
    let file = file.display().to_string();
    podman
        .call(&["play", "kube", "--network", "none", &file])
        .succeeds();
    scene.wait_until("the container speaks", || {
        podman.call(&["logs", "web-one"]).stdout == "played here\n"
    });
    scene.wait_until("the other one fails and is started again", || {
        podman
            .say("logs web-two")
            .stdout
            .matches("said\n7\n")
            .count()
            > 1
    });
    let read = [
        "/bin/sed",
        "-n",
        "s/^CapBnd:[[:space:]]*//p",
        "/proc/self/status",
    ];
    let bound = podman.call(&[&["exec", "web-one"], &read[..]].concat());
    assert_eq!(bound.succeeds(), "0000000000000000");
    let limit = teu_integration_tests::cgroup_file(
        podman.pid("web-one"),
        "memory",
        "memory.limit_in_bytes",
        "memory.max",
    );
    assert_eq!(limit, "67108864");
    podman.call(&["pod", "kill", "web"]).succeeds();
    podman.remove_pod("web");
}
