//! Another mount namespace for a while. What is mounted in one of our own is
//! seen by nobody else and is gone with it, also when this process is killed.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::Error;
use crate::sys;

/// This process is in another mount namespace until this is dropped.
#[derive(Debug)]
pub(super) struct Elsewhere(Host);

/// Where this process was before.
#[derive(Debug)]
struct Host {
    namespace: OwnedFd,
    root: OwnedFd,
    cwd: OwnedFd,
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::on("open", path))
}

/// The file of this process's own mount namespace.
const OWN: &str = "/proc/self/ns/mnt";

impl Host {
    /// Where this process is.
    fn here() -> Result<Self, Error> {
        Ok(Self {
            namespace: open(OWN, OFlags::RDONLY)?,
            root: open("/", OFlags::PATH)?,
            cwd: open(".", OFlags::PATH)?,
        })
    }

    /// Goes there, with its root and working directory, which `setns(2)` changes.
    fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&self.namespace),
            Some(LinkNameSpaceType::Mount),
        )?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        rustix::process::fchdir(&self.cwd)
    }
}

impl Elsewhere {
    /// Enters the namespace of `pid`, which must not be our own.
    pub(super) fn of(pid: i32) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/ns/mnt");
        let other = open(&path, OFlags::RDONLY)?;
        let before = Host::here()?;
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let (ours, theirs) = (inode(&before.namespace), inode(&other));
        if ours.is_err() || theirs.is_err() || ours == theirs {
            let why = format!("process {pid} has no mount namespace of its own");
            return Err(super::Error::Refused(why).into());
        }
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&other),
            Some(LinkNameSpaceType::Mount),
        )
        .map_err(Error::on("enter", &path))?;
        Ok(Self(before))
    }

    /// Enters a copy of the present namespace, which follows what the host
    /// mounts and never the other way round.
    pub(super) fn private() -> Result<Self, Error> {
        let before = Host::here()?;
        sys::unshare(UnshareFlags::NEWNS).map_err(Error::at("unshare", "mount namespace"))?;
        let elsewhere = Self(before);
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .map_err(Error::at("change the propagation of", "\"/\""))?;
        Ok(elsewhere)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // The way back is open as long as the way in was. Were it not, nothing
        // that follows could be trusted to act on the host.
        if self.0.enter().is_err() {
            sys::exit(1);
        }
    }
}
