//! Pods by containerd's CRI, as the kubelet asks for them, configured as the README says.

use serde_json::{Value, json};
use teu_integration_tests::{Outcome, Scene, missing_command, readme, skip_unless};

use super::{Daemon, Shim, archive, as_runc};

/// Where the kubelet speaks with containerd.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/cri.py");
/// Debian's own interpreter, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";
/// The one namespace that containerd's CRI uses.
const NAMESPACE: &str = "k8s.io";
/// `NODE` of `NamespaceMode`: the host's network, here the scene's.
const HOST_NETWORK: u64 = 2;
const RUNNING: &str = "1";
const EXITED: &str = "2";

/// containerd with its CRI, whose pods are ours.
struct Cri<'a> {
    scene: &'a Scene,
    daemon: Option<Daemon>,
}

impl<'a> Cri<'a> {
    fn start(scene: &'a Scene) -> Self {
        as_runc(scene, Shim::Ours);
        let at = |name: &str| scene.path(name).display().to_string();
        let ours = readme::block("runtime_type = \"io.containerd.teu.v2\"");
        let options = options(scene);
        let config = format!(
            r#"version = 2
root = {:?}
state = {:?}
[grpc]
address = {:?}
[ttrpc]
address = {:?}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:latest"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "teu"
{ours}
{options}
"#,
            at("containerd"),
            at("containerd-run"),
            at("containerd.sock"),
            at("containerd.sock.ttrpc"),
        );
        scene.write("containerd.toml", config);
        let mut cri = Self {
            scene,
            daemon: None,
        };
        let args = ["-c".to_owned(), at("containerd.toml")];
        cri.daemon = Some(Daemon::start(scene, "containerd", &args, || {
            cri.call("Version", &json!([]), "2").code() == 0
        }));
        archive(scene, "oci-archive", "busybox.tar");
        scene.write(
            "pause/Dockerfile",
            "FROM busybox\nENTRYPOINT [\"sleep\", \"100000\"]\n",
        );
        scene
            .run("teu", ["build", "-q", "-t", "pause", "pause"])
            .succeeds();
        let words = "export -q --format oci-archive -o pause.tar pause";
        scene.run("teu-store", words.split(' ')).succeeds();
        let socket = at("containerd.sock");
        for file in ["busybox.tar", "pause.tar"] {
            let words = ["-a", &socket, "-n", NAMESPACE, "image", "import", file];
            scene.run("ctr", words).succeeds();
        }
        scene.wait_until("the images are known", || {
            let image = json!([[1, [[1, "docker.io/library/pause:latest"]]]]);
            cri.ask("ImageStatus", &image, "1.1").starts_with("sha256:")
        });
        cri
    }

    /// One method; what the answer has at `path`.
    fn call(&self, method: &str, request: &Value, path: &str) -> Outcome {
        let socket = self.scene.path("containerd.sock").display().to_string();
        let service = if method.starts_with("Image") {
            "Image"
        } else {
            "Runtime"
        };
        let method = format!("runtime.v1.{service}Service/{method}");
        let words = [CLIENT, &socket, &method, path];
        let text = request.to_string();
        self.scene.run_with_input(PYTHON, words, text.as_bytes())
    }

    fn ask(&self, method: &str, request: &Value, path: &str) -> String {
        self.call(method, request, path).succeeds()
    }

    /// `PodSandboxConfig`.
    fn pod(&self) -> Value {
        let namespaces = json!([[1, HOST_NETWORK]]);
        let parent = format!("{}/pod", self.scene.cgroup());
        json!([
            [1, [[1, "pod"], [2, "uid"], [3, "default"], [4, 0]]],
            [3, self.scene.path("logs").display().to_string()],
            [8, [[1, parent], [2, [[1, namespaces]]]]]
        ])
    }

    /// A container of the pod, created and started.
    fn container(&self, pod: &str, name: &str, script: &str) -> String {
        let security = json!([[3, [[1, HOST_NETWORK]]]]);
        let config = json!([
            [1, [[1, name], [2, 0]]],
            [2, [[1, "docker.io/library/busybox:latest"]]],
            [3, "sh"],
            [3, "-c"],
            [3, script],
            [11, format!("{name}.log")],
            [15, [[1, [[4, 64 << 20]]], [2, security]]]
        ]);
        let request = json!([[1, pod], [2, config], [3, self.pod()]]);
        let id = self.ask("CreateContainer", &request, "1");
        self.ask("StartContainer", &json!([[1, id]]), "0");
        id
    }

