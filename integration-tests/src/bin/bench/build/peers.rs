//! The builders that ours is compared with, each with storage of its own.

use crate::measure::{Sample, run};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use teu_integration_tests::Scene;

/// Debian's folders alone: a client of another maker may stand before them.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Of the kernel's clock in `/proc/PID/stat`, per second.
const TICKS: f64 = 100.0;

/// buildah, which is a program as ours is.
pub(super) struct Buildah<'a> {
    scene: &'a Scene,
}

impl<'a> Buildah<'a> {
    /// With busybox as the image `base`.
    pub(super) fn new(scene: &'a Scene) -> Self {
        let buildah = Self { scene };
        let tar = scene.path("busybox.tar").display().to_string();
        buildah.call(&["from", "--name", "import", "scratch"]);
        buildah.call(&["add", "-q", "import", &tar, "/"]);
        buildah.call(&["commit", "-q", "--rm", "import", "base"]);
        buildah
    }

    /// Builds a context once.
    pub(super) fn build(&self, context: &Path, flags: &[&str]) -> Sample {
        let words = ["build", "-q", "--layers", "--isolation", "chroot"];
        let mut command = self.command(&words);
        command.args(["-t", "bench"]).args(flags).arg(context);
        run(command.stderr(Stdio::null()))
    }

    fn call(&self, words: &[&str]) {
        run(self.command(words).stderr(Stdio::null()));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.scene.command("buildah", words.iter().take(0));
        command.arg("--root").arg(self.scene.path("buildah/root"));
        command.arg("--runroot").arg(self.scene.path("buildah/run"));
        command.args(["--storage-driver", "overlay"]).args(words);
        command
    }
}

/// BuildKit, as it is a part of dockerd: what it takes is the daemon's time.
pub(super) struct BuildKit<'a> {
    scene: &'a Scene,
    daemon: Child,
}

impl<'a> BuildKit<'a> {
    /// With busybox as the image `base`; `None` where there is no dockerd.
    pub(super) fn new(scene: &'a Scene) -> Option<Self> {
        let at = |name: &str| scene.path(name).display().to_string();
        let log = std::fs::File::create(scene.path("dockerd.log")).ok()?;
        let daemon = Command::new("setpriv")
            .env("PATH", PATH)
            // A benchmark that panics runs no destructor.
            .args(["--pdeathsig", "TERM", "dockerd"])
            .arg(format!("--data-root={}", at("docker")))
            .arg(format!("--exec-root={}", at("docker-run")))
            .arg(format!("--pidfile={}", at("docker.pid")))
            .arg(format!("--host=unix://{}", at("docker.sock")))
            .arg(format!("--cgroup-parent={}", scene.cgroup()))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--storage-driver=overlay2",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .inspect_err(|error| eprintln!("without BuildKit: start dockerd: {error}"))
            .ok()?;
        let buildkit = Self { scene, daemon };
        scene.wait_until("dockerd answers", || {
            let asked = buildkit.client(&["version"]).output();
            asked.is_ok_and(|output| output.status.success())
        });
        run(buildkit
            .client(&["import", &at("busybox.tar"), "base"])
            .stderr(Stdio::null()));
        Some(buildkit)
    }

    /// Builds a context once.
    pub(super) fn build(&self, context: &Path, flags: &[&str]) -> Sample {
        let before = self.cpu_seconds();
        let mut command = self.client(&["build", "-q", "--network", "none", "-t", "bench"]);
        let mut sample = run(command.args(flags).arg(context).stderr(Stdio::null()));
        sample.cpu += std::time::Duration::from_secs_f64(self.cpu_seconds() - before);
        sample.peak_kib += self.peak_kib();
        sample
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("PATH", PATH).env("DOCKER_BUILDKIT", "1");
        command.env("HOME", self.scene.path("docker-home"));
        let socket = self.scene.path("docker.sock");
        command.arg(format!("--host=unix://{}", socket.display()));
        command.args(words);
        command
    }

    /// Of the daemon and what it has waited for (proc_pid_stat(5), fields 14 to 17).
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.id()));
        let stat = stat.expect("read the daemon's times");
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = after_name.split_whitespace().skip(11).take(4);
        times
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum::<f64>()
            / TICKS
    }

    /// The daemon's largest resident set so far.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.id()));
        let status = status.expect("read the daemon's memory");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for BuildKit<'_> {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        // It leaves the cgroups that it made for its steps.
        self.scene.remove_cgroups();
    }
}
