//! Several containers at once.

use super::Podman;
use teu_integration_tests::Scene;

#[test]
fn podman_makes_pods() {
    let scene = Scene::new("podman pod");
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
    let network = ["busybox", "readlink", "/proc/self/ns/net"];
    let first = run(&[&["--rm"], &network[..]].concat()).succeeds();
    run(&["-d", "--name", "one", "busybox", "sleep", "1000"]).succeeds();
    let second = podman.call(&["exec", "one", "readlink", "/proc/self/ns/net"]);
    assert_eq!(second.succeeds(), first);
    podman.call(&["pod", "stop", "-t", "0", "pod"]).succeeds();
    podman.remove_pod("pod");
}

#[test]
fn podman_plays_kubernetes_files() {
    let scene = Scene::new("podman play kube");
    let Some(podman) = Podman::new(&scene) else {
        return;
    };
    let file = scene.write(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: one\n    image: localhost/busybox:latest\n    \
         imagePullPolicy: Never\n    command: [/bin/sh, -c, 'echo played; exec /bin/sleep 1000']\n",
    );
    let file = file.display().to_string();
    podman
        .call(&["play", "kube", "--network", "none", &file])
        .succeeds();
    scene.wait_until("the container speaks", || {
        podman.call(&["logs", "web-one"]).stdout == "played\n"
    });
    podman.call(&["pod", "kill", "web"]).succeeds();
    podman.remove_pod("web");
}
