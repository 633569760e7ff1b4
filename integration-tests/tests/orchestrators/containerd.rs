//! Under containerd, by ctr.

use super::{Daemon, archive, as_runc, remove_cgroups};
use teu_integration_tests::{Outcome, Scene, missing_command, skip_unless};

/// containerd with busybox imported; its containers run by our runtime.
struct Containerd<'a> {
    scene: &'a Scene,
    image: &'static str,
    runtime: String,
    daemon: Option<Daemon>,
}

impl<'a> Containerd<'a> {
    fn start(scene: &'a Scene) -> Self {
        let at = |name: &str| scene.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("containerd"),
            at("containerd-run"),
            at("containerd.sock"),
            at("containerd.sock.ttrpc")
        );
        let config = scene.write("containerd.toml", config);
        let mut containerd = Self {
            scene,
            image: archive(scene, "oci-archive", "busybox.tar"),
            runtime: as_runc(scene).display().to_string(),
            daemon: None,
        };
        let args = ["-c".to_owned(), config.display().to_string()];
        let ready = || containerd.call(&["version"]).code() == 0;
        containerd.daemon = Some(Daemon::start(scene, "containerd", &args, ready));
        containerd
            .call(&["image", "import", "busybox.tar"])
            .succeeds();
        containerd
    }

    fn call(&self, words: &[&str]) -> Outcome {
        let socket = self.scene.path("containerd.sock").display().to_string();
        self.scene.run("ctr", [&["-a", &socket], words].concat())
    }

    /// `ctr run FLAGS IMAGE ID PROGRAM`, in the scene's cgroup.
    fn run(&self, flags: &[&str], id: &str, program: &[&str]) -> Outcome {
        let cgroup = format!("{}/{id}", self.scene.cgroup());
        let own = ["run", "--cgroup", &cgroup, "--runc-binary", &self.runtime];
        self.call(&[&own, flags, &[self.image, id], program].concat())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.daemon = None;
        remove_cgroups(self.scene);
    }
}

#[test]
fn containerd_runs_containers() {
    let scene = Scene::new("ctr run");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene);
    let out = containerd.run(&["--rm"], "a", &["echo", "hello"]);
    assert_eq!(out.succeeds(), "hello");
    let _ = containerd
        .run(&["--rm"], "b", &["sh", "-c", "exit 9"])
        .exits(9);
    let _ = containerd.run(&["--rm"], "c", &["nosuch"]).fails(
        1,
        &["OCI runtime create failed", "executable file not found"],
    );
    let _ = containerd.call(&["container", "rm", "c"]);
}

#[test]
fn containerd_lives_with_a_task() {
    let scene = Scene::new("ctr task");
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene);
    containerd
        .run(
            &["-d", "--memory-limit", "67108864"],
            "one",
            &["sleep", "1000"],
        )
        .succeeds();
    let task = |words: &[&str]| containerd.call(&[&["task"], words].concat());
    let status = || {
        let list = task(&["ls"]).succeeds();
        let line = list
            .lines()
            .find(|line| line.starts_with("one "))
            .map(str::to_owned);
        line.and_then(|line| line.split_whitespace().nth(2).map(str::to_owned))
    };
    let _ = task(&["exec", "--exec-id", "e", "one", "sh", "-c", "exit 4"]).exits(4);
    task(&["pause", "one"]).succeeds();
    assert_eq!(status().as_deref(), Some("PAUSED"));
    task(&["resume", "one"]).succeeds();
    assert_eq!(status().as_deref(), Some("RUNNING"));
    assert!(
        task(&["metrics", "one"])
            .succeeds()
            .contains("pids.current")
    );
    task(&["kill", "-s", "9", "one"]).succeeds();
    scene.wait_until("the task has stopped", || {
        status().as_deref() == Some("STOPPED")
    });
    let _ = task(&["rm", "one"]);
    assert_eq!(status(), None);
    containerd.call(&["container", "rm", "one"]).succeeds();
}
