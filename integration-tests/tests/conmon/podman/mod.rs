//! By podman, with our runtime and our monitor.

mod containers;
mod files;
mod host;
mod limits;
mod pods;
mod process;
mod rootless;
mod signals;
mod survival;

use std::path::PathBuf;
use teu_integration_tests::{Outcome, Scene, binary, missing_command, readme};

/// podman with everything of its own in the scene, and a busybox image.
pub(crate) struct Podman<'a> {
    pub(crate) scene: &'a Scene,
    /// Where its cgroups are: the scene's own, and what a test adds that podman gives no choice.
    pub(crate) cgroups: Vec<String>,
}

/// What test machines without all privileges allow, where podman asks for more
/// by itself, and a first container for pods that needs no other program.
const LIMITS: &str = "[containers]\ndefault_ulimits = [\"nofile=10000:10000\", \"nproc=10000:10000\"]\n\
    [engine]\ninfra_image = \"localhost/busybox:latest\"\n";
/// What a pod's first container does: it waits, and ends when it is told to.
const COMMAND: &str = r#"CMD ["/bin/sh","-c","trap exit TERM; /bin/sleep 100000 & wait"]"#;

impl<'a> Podman<'a> {
    /// `None`, and said so, where there is no podman.
    pub(crate) fn new(scene: &'a Scene) -> Option<Self> {
        if missing_command("podman") {
            teu_integration_tests::skipped(scene.name(), "no podman");
            return None;
        }
        scene.write("containers.conf", configuration(scene));
        let podman = Self {
            scene,
            cgroups: vec![scene.cgroup()],
        };
        pack_rootfs(scene);
        let import = ["import", "-q", "-c", COMMAND, "rootfs.tar", "busybox"];
        podman.call(&import).succeeds();
        Some(podman)
    }

    /// podman itself, by its words.
    pub(crate) fn call(&self, words: &[&str]) -> Outcome {
        self.scene.run("env", self.line(words))
    }

    /// The words of a command that [`Podman::call`] runs.
    pub(crate) fn line(&self, words: &[&str]) -> Vec<String> {
        let at = |name: &str| self.scene.path(name).display().to_string();
        let own = [
            "-u".to_owned(),
            "DOCKER_CONFIG".to_owned(),
            format!("CONTAINERS_CONF={}", at("containers.conf")),
            "podman".to_owned(),
            "--root".to_owned(),
            at("podman/root"),
            "--runroot".to_owned(),
            at("podman/run"),
            "--tmpdir".to_owned(),
            at("podman/tmp"),
            "--network-config-dir".to_owned(),
            at("podman/networks"),
            "--volumepath".to_owned(),
            at("podman/volumes"),
            "--cgroup-manager".to_owned(),
            "cgroupfs".to_owned(),
            "--events-backend".to_owned(),
            "file".to_owned(),
            "--storage-driver".to_owned(),
            "overlay".to_owned(),
        ];
        own.into_iter()
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect()
    }

    /// Removes a pod. That its cgroup is a plain folder where a hierarchy is
    /// not mounted, which podman then cannot remove, is no failure.
    pub(crate) fn remove_pod(&self, name: &str) {
        let removed = self.call(&["pod", "rm", "-f", name]);
        assert!(
            removed.code() == 0 || removed.stderr.contains("directory not empty"),
            "{removed}"
        );
        self.clean();
        let _ = self.call(&["pod", "rm", "-f", name]);
        assert_eq!(self.call(&["ps", "-a", "-q"]).succeeds(), "");
    }

    /// `podman run` in the scene's cgroup, without network.
    pub(crate) fn run(&self, flags: &[&str], program: &[&str]) -> Outcome {
        let cgroup = self.scene.cgroup();
        let own = ["run", "--network", "none", "--cgroup-parent", &cgroup];
        self.call(&[&own, flags, &["busybox"], program].concat())
    }

    /// podman with the words of `line`, blanks between them.
    pub(crate) fn say(&self, line: &str) -> Outcome {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// [`Podman::run`] of a shell with this script, removed at its end.
    pub(crate) fn shell(&self, flags: &str, script: &str) -> Outcome {
        let flags: Vec<&str> = ["--rm"]
            .into_iter()
            .chain(flags.split_whitespace())
            .collect();
        self.run(&flags, &["sh", "-c", script])
    }

    /// A container that stays.
    pub(crate) fn detached(&self, name: &str, flags: &str, script: &str) {
        let own = ["-d", "--name", name].into_iter();
        let flags: Vec<&str> = own.chain(flags.split_whitespace()).collect();
        self.run(&flags, &["sh", "-c", script]).succeeds();
    }

    /// A shell with this script in a container that runs.
    pub(crate) fn exec(&self, name: &str, script: &str) -> Outcome {
        self.call(&["exec", name, "sh", "-c", script])
    }

    /// The pid of a container's first process.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        self.inspect(name, "{{.State.Pid}}").parse().unwrap()
    }

    /// What `podman inspect --format` says.
    pub(crate) fn inspect(&self, name: &str, format: &str) -> String {
        self.call(&["inspect", "--format", format, name]).succeeds()
    }

    /// The monitor's pid.
    pub(crate) fn monitor_of(&self, name: &str) -> String {
        let file = self.inspect(name, "{{.ConmonPidFile}}");
        std::fs::read_to_string(file).unwrap()
    }

    fn clean(&self) {
        let script = CLEAN.replace("CGROUPS", &self.cgroups.join(" "));
        self.scene.shell(&script);
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "-f", "-a", "-t", "0"]);
        let _ = self.call(&["pod", "rm", "-f", "-a", "-t", "0"]);
        self.clean();
    }
}

/// Podman leaves cgroups, and where a hierarchy is not mounted plain folders.
const CLEAN: &str = r#"for place in /sys/fs/cgroup/*; do
    for name in CGROUPS; do
        if [ "$(stat -f -c %T $place)" = tmpfs ]; then rm -rf $place$name
        else find $place$name -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
    done
done
umount -l podman/root/overlay 2>/dev/null || true"#;

/// A root file system of busybox alone, packed in `rootfs.tar`.
fn pack_rootfs(scene: &Scene) {
    scene.rootfs("rootfs");
    scene.shell("tar -C rootfs -cf rootfs.tar .");
}

/// What the README says of podman, for the programs under test, with [`LIMITS`].
fn configuration(scene: &Scene) -> String {
    let mut text = readme::block("runtime = \"teu\"");
    for program in ["teu-runtime", "teu-shim"] {
        let installed = format!("/usr/local/bin/{program}");
        assert!(text.contains(&installed), "{text}");
        text = text.replace(&installed, &path_of(scene, program).display().to_string());
    }
    let engine = "[engine]\n";
    let (limits, more) = LIMITS.split_once(engine).unwrap();
    let text = text.replacen(engine, &format!("{engine}{more}"), 1);
    format!("{limits}{text}\n")
}

/// Where a program of ours stands; podman wants no names.
fn path_of(scene: &Scene, program: &str) -> PathBuf {
    let path = binary(program);
    if path.is_absolute() {
        return path;
    }
    scene
        .shell(&format!("command -v {}", path.display()))
        .into()
}
