//! One test's world: its folders, its network namespace, its cgroup parent.

use crate::command::{Outcome, TIME_LIMIT, run_limited};
use crate::leftover;
use crate::ordinary::{self, is_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A test's world. Dropping it fails the test when anything is left behind.
#[derive(Debug)]
pub struct Scene {
    name: String,
    mark: String,
    folder: TempDir,
}

/// The namespace that the test process was started in, kept from before the
/// first scene moves its thread out of it.
static HOST_NETWORK: OnceLock<File> = OnceLock::new();

/// How long anything may take that is waited for: much on an emulated machine.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(60);

impl Scene {
    /// A scene in a network namespace of its own, in which loopback is up; an
    /// ordinary user's stays where it is.
    ///
    /// # Panics
    /// When namespaces or folders cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let scene = Self::on_host_network(name);
        if !is_root() {
            // Its containers have a network namespace of their own all the same.
            return scene;
        }
        // Only this thread moves; what it starts inherits the namespace, which
        // ends with the last of them: nothing to remove.
        //
        // SAFETY of the name: no descriptor table or address space is unshared.
        #[allow(
            unsafe_code,
            reason = "rustix marks unshare unsafe for flags that are not used here"
        )]
        // SAFETY: CLONE_NEWNET does not unshare the descriptor table.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .expect("unshare the network namespace");
        scene.run("ip", ["link", "set", "lo", "up"]).succeeds();
        scene
    }

    /// A scene on the host's network, for what has to reach package servers.
    ///
    /// # Panics
    /// When the folders cannot be made.
    #[must_use]
    pub fn on_host_network(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let host = HOST_NETWORK.get_or_init(|| {
            File::open("/proc/thread-self/ns/net").expect("open the network namespace")
        });
        if is_root() {
            move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the host's network namespace");
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Of one length each, so that none begins another's.
        let mark = format!("teu-test-{}-{number:03}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&format!("{mark}."))
            .tempdir()
            .expect("make a scratch folder");
        Self {
            name: name.to_owned(),
            mark,
            folder,
        }
    }

    /// The name given to the scene.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path in the scene's scratch folder.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data folder (`teu --root`).
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The store (`teu-store --root`).
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("data/store")
    }

    /// The state folder (`teu --state`).
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The cgroup below which everything of this scene belongs.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("{}/{}", ordinary::parent(), self.mark)
    }

    /// What names the scene: all that it makes outside its folder carries this.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Writes a file in the scratch folder, with its folders.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("make a folder");
        }
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
        path
    }

    /// A command of this scene: one of ours with its global flags, so that
    /// nothing outside the scene is touched, or any other program.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let args: Vec<S> = args.into_iter().collect();
        let mut command = Command::new(binary(program));
        match program {
            "teu" => {
                command
                    .arg("--root")
                    .arg(self.data())
                    .arg("--state")
                    .arg(self.state());
            }
            "teu-store" | "teu-build" => {
                command.arg("--root").arg(self.store());
            }
            "teu-runtime" => {
                command.arg("--root").arg(self.path("state/runtime"));
            }
            _ => {}
        }
        command.args(&args);
        // Ours: a container must not be able to be mistaken for another test's.
        if (program == "teu" || program == "teu-build")
            && args
                .first()
                .is_some_and(|verb| verb.as_ref() == "run" || verb.as_ref() == "build")
        {
            command = with_cgroup_parent(command, args[0].as_ref(), &self.cgroup());
        }
        command
            .current_dir(self.folder.path())
            .env("TEU_TEST_SCENE", &self.mark)
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs a command of this scene to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        run_limited(self.command(program, args), b"", TIME_LIMIT)
    }

    /// [`Scene::run`] by a caller that ignores and blocks all signals that can be: as
    /// under nohup(1), or in the background of a shell, but more.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub fn run_deaf<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        let command = self.command(program, args);
        let mut deaf = self.command("env", ["--ignore-signal", "--block-signal"]);
        deaf.arg(command.get_program()).args(command.get_args());
        run_limited(deaf, b"", TIME_LIMIT)
    }

    /// [`Scene::run`] with this text on standard input.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Outcome {
        run_limited(self.command(program, args), input, TIME_LIMIT)
    }

    /// [`Scene::run`] with another time limit.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub fn run_within<S: AsRef<OsStr>>(
        &self,
        limit: Duration,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        run_limited(self.command(program, args), b"", limit)
    }

    /// Runs a shell script in the scene's folder, `set -eu`, and gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, script: &str) -> String {
        self.run("sh", ["-euc", script]).succeeds()
    }

    /// Removes the cgroups that a daemon made for itself below the scene's.
    pub fn remove_cgroups(&self) {
        self.shell(&format!(
            "find /sys/fs/cgroup/*{0} /sys/fs/cgroup{0} -depth -type d -exec rmdir {{}} + 2>/dev/null || true",
            self.cgroup()
        ));
    }

    /// Polls until `condition` holds.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + WAIT_LIMIT;
        while !condition() {
            assert!(
                std::time::Instant::now() < deadline,
                "waited in vain: {what}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Scene {
    /// What exists of the scene outside its folder, after some patience, a line each: processes, mounts, cgroups.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        leftover::after(&self.mark, self.folder.path())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let left = self.left();
        leftover::remove(&self.mark, self.folder.path());
        if !left.is_empty() && !std::thread::panicking() {
            panic!("left behind by {:?}:\n{}", self.name, left.join("\n"));
        }
    }
}

/// Where a program of ours stands: beside the test's own build, or in the
/// folder that `TEU_BINARIES` names. Other names are found in `PATH`.
///
/// `TEU_RUNTIME` names another runtime to run the suites with: where runc
/// fails a test too, the test may be wrong.
#[must_use]
pub fn binary(program: &str) -> PathBuf {
    let is_ours = ["teu", "containerd-shim-teu", "least-work"]
        .iter()
        .any(|own| program.starts_with(own));
    if !is_ours {
        return program.into();
    }
    if program == "teu-runtime"
        && let Some(other) = std::env::var_os("TEU_RUNTIME")
    {
        return other.into();
    }
    if let Some(folder) = std::env::var_os("TEU_BINARIES") {
        return Path::new(&folder).join(program);
    }
    let own = std::env::current_exe().expect("the test's own path");
    // A program stands in target/<triple>/<profile>, a test in deps/ below it.
    let folder = own.parent().expect("the build folder");
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().expect("the build folder"),
        _ => folder,
    };
    folder.join(program)
}

/// How a `PATH` begins where other versions of peers than Debian's own are to be found
/// first: in the folder that `TEU_PEERS` names.
#[must_use]
pub fn peers() -> String {
    std::env::var("TEU_PEERS").map_or_else(|_| String::new(), |peers| peers + ":")
}

/// Inserts `--cgroup-parent` behind the verb.
fn with_cgroup_parent(command: Command, verb: &OsStr, parent: &str) -> Command {
    let mut out = Command::new(command.get_program());
    let mut seen = false;
    for arg in command.get_args() {
        out.arg(arg);
        if !seen && arg == verb {
            out.arg("--cgroup-parent").arg(parent);
            seen = true;
        }
    }
    out
}
