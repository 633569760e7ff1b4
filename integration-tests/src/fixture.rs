//! Root filesystems, images and bundles to test with, from Debian's packages.

use crate::{Scene, ordinary};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Debian's static busybox (package busybox-static).
pub const BUSYBOX: &str = "/bin/busybox";

/// The names that busybox goes by, a line each. It is asked once.
fn applets() -> &'static str {
    static APPLETS: OnceLock<String> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let output = Command::new(BUSYBOX).arg("--list").output();
        let output = output.expect("run busybox (package busybox-static)");
        String::from_utf8(output.stdout).expect("names of applets")
    })
}

impl Scene {
    /// Makes a root filesystem of busybox at `name` in the scratch folder.
    ///
    /// # Panics
    /// When busybox-static is not installed.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        for folder in [
            "bin", "dev", "etc", "proc", "sys", "tmp", "root", "home/app",
        ] {
            std::fs::create_dir_all(root.join(folder)).expect("make a folder");
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox"))
            .expect("copy busybox (package busybox-static)");
        for applet in applets().lines().filter(|&applet| applet != "busybox") {
            match symlink("busybox", root.join("bin").join(applet)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => linked.expect("link an applet"),
            }
        }
        std::fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))
            .expect("open the folder for temporary files");
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        )
        .expect("write passwd");
        std::fs::write(
            root.join("etc/group"),
            "root:x:0:\napp:x:1000:\nextra:x:2000:app\n",
        )
        .expect("write group");
        root
    }

    /// Imports busybox as an image of this name into the scene's store.
    ///
    /// # Panics
    /// When `teu-store import` fails.
    pub fn busybox(&self, name: &str) {
        let root = self.rootfs("busybox-rootfs");
        let tar = self.path("busybox.tar");
        self.shell(&format!(
            "tar -C {} --numeric-owner -cf {} .",
            root.display(),
            tar.display()
        ));
        self.run(
            "teu-store",
            ["import".as_ref(), tar.as_os_str(), name.as_ref()],
        )
        .succeeds();
    }

    /// Makes a bundle at `name` that runs `args` in busybox, with `change`
    /// applied to its `config.json`, and gives its folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let folder = self.path(name);
        self.rootfs(&format!("{name}/rootfs"));
        let mut config = minimal_config(args);
        config["linux"]["cgroupsPath"] = json!(format!("{}/{name}", self.cgroup()));
        change(&mut config);
        write_config(&folder, &config);
        folder
    }
}

/// Writes a bundle's `config.json`.
///
/// # Panics
/// When it cannot be written.
pub fn write_config(bundle: &Path, config: &Value) {
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("write config.json");
}

/// A configuration as `runc spec` gives it, without a terminal; an ordinary
/// user's has a user namespace.
#[must_use]
pub fn minimal_config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "scene",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    if !ordinary::is_root() {
        ordinary::adapt(&mut config);
    }
    config
}
