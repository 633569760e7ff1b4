//! Docker's defaults for containers: capabilities, mounts, devices, hidden and read-only paths.

use super::request::Mount;

/// The capabilities of a container's root.
pub(super) const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All capabilities of Linux by their numbers; capabilities(7).
const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The capabilities that this process may hand on: its bounding set, proc_pid_status(5).
pub(super) fn all_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or_default();
    let held = |(number, _): &(usize, &&str)| set >> number & 1 == 1;
    let all = ALL_CAPABILITIES.iter().enumerate();
    all.filter(held).map(|(_, name)| *name).collect()
}

/// Where programs are searched when the image does not say.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths that show the host; docker's and podman's lists together.
pub(super) const MASKED_PATHS: [&str; 15] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
];

/// Paths by which the host could be changed.
pub(super) const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a container's configuration depends on beside image and request.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Whether cgroup v2 is the only hierarchy; only then a container gets a cgroup name space, as docker decides it.
    pub(super) unified_cgroups: bool,
    /// Which of `/etc/resolv.conf` and `/etc/hosts` are there.
    pub(super) network_files: Vec<String>,
    /// Thermal throttling counters, which tell of the host's load: one path a processor.
    pub(super) thermal_paths: Vec<String>,
}

impl Host {
    pub(super) fn of_this_machine() -> Host {
        // linux/magic.h, CGROUP2_SUPER_MAGIC.
        const CGROUP2: u32 = 0x6367_7270;
        let cgroups = rustix::fs::statfs("/sys/fs/cgroup");
        let exists = |path: &&str| std::path::Path::new(path).exists();
        let processors = std::fs::read_dir("/sys/devices/system/cpu")
            .into_iter()
            .flatten()
            .flatten();
        let mut thermal: Vec<String> = processors
            .map(|entry| entry.path().join("thermal_throttle"))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        thermal.sort();
        Host {
            unified_cgroups: cgroups
                .is_ok_and(|stat| u32::try_from(stat.f_type).is_ok_and(|magic| magic == CGROUP2)),
            network_files: ["/etc/resolv.conf", "/etc/hosts"]
                .iter()
                .filter(|path| exists(path))
                .map(ToString::to_string)
                .collect(),
            thermal_paths: thermal,
        }
    }
}

/// The mounts every container has, in order.
pub(super) fn mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &str| Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.split(',').map(str::to_owned).collect(),
    };
    vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            "ro,nosuid,noexec,nodev",
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid,noexec,nodev,mode=1777,size=65536k",
        ),
    ]
}

/// A device rule of the allow list: kind, major, minor, access.
type Device = (&'static str, Option<u32>, Option<u32>, &'static str);

/// The devices a container may use; all others are denied.
pub(super) const DEVICES: [Device; 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
];
