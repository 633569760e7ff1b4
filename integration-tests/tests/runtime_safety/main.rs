//! The attacks on container runtimes that were ever published, tried on teu-runtime.
//!
//! Each test names the row of the catalogue that it is (`R16: ...`), with the
//! reports that it goes back to. A test's [`Attack`] compares, before and after:
//! a directory of the host that nothing may touch (content, modes, owners,
//! links, times, extended attributes), the host's mounts, and our own binary.
//!
//! Races run against a process of their own that exchanges two names as fast as
//! the kernel lets it. `TEU_RACE_ROUNDS=N` sets how many containers are created
//! against it (default 20 a race, so that the suite stays below three minutes);
//! `TEU_RACE_ROUNDS=2000` is the number for an evening.
//!
//! `TEU_EXECS=500` and `TEU_PROGRAM_MUTANTS=1000` are the same for what watches
//! entering processes, and for damaged configurations.
//!
//! What these rows say of other programs stands with those: R33 and R35 in
//! `store/src/bundle/tests.rs` (labels change no byte, what moby hides is
//! hidden), R34 in `store/src/bundle/process.rs` (variables), R25 in
//! `store/src/bundle/user.rs` and `shim/src/cli/user.rs` (odd numbers), R37 in
//! `integration-tests/tests/run/` (`supervision.rs`, `sockets.rs`: nobody else reaches a
//! supervisor), R43 there (an idle supervisor is small, also after much output
//! and many guests) and in `shim/src/supervisor/pump.rs` (output does not pile
//! up). R23 and R44 concern checkpoints, and stand with those
//! (`integration-tests/tests/runtime/checkpoint/hostile.rs`).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use teu_integration_tests::{Outcome, Scene, binary, tree};

mod attacker;
mod cgroups;
mod configuration;
mod descriptors;
mod endurance;
mod identities;
mod mutants;
mod paths;
mod procfs;
mod races;
mod records;

/// A scene with something to protect.
struct Attack {
    scene: Scene,
    before: Evidence,
}

/// What an attack must not change.
#[derive(PartialEq, Eq)]
struct Evidence {
    sentinel: String,
    mounts: Vec<String>,
    binary: Vec<u8>,
}

impl Attack {
    fn new(name: &str) -> Self {
        let scene = Scene::new(name);
        let sentinel = scene.path("sentinel");
        std::fs::create_dir(&sentinel).unwrap();
        for (file, text) in [("secret", "secret\n"), ("ptmx", "not a terminal\n")] {
            std::fs::write(sentinel.join(file), text).unwrap();
            std::fs::set_permissions(sentinel.join(file), PermissionsExt::from_mode(0o600))
                .unwrap();
        }
        std::fs::set_permissions(&sentinel, PermissionsExt::from_mode(0o700)).unwrap();
        let before = Evidence::collect(&sentinel);
        Self { scene, before }
    }

    /// The directory that nothing may touch.
    fn sentinel(&self) -> PathBuf {
        self.scene.path("sentinel")
    }

    fn container(&self, script: &str, change: impl FnOnce(&mut Value)) -> Container<'_> {
        // What an earlier attack has put there must not lead the fixture astray.
        let _ = std::fs::remove_dir_all(self.scene.path("c"));
        let bundle = self
            .scene
            .bundle("c", &["/bin/sh", "-c", script], |config| {
                config["root"]["readonly"] = json!(false);
                change(config);
            });
        let id = format!("{}-c", self.scene.mark());
        Container {
            scene: &self.scene,
            id,
            bundle,
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let after = Evidence::collect(&self.sentinel());
        assert_eq!(self.before.sentinel, after.sentinel, "the sentinel");
        assert_eq!(self.before.mounts, after.mounts, "the host's mounts");
        assert!(self.before.binary == after.binary, "our own binary");
    }
}

impl Evidence {
    fn collect(sentinel: &Path) -> Self {
        let own = std::fs::metadata(sentinel).unwrap();
        let attributes = Command::new("getfattr")
            .args(["-R", "-d", "-h", "-m", "-"])
            .arg(sentinel)
            .output();
        let attributes = attributes.map_or_else(|_| Vec::new(), |output| output.stdout);
        let folder = sentinel.parent().unwrap().to_str().unwrap();
        let sentinel = format!(
            "{:o} {}:{} {} links {}.{}\n{}\n{}",
            own.mode(),
            own.uid(),
            own.gid(),
            own.nlink(),
            own.mtime(),
            own.mtime_nsec(),
            tree::describe(sentinel),
            String::from_utf8_lossy(&attributes)
        );
        // Without the ids, which are used again, and without what other programs
        // on this machine mount in their own folders meanwhile.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = ["/proc", "/sys", "/dev", "/etc", folder];
        let mounts = table
            .lines()
            .filter_map(|line| line.splitn(4, ' ').nth(3))
            .filter(|line| {
                let mut fields = line.split(' ');
                let (root, point) = (fields.next().unwrap(), fields.next().unwrap());
                point == "/"
                    || ours
                        .iter()
                        .any(|o| point.starts_with(o) || root.starts_with(o))
            })
            .map(str::to_owned)
            .collect();
        let program = std::fs::read(binary("teu-runtime")).unwrap_or_default();
        Self {
            sentinel,
            mounts,
            binary: Sha256::digest(program).to_vec(),
        }
    }
}

