//! The root file system that a request asks to be mounted.
//!
//! It is mounted at `BUNDLE/rootfs` in the namespace that containerd is in:
//! containerd and its clients look for it there, and unmount it themselves if
//! the shim is gone.

mod loop_device;
mod plan;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
    unmount,
};

pub use plan::BadOption;
use plan::{How, Plan};

use super::proto::Mount;
use crate::supervisor::cgroups;

/// What the kernel copies of an option string, its NUL byte included. `mount(2)`.
const DATA_BYTES_MAX: usize = 4096;
/// How often an open is tried again that a rename elsewhere disturbed. `openat2(2)`, EAGAIN.
const OPEN_TRIES: usize = 128;
/// How often a busy mount is tried again before it is detached from its users.
const BUSY_TRIES: usize = 5;
/// How long is waited in between: other programs look into new mounts for moments.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);
/// More mounts on top of each other than the kernel allows in a namespace by default.
const MOUNTS_MAX: usize = 100_000;

/// A root file system that cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was asked for has no meaning.
    #[error("mount {fstype} {source_path:?}")]
    Meaning {
        /// Its type.
        fstype: String,
        /// Its source.
        source_path: String,
        /// Why.
        source: BadOption,
    },
    /// The kernel refused.
    #[error("mount {fstype} {source_path:?} on {target:?}")]
    Mount {
        /// Its type.
        fstype: String,
        /// Its source.
        source_path: String,
        /// Where.
        target: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused to unmount.
    #[error("unmount {target:?}")]
    Unmount {
        /// What.
        target: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Mounts all of them at `rootfs`, or below it where they say so, in their order.
/// No mounts is no error. On failure nothing stays mounted.
///
/// # Errors
/// Which mount failed, and why.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), Error> {
    for mount in mounts {
        let mounted = mount_one(mount, rootfs);
        if mounted.is_err() {
            let _: Result<(), Error> = unmount_all(rootfs);
            return mounted;
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, rootfs: &Path) -> Result<(), Error> {
    let plan = Plan::of(mount).map_err(|source| Error::Meaning {
        fstype: mount.r#type.clone(),
        source_path: mount.source.clone(),
        source,
    })?;
    let place = Place::of(rootfs, &mount.target);
    let mounted = place.and_then(|place| apply(&plan, place.path()));
    mounted.map_err(|source| Error::Mount {
        fstype: mount.r#type.clone(),
        source_path: mount.source.clone(),
        target: rootfs.join(mount.target.trim_start_matches('/')),
        source,
    })
}

/// Where to mount: the root itself, or something below it that no link leads out of.
enum Place<'a> {
    Root(&'a Path),
    Below(
        PathBuf,
        #[expect(dead_code, reason = "keeps the path valid")] OwnedFd,
    ),
}

impl<'a> Place<'a> {
    fn of(rootfs: &'a Path, target: &str) -> io::Result<Self> {
        if target.trim_matches('/').is_empty() {
            return Ok(Self::Root(rootfs));
        }
        let folder = File::open(rootfs)?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = || {
            openat2(
                &folder,
                target,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                how,
            )
        };
        let opened = (0..OPEN_TRIES)
            .map(|_| open())
            .find(|opened| !matches!(opened, Err(Errno::AGAIN)));
        let fd = opened.unwrap_or(Err(Errno::AGAIN))?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Ok(Self::Below(path.into(), fd))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Root(path) => path,
            Self::Below(path, _) => path,
        }
    }
}

fn apply(plan: &Plan, target: &Path) -> io::Result<()> {
    match &plan.how {
        How::Bind { recursive: false } => mount_bind(&plan.source, target)?,
        How::Bind { recursive: true } => mount_bind_recursive(&plan.source, target)?,
        How::Remount => mount_remount(target, plan.flags, plan.data.join(","))?,
        How::New(fstype) => mount_new(fstype, &plan.source, plan, target)?,
        How::Loop { fstype, direct_io } => mount_file(fstype, *direct_io, plan, target)?,
    }
    // What a bind is told is ignored at first. `mount(2)`, "Creating a bind mount".
    if matches!(plan.how, How::Bind { .. }) && !plan.flags.is_empty() {
        mount_remount(target, plan.flags | MountFlags::BIND, "")?;
    }
    if let Some(propagation) = plan.propagation {
        mount_change(target, propagation)?;
    }
    Ok(())
}

/// A file system in a file. EROFS reads files itself since Linux 6.12.
fn mount_file(fstype: &str, direct_io: bool, plan: &Plan, target: &Path) -> io::Result<()> {
    if fstype == "erofs" && mount_new(fstype, &plan.source, plan, target).is_ok() {
        return Ok(());
    }
    let read_only = plan.flags.contains(MountFlags::RDONLY);
    let device = loop_device::attach(Path::new(&plan.source), read_only, direct_io)?;
    // The device goes away with its last user, which is the mount from here on.
    mount_new(fstype, device.path(), plan, target)
}

fn mount_new(fstype: &str, source: &str, plan: &Plan, target: &Path) -> io::Result<()> {
    let data = plan.data.join(",");
    if data.len() < DATA_BYTES_MAX {
        return call_mount(fstype, source, plan.flags, &data, target);
    }
    let too_long = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} bytes of options; the kernel takes {}",
                data.len(),
                DATA_BYTES_MAX - 1
            ),
        )
    };
    let (folder, short) = plan::shorten(&plan.data)
        .filter(|_| fstype == "overlay")
        .ok_or_else(too_long)?;
    let short = short.join(",");
    if short.len() >= DATA_BYTES_MAX {
        return Err(too_long());
    }
    let target = std::path::absolute(target)?;
    in_folder(Path::new(&folder), || {
        call_mount(fstype, source, plan.flags, &short, &target)
    })
}

