//! The build's own mount namespace: its overlays and views vanish with it, however it ends.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use std::io;

/// Gives this process mounts of its own. What the host mounts later still appears; what is
/// mounted here does not reach the host. Must be called before any thread is made.
///
/// # Errors
/// Not privileged: `unshare(2)` needs CAP_SYS_ADMIN.
pub fn enter_own_mounts() -> io::Result<()> {
    let explained = |what: &'static str| {
        move |errno: rustix::io::Errno| {
            io::Error::new(
                io::Error::from(errno).kind(),
                format!("{what}: {errno}; building needs root"),
            )
        }
    };
    #[allow(
        deprecated,
        reason = "what makes it unsafe is UnshareFlags::FILES, which is not used"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS).map_err(explained("make a mount namespace"))?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(explained("keep mounts from the host"))
}
