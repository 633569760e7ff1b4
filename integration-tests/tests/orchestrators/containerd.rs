//! Under containerd, by ctr.

use super::{Daemon, Shim, archive, as_runc, under_both_shims, wait_for_shims};
use teu_integration_tests::{Outcome, Scene, missing_command, skip_unless};

under_both_shims! { runs_containers lives_with_a_task }

/// containerd with busybox imported; its containers run by our runtime.
pub(crate) struct Containerd<'a> {
    pub(crate) scene: &'a Scene,
    image: &'static str,
    pub(crate) runtime: String,
    pub(crate) daemon: Option<Daemon>,
}

impl<'a> Containerd<'a> {
    pub(crate) fn start(scene: &'a Scene, shim: Shim) -> Self {
        let at = |name: &str| scene.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("containerd"),
            at("containerd-run"),
            at("containerd.sock"),
            at("containerd.sock.ttrpc")
        );
        scene.write("containerd.toml", config);
        let mut containerd = Self {
            scene,
            image: archive(scene, "oci-archive", "busybox.tar"),
            runtime: as_runc(scene, shim).display().to_string(),
            daemon: None,
        };
        containerd.resume();
        containerd
            .call(&["image", "import", "busybox.tar"])
            .succeeds();
        containerd
    }

    /// Starts the daemon on what there is.
    pub(crate) fn resume(&mut self) {
        let config = self.scene.path("containerd.toml").display().to_string();
        let args = ["-l".to_owned(), "trace".to_owned(), "-c".to_owned(), config];
        let ready = || self.call(&["version"]).code() == 0;
        self.daemon = Some(Daemon::start(self.scene, "containerd", &args, ready));
    }

    pub(crate) fn call(&self, words: &[&str]) -> Outcome {
        let own = self.own_flags();
        let own = own.each_ref().map(String::as_str);
        self.scene.run("ctr", [&own, words].concat())
    }

    /// ctr's own flags. The namespace is the scene's: below its name, not below containerd, stands
    /// what the runtime knows.
    pub(crate) fn own_flags(&self) -> [String; 4] {
        let socket = self.scene.path("containerd.sock").display().to_string();
        ["-a".to_owned(), socket, "-n".to_owned(), self.namespace()]
    }

    pub(crate) fn namespace(&self) -> String {
        self.scene.cgroup().trim_start_matches('/').to_owned()
    }

    /// Kills a task, and removes it and its container.
    pub(crate) fn remove(&self, id: &str) {
        let _ = self.call(&["task", "kill", "-s", "9", id]);
        self.scene.wait_until("it is stopped", || {
            self.status(id).is_none_or(|status| status == "STOPPED")
        });
        let _ = self.call(&["task", "rm", id]);
        self.call(&["container", "rm", id]).succeeds();
    }

    /// What `ctr task ls` says of a task, if there is one.
    pub(crate) fn status(&self, id: &str) -> Option<String> {
        let list = self.call(&["task", "ls"]).succeeds();
        let mut lines = list.lines().map(|line| line.split_whitespace());
        let mut words = lines.find(|words| words.clone().next() == Some(id))?;
        words.nth(2).map(str::to_owned)
    }

    /// A process beside the first, to its end.
    pub(crate) fn exec(&self, id: &str, exec_id: &str, program: &[&str]) -> Outcome {
        let own = ["task", "exec", "--exec-id", exec_id, id];
        self.call(&[&own, program].concat())
    }

    /// `ctr run FLAGS IMAGE ID PROGRAM`, in the scene's cgroup.
    pub(crate) fn run(&self, flags: &[&str], id: &str, program: &[&str]) -> Outcome {
        let cgroup = format!("{}/{id}", self.scene.cgroup());
        let own = ["run", "--cgroup", &cgroup, "--runc-binary", &self.runtime];
        self.call(&[&own, flags, &[self.image, id], program].concat())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            wait_for_shims(self.scene, &self.namespace());
        }
        self.daemon = None;
        let _ = std::fs::remove_dir(format!("/run/containerd/runc/{}", self.namespace()));
        self.scene.remove_cgroups();
    }
}

fn runs_containers(shim: Shim) {
    let scene = Scene::new(&format!("ctr run {shim:?}"));
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, shim);
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

fn lives_with_a_task(shim: Shim) {
    let scene = Scene::new(&format!("ctr task {shim:?}"));
    skip_unless!(scene, !missing_command("containerd"), "no containerd");
    let containerd = Containerd::start(&scene, shim);
    containerd
        .run(
            &["-d", "--memory-limit", "67108864"],
            "one",
            &["sleep", "1000"],
        )
        .succeeds();
    let task = |words: &[&str]| containerd.call(&[&["task"], words].concat());
    let status = || containerd.status("one");
    let _ = containerd
        .exec("one", "e", &["sh", "-c", "exit 4"])
        .exits(4);
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