    fn status(&self, id: &str, field: &str) -> String {
        self.ask("ContainerStatus", &json!([[1, id]]), &format!("1.{field}"))
    }

    fn wait_for(&self, id: &str, state: &str) {
        let what = format!("the container's state is {state}");
        self.scene
            .wait_until(&what, || self.status(id, "3") == state);
    }
}

/// The options of the README, with one that is seen without systemd in place of the one that is not.
fn options(scene: &Scene) -> String {
    let line = "SystemdCgroup = true";
    let own = format!("Root = {:?}\n", scene.path("runtime"));
    let version = scene.run("containerd", ["--version"]).succeeds();
    if !version.contains(" 1.6.") {
        return readme::block(line).replace(line, &own);
    }
    let file = scene.write("options.toml", own).display().to_string();
    let named = "/etc/containerd/teu.toml";
    readme::block(&format!("ConfigPath = {named:?}")).replace(named, &file)
}

impl Drop for Cri<'_> {
    fn drop(&mut self) {
        let pods = self.call("ListPodSandbox", &json!([]), "1.1").stdout;
        if pods.trim() != "0" {
            let _ = self.call("StopPodSandbox", &json!([[1, pods.trim()]]), "0");
            let _ = self.call("RemovePodSandbox", &json!([[1, pods.trim()]]), "0");
        }
        self.daemon = None;
        self.scene.remove_cgroups();
    }
}

#[test]
fn a_pod_with_containers() {
    let scene = Scene::new("cri");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let grpc = scene.run(PYTHON, ["-c", "import grpc"]).code() == 0;
    skip_unless!(scene, grpc, "no python3-grpcio");
    let cri = Cri::start(&scene);
    let pod = cri.ask("RunPodSandbox", &json!([[1, cri.pod()], [2, "teu"]]), "1");
    let script = "echo started; trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let one = cri.container(&pod, "one", script);
    let two = cri.container(&pod, "two", "echo done; exit 3");
    cri.wait_for(&two, EXITED);
    assert_eq!(cri.status(&two, "7"), "3");
    cri.wait_for(&one, RUNNING);
    let known = std::fs::read_dir(scene.path("runtime/k8s.io")).unwrap();
    assert!(known.count() >= 2, "the options are heeded");
    let bundles = "containerd-run/io.containerd.runtime.v2.task/k8s.io/*";
    let addresses = scene.shell(&format!("cat {bundles}/address | sort -u | grep -c ."));
    assert_eq!(
        addresses.trim(),
        "1",
        "one shim for a pod and its containers"
    );

    let exec = json!([[1, one], [2, "sh"], [2, "-c"], [2, "echo inside; exit 4"]]);
    assert_eq!(cri.ask("ExecSync", &exec, "1"), "inside");
    assert_eq!(cri.ask("ExecSync", &exec, "3"), "4");
    let stats = json!([[1, one]]);
    let used: u64 = cri
        .ask("ContainerStats", &stats, "1.3.2.1")
        .parse()
        .unwrap();
    assert!(used > 0, "the working set is {used} bytes");
    let update = json!([[1, one], [2, [[4, 32 << 20]]]]);
    cri.ask("UpdateContainerResources", &update, "0");

    cri.ask("StopContainer", &json!([[1, one], [2, 10]]), "0");
    assert_eq!(cri.status(&one, "3"), EXITED);
    assert_eq!(cri.status(&one, "7"), "7");
    let log = std::fs::read_to_string(scene.path("logs/one.log")).unwrap();
    assert!(log.ends_with("stdout F started\n"), "{log}");
    for id in [&one, &two] {
        cri.ask("RemoveContainer", &json!([[1, id]]), "0");
    }
    cri.ask("StopPodSandbox", &json!([[1, pod]]), "0");
    cri.ask("RemovePodSandbox", &json!([[1, pod]]), "0");
}

#[test]
fn the_readmes_configuration_of_cri_o() {
    let scene = Scene::new("cri-o");
    skip_unless!(scene, !missing_command("crio"), "no cri-o");
    let text = readme::block("[crio.runtime.runtimes.teu]");
    let mut config = text.clone();
    for program in ["teu-runtime", "teu-shim"] {
        let own = teu_integration_tests::binary(program);
        let own = scene.shell(&format!("command -v {}", own.display()));
        config = config.replace(&format!("/usr/local/bin/{program}"), own.trim());
    }
    assert_ne!(config, text);
    scene.write("teu.conf", config);
    let out = scene
        .run("crio", ["--config", "teu.conf", "config"])
        .succeeds();
    assert!(out.contains("default_runtime = \"teu\""), "{out}");
}
