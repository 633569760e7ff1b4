//! Under dockerd.

use super::{Daemon, Shim, archive, as_runc, path, remove_cgroups, under_both_shims};
use teu_integration_tests::{Outcome, Scene, missing_command, readme, skip_unless};

under_both_shims! { runs_containers lives_with_a_container builds_through_the_runtime }

/// dockerd whose only runtime is ours, with busybox loaded.
pub(crate) struct Docker<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) daemon: Option<Daemon>,
}

impl<'a> Docker<'a> {
    pub(crate) fn start(scene: &'a Scene, shim: Shim) -> Self {
        as_runc(scene, shim);
        let config = readme::block("\"default-runtime\": \"teu\"");
        let installed = "/usr/local/bin/teu-runtime";
        assert!(config.contains(installed), "{config}");
        let runtime = scene.path("peers/runc").display().to_string();
        scene.write("docker.json", config.replace(installed, &runtime));
        let mut docker = Self {
            scene,
            daemon: None,
        };
        docker.resume();
        archive(scene, "docker-archive", "busybox.tar");
        docker.call(&["load", "-q", "-i", "busybox.tar"]).succeeds();
        docker
    }

    /// Starts the daemon on what there is.
    pub(crate) fn resume(&mut self) {
        let at = |name: &str| self.scene.path(name).display().to_string();
        let args = [
            format!("--config-file={}", at("docker.json")),
            format!("--data-root={}", at("docker")),
            format!("--exec-root={}", at("docker-run")),
            format!("--pidfile={}", at("docker.pid")),
            format!("--host=unix://{}", at("docker.sock")),
            format!("--cgroup-parent={}", self.scene.cgroup()),
            "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
            "--storage-driver=overlay2".to_owned(),
            "--live-restore".to_owned(),
        ];
        let ready = || self.call(&["version"]).code() == 0;
        self.daemon = Some(Daemon::start(self.scene, "dockerd", &args, ready));
    }

    pub(crate) fn call(&self, words: &[&str]) -> Outcome {
        self.call_with("DOCKER_BUILDKIT=0", words)
    }

    fn call_with(&self, variable: &str, words: &[&str]) -> Outcome {
        let own = self.own_words();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.scene
            .run("env", [&[variable], &own[..], words].concat())
    }

    /// For `env`: variables, and the client.
    pub(crate) fn own_words(&self) -> [String; 3] {
        let path = format!("PATH={}", path(self.scene));
        let socket = self.scene.path("docker.sock");
        let host = format!("DOCKER_HOST=unix://{}", socket.display());
        [path, host, "/usr/bin/docker".to_owned()]
    }

    fn run(&self, flags: &[&str], program: &[&str]) -> Outcome {
        let words = [
            &["run", "--rm", "--network", "none"],
            flags,
            &["busybox"],
            program,
        ]
        .concat();
        self.call(&words)
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let all = self.call(&["ps", "-aq"]);
        for id in all.stdout.split_whitespace() {
            let _ = self.call(&["rm", "-f", id]);
        }
        self.daemon = None;
        // dockerd mounts its folder on itself; one that was killed leaves that.
        self.scene
            .shell("while umount docker 2>/dev/null; do :; done");
        remove_cgroups(self.scene);
    }
}

fn runs_containers(shim: Shim) {
    let scene = Scene::new(&format!("docker run {shim:?}"));
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, shim);
    assert_eq!(docker.run(&[], &["echo", "hello"]).succeeds(), "hello");
    let _ = docker.run(&[], &["sh", "-c", "exit 7"]).exits(7);
    // dockerd reads these out of the runtime's words.
    let _ = docker
        .run(&[], &["nosuch"])
        .fails(127, &["executable file not found"]);
    let _ = docker
        .run(&[], &["/etc/passwd"])
        .fails(126, &["permission denied"]);
    let flags = [
        "-m",
        "64m",
        "--pids-limit",
        "50",
        "--read-only",
        "--tmpfs",
        "/scratch",
        "-u",
        "1000:1000",
        "-e",
        "A=b",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--init",
    ];
    let script = "id -u; echo $A; grep CapBnd /proc/self/status; touch /scratch/x; touch /x 2>&1";
    let out = docker.run(&flags, &["sh", "-c", script]).exits(1).stdout;
    for part in [
        "1000\n",
        "\nb\n",
        "\t0000000000000000\n",
        "Read-only file system",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    let out = docker.run(&["-t"], &["tty"]).succeeds();
    assert_eq!(out.trim_end(), "/dev/pts/0");
    let info = docker.call(&["info"]).succeeds();
    assert!(info.contains("Default Runtime: teu"), "{info}");
}

fn lives_with_a_container(shim: Shim) {
    let scene = Scene::new(&format!("docker lifecycle {shim:?}"));
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, shim);
    let words = [
        "run", "-d", "--name", "one", "-m", "64m", "busybox", "sleep", "1000",
    ];
    docker.call(&words).succeeds();
    let state = |field: &str| docker.call(&["inspect", "-f", field, "one"]).succeeds();
    let _ = docker.call(&["exec", "one", "sh", "-c", "exit 3"]).exits(3);
    let _ = docker
        .call(&["exec", "one", "nosuch"])
        .prints("executable file not found");
    docker.call(&["pause", "one"]).succeeds();
    assert_eq!(state("{{.State.Status}}"), "paused");
    docker.call(&["unpause", "one"]).succeeds();
    assert!(
        docker
            .call(&["top", "one"])
            .succeeds()
            .contains("sleep 1000")
    );
    docker
        .call(&["update", "-m", "128m", "--memory-swap", "256m", "one"])
        .succeeds();
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"];
    assert!(docker.call(&stats).succeeds().ends_with("/ 128MiB"));
    docker.call(&["stop", "-t", "1", "one"]).succeeds();
    assert_eq!(state("{{.State.ExitCode}}"), "137");
    docker.call(&["start", "one"]).succeeds();
    assert_eq!(state("{{.State.Status}}"), "running");
    docker.call(&["kill", "-s", "KILL", "one"]).succeeds();
    docker.call(&["rm", "-f", "one"]).succeeds();
    let fill = "x=$(yes | head -c 100000000); echo no";
    let words = [
        "run", "--name", "two", "-m", "8m", "busybox", "sh", "-c", fill,
    ];
    let _ = docker.call(&words).exits(137);
    let killed = docker
        .call(&["inspect", "-f", "{{.State.OOMKilled}}", "two"])
        .succeeds();
    assert_eq!(killed, "true");
}

fn builds_through_the_runtime(shim: Shim) {
    let scene = Scene::new(&format!("docker build {shim:?}"));
    skip_unless!(scene, !missing_command("dockerd"), "no dockerd");
    let docker = Docker::start(&scene, shim);
    scene.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo built > /x\nUSER 1000\nRUN test $(id -u) = 1000\nCMD [\"cat\", \"/x\"]\n",
    );
    // The classic builder asks for the default runtime, BuildKit for `runc` in PATH.
    for kit in ["0", "1"] {
        let words = [
            "build",
            "-q",
            "--network",
            "none",
            "--no-cache",
            "-t",
            "built",
            "context",
        ];
        docker
            .call_with(&format!("DOCKER_BUILDKIT={kit}"), &words)
            .succeeds();
        let words = ["run", "--rm", "--network", "none", "built"];
        assert_eq!(docker.call(&words).succeeds(), "built");
    }
}
