//! Which setting of the host is behind a refusal: read, where the kernel does not say.

use rustix::io::Errno;
use std::fs;

/// A setting that forbids user namespaces, or mounts in them, at this value.
struct Knob {
    path: &'static str,
    forbids: &'static str,
    advice: &'static str,
}

const KNOBS: [Knob; 4] = [
    Knob {
        path: "/proc/sys/user/max_user_namespaces",
        forbids: "0",
        advice: "user.max_user_namespaces is 0: sysctl user.max_user_namespaces=15000",
    },
    Knob {
        path: "/proc/sys/user/max_mnt_namespaces",
        forbids: "0",
        advice: "user.max_mnt_namespaces is 0: sysctl user.max_mnt_namespaces=15000",
    },
    Knob {
        path: "/proc/sys/kernel/unprivileged_userns_clone",
        forbids: "0",
        advice: "kernel.unprivileged_userns_clone is 0: sysctl kernel.unprivileged_userns_clone=1",
    },
    Knob {
        path: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        advice: "kernel.apparmor_restrict_unprivileged_userns is 1: give teu-build an AppArmor profile with `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    },
];

/// A line of /proc/self/status; proc_pid_status(5).
pub(super) fn status(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| {
        Some(
            line.strip_prefix(field)?
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    })
}

/// Whether a seccomp filter watches this process: a container engine's, as a rule.
pub(super) fn is_filtered() -> bool {
    status("Seccomp").is_some_and(|mode| mode == "2")
}

/// What makes the kernel refuse a namespace, or a mount in one, with this error.
pub(super) fn explain(errno: Errno) -> Option<String> {
    if !fs::exists("/proc/self/ns/user").unwrap_or(true) {
        return Some("this kernel has no user namespaces (CONFIG_USER_NS)".to_owned());
    }
    let is_set = |knob: &&Knob| {
        fs::read_to_string(knob.path).is_ok_and(|value| value.trim() == knob.forbids)
    };
    if let Some(knob) = KNOBS.iter().find(is_set) {
        return Some(knob.advice.to_owned());
    }
    match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOSYS if is_filtered() => Some(
            "a seccomp filter is set, as container engines do: start the container with --security-opt seccomp=unconfined, or with a profile that allows unshare, mount, fsopen and the like".to_owned(),
        ),
        Errno::PERM if is_in_chroot() => {
            Some("the program's root is not that of its mount namespace (chroot), and then the kernel makes no user namespaces".to_owned())
        }
        Errno::NOSPC => Some("a limit of /proc/sys/user is reached, here or in a namespace around this one".to_owned()),
        Errno::USERS => Some("user namespaces are nested 32 deep".to_owned()),
        _ => None,
    }
}

/// Whether `/` is no mount's root: in a mount namespace's own root it always is.
fn is_in_chroot() -> bool {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else {
        return false;
    };
    !table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/"))
}
