//! Under dockerd.

mod build;
mod compose;
mod files;
mod life;
mod limits;
mod run;
mod streams;
mod survival;
mod swarm;

use std::process::{Child, Command, Output};

use super::{Daemon, Shim, archive, as_runc, path, wait_for_shims};
use teu_integration_tests::{Outcome, Scene, missing_command, readme, skip_unless, skipped};

/// dockerd whose only runtime is ours, with busybox loaded.
struct Docker<'a> {
    scene: &'a Scene,
    daemon: Option<Daemon>,
    /// Whether containers live on without the daemon, which a swarm does not allow.
    live_restore: bool,
}

impl<'a> Docker<'a> {
    /// `None`, and said so, where there is no docker.
    fn new(scene: &'a Scene, shim: Shim) -> Option<Self> {
        if missing_command("dockerd") {
            skipped(scene.name(), "no dockerd");
            return None;
        }
        Some(Self::start(scene, shim, true))
    }

    fn start(scene: &'a Scene, shim: Shim, live_restore: bool) -> Self {
        as_runc(scene, shim);
        let config = readme::block("\"default-runtime\": \"teu\"");
        let installed = "/usr/local/bin/teu-runtime";
        assert!(config.contains(installed), "{config}");
        let runtime = scene.path("peers/runc").display().to_string();
        scene.write("docker.json", config.replace(installed, &runtime));
        let mut docker = Self {
            scene,
            daemon: None,
            live_restore,
        };
        docker.resume();
        archive(scene, "docker-archive", "busybox.tar");
        docker.call(&["load", "-q", "-i", "busybox.tar"]).succeeds();
        docker
    }

    /// Starts the daemon on what there is.
    fn resume(&mut self) {
        let at = |name: &str| self.scene.path(name).display().to_string();
        let mut args = vec![
            format!("--config-file={}", at("docker.json")),
            format!("--data-root={}", at("docker")),
            format!("--exec-root={}", at("docker-run")),
            format!("--pidfile={}", at("docker.pid")),
            format!("--host=unix://{}", at("docker.sock")),
            format!("--cgroup-parent={}", self.scene.cgroup()),
            "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
            "--storage-driver=overlay2".to_owned(),
        ];
        if self.live_restore {
            args.push("--live-restore".to_owned());
        }
        let ready = || self.call(&["version"]).code() == 0;
        self.daemon = Some(Daemon::start(self.scene, "dockerd", &args, ready));
    }

    fn call(&self, words: &[&str]) -> Outcome {
        self.call_with("DOCKER_BUILDKIT=0", words)
    }

    fn call_with(&self, variable: &str, words: &[&str]) -> Outcome {
        let own = self.own_words();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.scene
            .run("env", [&[variable], &own[..], words].concat())
    }

    /// For `env`: variables, and the client, which must be the daemon's.
    fn own_words(&self) -> [String; 3] {
        let path = format!("PATH={}", path(self.scene));
        let socket = self.scene.path("docker.sock");
        let host = format!("DOCKER_HOST=unix://{}", socket.display());
        [path, host, "docker".to_owned()]
    }

    /// The client with the words of `line`, blanks between them.
    fn line(&self, line: &str) -> Outcome {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    /// `docker LINE sh -c SCRIPT`.
    fn script(&self, line: &str, script: &str) -> Outcome {
        let words = line.split(' ').chain(["sh", "-c", script]);
        self.call(&words.collect::<Vec<_>>())
    }

    /// A container without network that is removed at its end.
    fn run(&self, flags: &[&str], program: &[&str]) -> Outcome {
        let own = ["run", "--rm", "--network", "none"];
        self.call(&[&own[..], flags, &["busybox"], program].concat())
    }

    /// [`Docker::run`] of a shell with this script.
    fn shell(&self, flags: &str, script: &str) -> Outcome {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        self.run(&flags, &["sh", "-c", script])
    }

    /// A container without network that stays.
    fn detached(&self, name: &str, flags: &str, script: &str) {
        let line = format!("run -d --network none --name {name} {flags} busybox");
        let line = line.replace("  ", " ");
        self.script(&line, script).succeeds();
    }

    /// What `docker inspect` says of a container: `{{.FIELD}}`.
    fn inspect(&self, name: &str, field: &str) -> String {
        let field = format!("{{{{.{field}}}}}");
        self.call(&["inspect", "-f", &field, name]).succeeds()
    }

    /// What docker heard until the last full second: an attribute of all events of this kind.
    fn events(&self, kind: &str, attribute: &str) -> Vec<String> {
        let filter = format!("event={kind}");
        let format = format!("{{{{.Actor.Attributes.{attribute}}}}}");
        let own = ["events", "--since", "1h", "--until", "0s", "--filter"];
        let out = self.call(&[&own[..], &[&filter, "--format", &format]].concat());
        out.succeeds().lines().map(str::to_owned).collect()
    }

    /// The pid of a container's first process.
    fn pid(&self, name: &str) -> i32 {
        self.inspect(name, "State.Pid").parse().unwrap()
    }

    /// A client that goes on beside the test.
    fn spawn(&self, words: &[&str]) -> Command {
        let own = self.own_words();
        let own = own.iter().map(String::as_str);
        let words = own.chain(words.iter().copied());
        self.scene.command("env", words.collect::<Vec<_>>())
    }

    /// Waits for a client that has little to say.
    fn end_of(&self, mut client: Child) -> Output {
        self.scene
            .wait_until("the client ends", || client.try_wait().unwrap().is_some());
        client.wait_with_output().unwrap()
    }
}

/// What goes on until it is told to end.
const LOOP: &str = "while :; do sleep 0.1; done";

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let all = self.call(&["ps", "-aq"]);
        for id in all.stdout.split_whitespace() {
            let _ = self.call(&["rm", "-f", id]);
        }
        let own = self.scene.path("docker-run").display().to_string();
        wait_for_shims(self.scene, &own);
        self.daemon = None;
        // dockerd mounts its folder on itself; one that was killed leaves that.
        self.scene
            .shell("while umount docker 2>/dev/null; do :; done");
        self.scene.remove_cgroups();
    }
}

#[test]
fn the_readmes_lines() {
    let scene = Scene::new("docker readme");
    let Some(docker) = Docker::new(&scene, Shim::Ours) else {
        return;
    };
    let link =
        "ln -s /usr/local/bin/containerd-shim-teu-v2 /usr/local/sbin/containerd-shim-runc-v2";
    let peers = scene.path("peers").display().to_string();
    let line = readme::block(link)
        .replace("/usr/local/bin", &peers)
        .replace("/usr/local/sbin", &peers);
    scene.shell(&format!("rm peers/containerd-shim-runc-v2 && {line}"));
    assert_eq!(docker.run(&[], &["echo", "hello"]).succeeds(), "hello");

    let line = "docker run --rm --network none --runtime io.containerd.teu.v2 busybox echo hello";
    let line = readme::block(line);
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let version = docker
        .call(&["version", "-f", "{{.Server.Version}}"])
        .succeeds();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    skip_unless!(
        scene,
        major >= 23,
        "docker {version} knows its own shims only"
    );
    assert_eq!(docker.call(&words).succeeds(), "hello");
}
