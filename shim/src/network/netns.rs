//! Network namespaces with a name: a file under STATE/netns that the
//! namespace is bind-mounted on, as `ip netns` does it.
//!
//! The name makes the namespace outlive a killed shim, so that the plugins can
//! clean up in it. STATE/netns is itself a mount while it holds any: a shim's
//! private mount namespace drops its copies of them all at once.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::Error;
use crate::container::folder::make_dir;
use crate::container::{ContainerId, Place};
use crate::error::At as _;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// The file that names the namespace of `id`.
#[must_use]
pub fn path(place: &Place, id: &ContainerId) -> PathBuf {
    place.netns().join(id.as_str())
}

/// Makes a namespace and gives it its name. The caller's own namespace is the same before and after.
///
/// # Errors
/// What the kernel says; without the way back, the process must not go on.
pub fn make(place: &Place, id: &ContainerId) -> Result<OwnedFd, Error> {
    let home = place.netns();
    make_dir(&home)?;
    if !is_mount_point(&home)? {
        mount_bind(&home, &home).at("bind-mount", &home)?;
        mount_change(&home, MountPropagationFlags::PRIVATE).at("make private", &home)?;
    }
    let file = path(place, id);
    File::create(&file).at("create", &file)?;

    let own = Path::new(OWN);
    let before = File::open(own).at("open", own)?;
    crate::sys::unshare(UnshareFlags::NEWNET).call("unshare")?;
    let made = File::open(own).at("open", own);
    move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Network)).call("setns")?;
    let made = OwnedFd::from(made?);
    bind(&made, &file)?;
    Ok(made)
}

/// Shows `namespace` at `file`. `mount(2)`.
///
/// # Errors
/// What the kernel says.
pub fn bind(namespace: &OwnedFd, file: &Path) -> Result<(), Error> {
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), file)
        .at("bind-mount the network namespace on", file)
}

/// Takes a name away that nothing stands behind: who made it was killed before
/// the namespace was bound there, or its mount is gone. Plugins refuse such a
/// file, but not one that lacks.
///
/// # Errors
/// What the kernel says.
pub fn remove_hollow(place: &Place, id: &ContainerId) -> Result<(), Error> {
    let file = path(place, id);
    if file.exists() && !is_mount_point(&file)? {
        std::fs::remove_file(&file).at("remove", &file)?;
    }
    Ok(())
}

/// Takes the name away; the namespace goes with its last process. Idempotent.
///
/// # Errors
/// What the kernel says.
pub fn remove(place: &Place, id: &ContainerId) -> Result<(), Error> {
    let file = path(place, id);
    while unmount(&file, UnmountFlags::DETACH).is_ok() {}
    match std::fs::remove_file(&file) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            return Err(err).at("remove", &file);
        }
        _ => {}
    }
    // Busy while others have names there; whoever removes the last one succeeds.
    while unmount(place.netns(), UnmountFlags::NOFOLLOW).is_ok() {}
    Ok(())
}

fn is_mount_point(path: &Path) -> Result<bool, Error> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let stat =
        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).at("inspect", path)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_named_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let place = crate::container::folder::tests::place(dir.path());
        let id: ContainerId = "c".repeat(64).parse().unwrap();
        // Namespaces are a thread's: the mounts of this test stay its own.
        let done = std::thread::spawn(move || {
            let own = std::fs::read_link(OWN).unwrap();
            if crate::sys::unshare(UnshareFlags::NEWNS).is_err() {
                return false;
            }
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )
            .unwrap();
            let namespace = make(&place, &id).unwrap();
            assert_eq!(std::fs::read_link(OWN).unwrap(), own);
            let named = rustix::fs::stat(path(&place, &id)).unwrap();
            assert_eq!(named.st_ino, rustix::fs::fstat(&namespace).unwrap().st_ino);
            assert!(is_mount_point(&place.netns()).unwrap());
            remove_hollow(&place, &id).unwrap();
            assert!(path(&place, &id).exists(), "it is not hollow");
            remove(&place, &id).unwrap();
            remove(&place, &id).unwrap();
            assert!(!path(&place, &id).exists());
            assert!(!is_mount_point(&place.netns()).unwrap());
            File::create(path(&place, &id)).unwrap();
            remove_hollow(&place, &id).unwrap();
            assert!(!path(&place, &id).exists());
            true
        });
        if !done.join().unwrap() {
            eprintln!(
                "SKIPPED a_namespace_is_made_named_and_removed: namespaces are not permitted"
            );
        }
    }
}
