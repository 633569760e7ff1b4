//! teu-runtime as its callers see it: runc's command line, exit codes and words.
//!
//! Every expectation here is runc 1.5's own or the runtime specification's:
//! `TEU_RUNTIME=runc cargo test --test runtime` runs the suite against runc
//! (1.1, as Debian has it, knows no time namespace, and its `kill` reaches only
//! the first process where the pid namespace is shared).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use teu_integration_tests::{Outcome, Scene};

mod cgroups;
mod cgroups_inside;
mod checkpoint;
mod cost;
mod errors;
mod events;
mod exec;
mod execution;
mod failures;
mod fake_systemd;
mod filesystem;
mod hooks;
mod information;
mod keyrings;
mod lifecycle;
mod like_runc;
mod mounts;
mod namespaces;
mod network_devices;
mod process;
mod rootless;
mod seccomp;
mod services;
mod signals;
mod systemd;
mod systemd_bus;
mod terminals;
mod trace;
mod update;

/// A container of a scene, by its bundle, deleted when dropped.
struct Container<'a> {
    scene: &'a Scene,
    id: String,
    bundle: PathBuf,
}

impl<'a> Container<'a> {
    /// A bundle that runs `args` in busybox, with `change` applied to its configuration.
    fn new(scene: &'a Scene, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let bundle = scene.bundle(id, args, change);
        let id = format!("{}-{id}", scene.mark());
        Self { scene, id, bundle }
    }

    /// A bundle that runs a shell script.
    fn script(scene: &'a Scene, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        Self::new(scene, id, &["/bin/sh", "-c", script], change)
    }

    /// `teu-runtime VERB... ID ARGS...`
    fn call(&self, verb: &[&str], args: &[&str]) -> Outcome {
        let id = self.id.as_str();
        let words = verb.iter().chain([&id]).chain(args);
        self.scene.run("teu-runtime", words)
    }

    fn run(&self) -> Outcome {
        self.call(&["run", "-b", self.bundle.to_str().unwrap()], &[])
    }

    /// `run --detach`, its output thrown away: a detached container keeps it.
    fn run_detached(&self) {
        self.leave_behind("run --detach");
    }

    fn create(&self) {
        self.leave_behind("create");
    }

    /// A verb whose container outlives it: its streams must not be the test's.
    fn leave_behind(&self, verb: &str) {
        let line = format!("{} >/dev/null 2>{}", self.line(verb), self.log().display());
        let outcome = self.scene.run("sh", ["-c", &line]);
        assert_eq!(
            outcome.code(),
            0,
            "{}",
            std::fs::read_to_string(self.log()).unwrap()
        );
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("stderr")
    }

    /// The command line of a verb that takes the bundle.
    fn line(&self, verb: &str) -> String {
        let command = self.scene.command("teu-runtime", Vec::<&str>::new());
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .collect();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        format!(
            "{} {verb} -b {} {}",
            words.join(" "),
            self.bundle.display(),
            self.id
        )
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state"], &[]).succeeds()).expect("state prints JSON")
    }

    fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn exec(&self, script: &str) -> Outcome {
        self.call(&["exec"], &["/bin/sh", "-c", script])
    }

    /// The cgroup folder in one v1 hierarchy, or in v2's only one.
    fn cgroup(&self, controller: &str) -> PathBuf {
        let name = self.bundle.file_name().unwrap().to_str().unwrap();
        let below = format!("{}/{name}", self.scene.cgroup());
        let one = Path::new("/sys/fs/cgroup").join(controller);
        let hierarchy = if one.is_dir() {
            one
        } else {
            "/sys/fs/cgroup".into()
        };
        hierarchy.join(below.trim_start_matches('/'))
    }

    fn cgroup_value(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup(controller).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {path:?}: {error}"))
            .trim()
            .to_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.call(&["delete", "--force"], &[]);
    }
}

fn cgroup_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").is_dir()
}

fn in_container(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let scene = Scene::new(name);
    Container::script(&scene, "c", script, change)
        .run()
        .succeeds()
}
