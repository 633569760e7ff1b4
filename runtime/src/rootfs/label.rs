//! SELinux contexts of the file systems of a container (`linux.mountLabel`).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The extended attribute that holds a file's context.
const CONTEXT: &str = "security.selinux";

/// The option that gives all files of a new file system one context. Those
/// whose files the kernel labels itself have none (`mount(8)`, "context="), and
/// message queues are labelled once they are there.
pub(super) fn setting(kind: &str, label: &str) -> Option<(String, Option<String>)> {
    let labelled = !label.is_empty() && !matches!(kind, "proc" | "sysfs" | "mqueue");
    labelled.then(|| ("context".into(), Some(label.into())))
}

/// Labels the root of a message queue file system. Without SELinux nothing is
/// labelled: such a file system keeps no attributes then.
pub(super) fn relabel(kind: &str, label: &str, mount: &OwnedFd) -> rustix::io::Result<()> {
    if kind != "mqueue" || label.is_empty() {
        return Ok(());
    }
    // The descriptor itself was not opened for reading, which fsetxattr(2) wants.
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    match rustix::fs::setxattr(path, CONTEXT, label.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_labelled_where_they_can_be() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let wanted = Some(("context".to_owned(), Some(label.to_owned())));
        assert_eq!(setting("tmpfs", label), wanted);
        assert_eq!(setting("devpts", label), wanted);
        for kind in ["proc", "sysfs", "mqueue"] {
            assert_eq!(setting(kind, label), None, "{kind}");
        }
        assert_eq!(setting("tmpfs", ""), None);
    }
}