fn call_mount(
    fstype: &str,
    source: &str,
    flags: MountFlags,
    data: &str,
    target: &Path,
) -> io::Result<()> {
    let data = CString::new(data)?;
    Ok(mount(source, target, fstype, flags, data.as_c_str())?)
}

/// Does something with `folder` as the current one: there is one thread, and it comes back.
fn in_folder<T>(folder: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let back = rustix::fs::openat(CWD, ".", flags, Mode::empty())?;
    rustix::process::chdir(folder)?;
    let done = work();
    rustix::process::fchdir(back)?;
    done
}

/// Unmounts everything at and below `rootfs`, however many mounts stand on each
/// other there. What others still use is detached: it goes when they do. That
/// nothing is mounted, or that there is no such folder, is no error.
///
/// # Errors
/// The kernel's reason, for the first mount that cannot be unmounted.
pub fn unmount_all(rootfs: &Path) -> Result<(), Error> {
    for _ in 0..MOUNTS_MAX {
        match unmount_busy(rootfs) {
            Ok(()) => {}
            // Not a mount (any more).
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(source) => {
                return Err(Error::Unmount {
                    target: rootfs.to_owned(),
                    source: source.into(),
                });
            }
        }
    }
    Ok(())
}

/// Unmounts the top of `target`, with what is mounted below it.
fn unmount_busy(target: &Path) -> Result<(), Errno> {
    let plain = || unmount(target, UnmountFlags::NOFOLLOW);
    match plain() {
        Err(Errno::BUSY) => {}
        result => return result,
    }
    for below in mounts_below(target) {
        let _: rustix::io::Result<()> = unmount(below, UnmountFlags::NOFOLLOW);
    }
    for _ in 0..BUSY_TRIES {
        match plain() {
            Err(Errno::BUSY) => std::thread::sleep(BUSY_INTERVAL),
            result => return result,
        }
    }
    unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

/// Mount points below `target`, the latest first.
fn mounts_below(target: &Path) -> Vec<PathBuf> {
    let target = std::path::absolute(target).unwrap_or_default();
    let point = |line: &str| PathBuf::from(unquote(line.split(' ').nth(4).unwrap_or_default()));
    let is_below = |point: &Path| point.starts_with(&target) && *point != *target;
    let lines = cgroups::mounts(|line| is_below(&point(line))).unwrap_or_default();
    lines.lines().rev().map(point).collect()
}

/// Blanks, tabs, newlines and backslashes are three octal digits there. `proc_pid_mountinfo(5)`.
fn unquote(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}
