//! A mount namespace for a while: what is mounted in it is seen by nobody
//! else and is gone with it, also when this process is killed.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::Error;
use crate::sys;

/// This process is in a mount namespace of its own until this is dropped.
#[derive(Debug)]
pub(super) struct PrivateMounts {
    namespace: OwnedFd,
    root: OwnedFd,
    cwd: OwnedFd,
}

impl PrivateMounts {
    /// Enters a copy of the present namespace, which follows what the host
    /// mounts and never the other way round.
    pub(super) fn enter() -> Result<Self, Error> {
        let open = |path: &'static str, flags: OFlags| {
            rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(Error::on("open", path))
        };
        let before = Self {
            namespace: open("/proc/self/ns/mnt", OFlags::RDONLY)?,
            root: open("/", OFlags::PATH)?,
            cwd: open(".", OFlags::PATH)?,
        };
        sys::unshare(UnshareFlags::NEWNS).map_err(Error::at("unshare", "mount namespace"))?;
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .map_err(Error::at("change the propagation of", "\"/\""))?;
        Ok(before)
    }

    /// Back to the host's, with its root and working directory, which
    /// `setns(2)` changes.
    fn leave(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&self.namespace),
            Some(LinkNameSpaceType::Mount),
        )?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        rustix::process::fchdir(&self.cwd)
    }
}

impl Drop for PrivateMounts {
    fn drop(&mut self) {
        // The way back is open as long as the way in was. Were it not, nothing
        // that follows could be trusted to act on the host.
        if self.leave().is_err() {
            sys::exit(1);
        }
    }
}
