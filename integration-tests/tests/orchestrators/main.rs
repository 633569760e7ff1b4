//! teu-runtime and containerd-shim-teu-v2 in the hands of real orchestrators: Debian's
//! dockerd and containerd, each with everything of its own in the scene.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::process::Child;
use teu_integration_tests::{Scene, cgroup_file, peers};

mod containerd;
mod containerd_host;
mod containerd_shim;
mod cri;
mod docker;

/// An image of busybox as an archive that peers load; its name there.
fn archive(scene: &Scene, format: &str, path: &str) -> &'static str {
    scene.busybox("busybox");
    let words = ["export", "-q", "--format", format, "-o", path, "busybox"];
    scene.run("teu-store", words).succeeds();
    "docker.io/library/busybox:latest"
}

/// A daemon; asked to end when dropped, and waited for.
struct Daemon {
    process: Child,
}

impl Daemon {
    /// Starts it, its words in `<name>.log`, and waits until `ready`.
    fn start(scene: &Scene, name: &str, args: &[String], ready: impl FnMut() -> bool) -> Self {
        let log = scene.path(format!("{name}.log"));
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        let process = scene
            .command(name, args)
            // Debian's folders alone: `docker` and its parts of other makers may stand before them.
            .env("PATH", path(scene))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let daemon = Self { process };
        scene.wait_until(&format!("{name} answers"), ready);
        daemon
    }
}

impl Daemon {
    /// kill -9.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait()
            && let Some(pid) = rustix::process::Pid::from_raw(self.process.id() as i32)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

/// The folders in which daemons find their programs: ours, under runc's name, first.
fn path(scene: &Scene) -> String {
    format!(
        "{}:{}/usr/bin:/usr/sbin:/bin:/sbin",
        scene.path("peers").display(),
        peers()
    )
}

/// Which shim stands between the daemon and the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shim {
    /// Debian's containerd-shim-runc-v2.
    Debians,
    /// containerd-shim-teu-v2, under that name.
    Ours,
}

/// The runtime under the name that scripts and daemons know; the shim beside it.
fn as_runc(scene: &Scene, shim: Shim) -> std::path::PathBuf {
    std::fs::create_dir_all(scene.path("peers")).unwrap();
    let link = |program: &str, name: &str| {
        let own = teu_integration_tests::binary(program);
        let own = scene.shell(&format!("command -v {}", own.display()));
        let path = scene.path(format!("peers/{name}"));
        std::os::unix::fs::symlink(own, &path).unwrap();
        path
    };
    if shim == Shim::Ours {
        link("containerd-shim-teu-v2", "containerd-shim-runc-v2");
        link("containerd-shim-teu-v2", "containerd-shim-teu-v2");
    }
    link("teu-runtime", "runc")
}

/// Each scene as a test under Debian's shim and one under ours.
macro_rules! under_both_shims {
    ($($scene:ident)*) => {
        mod debians_shim {
            $(
                #[test]
                fn $scene() {
                    super::$scene(crate::Shim::Debians);
                }
            )*
        }
        mod our_shim {
            $(
                #[test]
                fn $scene() {
                    super::$scene(crate::Shim::Ours);
                }
            )*
        }
    };
}
use under_both_shims;

/// Waits until shims that have `part` in their command lines have left. A shim leaves once it has told
/// what it had to tell, which takes longer when its containerd was away: that one must stay until then.
fn wait_for_shims(scene: &Scene, part: &str) {
    scene.shell(&format!(
        "timeout 20 sh -c \"while pgrep -f 'containerd-shim-teu-v[2].*{part}'; do sleep 0.1; done\" || true"
    ));
}
