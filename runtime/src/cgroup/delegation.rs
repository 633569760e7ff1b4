//! What to do about a controller that a container cannot have.

/// Advice on `controller`, for who reads the error.
pub(super) fn advice(controller: &str, is_v2: bool) -> String {
    text(controller, is_v2, rustix::process::geteuid().is_root())
}

fn text(controller: &str, is_v2: bool, is_root: bool) -> String {
    match (is_root, is_v2) {
        (true, true) => format!(
            "the kernel lacks it, or a parent withholds it: see cgroup.controllers of the root, and write +{controller} to cgroup.subtree_control of every parent"
        ),
        (true, false) => format!("no hierarchy of this host has {controller}"),
        (false, true) => format!(
            "it is not delegated to this user: set Delegate={controller} in a drop-in of user@.service, or let root write +{controller} to cgroup.subtree_control of every parent"
        ),
        (false, false) => format!(
            "{controller} is not delegated to this user: run with `systemd-run --user --scope -p Delegate=yes`, let root give this user a cgroup for cgroupsPath, or leave the limits out"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_always_named() {
        for (is_v2, is_root) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(text("pids", is_v2, is_root).contains("pids"));
        }
        assert!(text("cpu", true, false).contains("Delegate=cpu"));
    }
}
