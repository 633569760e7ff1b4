//! The build's own mount namespace: its overlays and views vanish with it, however it ends.

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// Takes namespaces of these kinds for this process. Must be called before any thread is made.
///
/// # Errors
/// As `unshare(2)`.
pub(super) fn unshare(kinds: UnshareFlags) -> Result<(), Errno> {
    #[allow(
        deprecated,
        reason = "what makes it unsafe is UnshareFlags::FILES, which is not used"
    )]
    rustix::thread::unshare(kinds)
}

/// Gives this process mounts of its own. What the host mounts later still appears; what is
/// mounted here does not reach the host. Must be called before any thread is made.
///
/// # Errors
/// As `unshare(2)` and `mount(2)`: needs CAP_SYS_ADMIN in the user namespace.
pub(super) fn enter_own() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}