/// A container of an attack; deleted when dropped.
struct Container<'a> {
    scene: &'a Scene,
    id: String,
    bundle: PathBuf,
}

impl Container<'_> {
    /// A path below its root file system, as the host sees it.
    fn root(&self, name: &str) -> PathBuf {
        self.bundle.join("rootfs").join(name)
    }

    /// Puts a symbolic link in the place of what the image has there.
    fn link(&self, name: &str, target: impl AsRef<Path>) {
        let path = self.root(name);
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            let _ = std::fs::remove_file(&path);
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn call(&self, verb: &[&str], args: &[&str]) -> Outcome {
        let id = self.id.as_str();
        let words = verb.iter().chain([&id]).chain(args);
        let outcome = self.scene.run("teu-runtime", words);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        let signal = std::os::unix::process::ExitStatusExt::signal(&outcome.status);
        assert_eq!(signal, None, "{outcome}");
        outcome
    }

    fn run(&self) -> Outcome {
        self.call(&["run", "-b", self.bundle.to_str().unwrap()], &[])
    }

    /// Runs it and gives its output, or `None` where the runtime refuses it.
    fn run_or_refuse(&self) -> Option<String> {
        let outcome = self.run();
        outcome.status.success().then_some(outcome.stdout)
    }

    /// `run --detach` or `create`, without our streams.
    fn leave(&self, verb: &[&str]) {
        let mut command = self.command(verb);
        let log = self.bundle.join("stderr");
        command.stderr(std::fs::File::create(&log).unwrap());
        let status = command.status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{verb:?}: {said}");
    }

    /// A verb that takes the bundle, silent.
    fn command(&self, verb: &[&str]) -> Command {
        let bundle = self.bundle.to_str().unwrap();
        let words = [verb, &["-b", bundle, &self.id]].concat();
        let mut command = self.scene.command("teu-runtime", words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// A verb with a terminal as its standard streams; what appears on that.
    fn in_terminal(&self, verb: &[&str], args: &[&str]) -> Outcome {
        let words = [verb, &[&self.id], args].concat();
        let command = self.scene.command("teu-runtime", words);
        let line = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<_> = line.map(|word| word.to_str().unwrap()).collect();
        self.scene
            .run("script", ["-qec", &line.join(" "), "/dev/null"])
    }

    fn run_in_terminal(&self) -> Outcome {
        self.in_terminal(&["run", "-b", self.bundle.to_str().unwrap()], &[])
    }

    fn exec(&self, flags: &[&str], args: &[&str]) -> Outcome {
        self.call(&[&["exec"], flags].concat(), args)
    }

    fn delete(&self) {
        self.call(&["delete", "--force"], &[]).succeeds();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self
            .scene
            .run("teu-runtime", ["delete", "--force", &self.id]);
    }
}

/// A bind mount for a configuration.
fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]})
}

/// Adds to a list of a configuration.
fn push(config: &mut Value, list: &str, entry: Value) {
    config[list].as_array_mut().unwrap().push(entry);
}

/// Removes the mounts at `destination`, so that the image's own file shows.
fn unmounted(config: &mut Value, destination: &str) {
    let below = format!("{destination}/");
    config["mounts"].as_array_mut().unwrap().retain(|mount| {
        let at = mount["destination"].as_str().unwrap();
        at != destination && !at.starts_with(&below)
    });
}

/// A container with a terminal whose /dev is the image's own.
fn terminal_in_the_images_dev(attack: &Attack) -> Container<'_> {
    let container = attack.container("true", |config| {
        unmounted(config, "/dev");
        let devpts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"]});
        push(config, "mounts", devpts);
        config["process"]["terminal"] = json!(true);
    });
    std::fs::create_dir_all(container.root("dev/pts")).unwrap();
    container
}

/// Gives the process every capability in every set but the ambient.
fn all_powerful(config: &mut Value) {
    let all = json!([
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "CAP_DAC_OVERRIDE",
        "CAP_MKNOD",
        "CAP_CHOWN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_DAC_READ_SEARCH",
        "CAP_NET_ADMIN"
    ]);
    config["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    config["process"]["noNewPrivileges"] = json!(false);
}
