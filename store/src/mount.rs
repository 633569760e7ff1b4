//! Mounts by descriptor (fsopen(2), fsmount(2), move_mount(2)); nothing here resolves an untrusted path.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, AtFlags, CWD, StatxAttributes, StatxFlags, fadvise, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};

/// How much of an image is read before it is asked for, in bytes: all of it but for layers of some ten thousand files,
/// few programs look at all of which.
const READ_AHEAD_BYTES: u64 = 8 << 20;

/// Mounts EROFS image `image` over the tars `devices`, read-only, attached nowhere. A regular file needs no loop device
/// from Linux 6.12 on.
///
/// `directio` keeps the page cache from holding the tar as well as the view of it; kernels that do not know
/// the option, or file systems that cannot, do without.
pub(crate) fn erofs(image: &Path, devices: &[&Path]) -> io::Result<OwnedFd> {
    read_ahead(image);
    erofs_with(image, devices, true).or_else(|_| erofs_with(image, devices, false))
}

/// Has the kernel read an image before it is asked for: what EROFS needs of it, it reads page by page, and waits for each.
fn read_ahead(image: &Path) {
    if let Ok(file) = File::open(image) {
        let _ = fadvise(
            &file,
            0,
            NonZeroU64::new(READ_AHEAD_BYTES),
            Advice::WillNeed,
        );
    }
}

fn erofs_with(image: &Path, devices: &[&Path], directio: bool) -> io::Result<OwnedFd> {
    let fs = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, c"source", image).map_err(|errno| explained(&fs, errno.into()))?;
    for device in devices {
        fsconfig_set_string(&fs, c"device", *device)
            .map_err(|errno| explained(&fs, errno.into()))?;
    }
    if directio {
        fsconfig_set_flag(&fs, c"directio").map_err(|errno| explained(&fs, errno.into()))?;
    }
    fsconfig_create(&fs).map_err(|errno| explained(&fs, errno.into()))?;
    Ok(fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?)
}

/// An upper and a work directory on one file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upper<'p> {
    pub(crate) upper: &'p Path,
    pub(crate) work: &'p Path,
}

/// Mounts an overlay of `lowers`, top first, attached nowhere. Without `upper` it is read-only.
/// The options keep the layers exchangeable: no inode of the upper refers to a lower.
pub(crate) fn overlay(lowers: &[&Path], upper: Option<Upper<'_>>) -> io::Result<OwnedFd> {
    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(&fs, key, value).map_err(|errno| explained(&fs, errno.into()))
    };
    for lower in lowers {
        set("lowerdir+", lower)?;
    }
    if let Some(Upper { upper, work }) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    for key in ["metacopy", "index"] {
        set(key, Path::new("off"))?;
    }
    if crate::identity::own().is_whole {
        set("redirect_dir", Path::new("off"))?;
    } else {
        // What belongs to layers is kept in attributes that others than root may set, too (overlayfs.rst, "userxattr");
        // then directories are never redirected, and may not be told to be.
        fsconfig_set_flag(&fs, c"userxattr").map_err(|errno| explained(&fs, errno.into()))?;
    }
    fsconfig_create(&fs).map_err(|errno| explained(&fs, errno.into()))?;
    let attributes = if upper.is_none() {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches a mount made here to directory `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// A copy of directory `path` as a mount of its own, attached nowhere.
pub(crate) fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?)
}

/// Takes the mount at `path` away; what still uses it keeps it alive. That nothing is mounted there is fine.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether something is mounted on `name` in `folder`, in this process's mount namespace.
pub(crate) fn is_mounted(folder: BorrowedFd<'_>, name: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(folder, name, flags, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The kernel says more about a refused option through the context than in its error number (fsopen(2), "message retrieval").
fn explained(fs: &OwnedFd, err: io::Error) -> io::Error {
    let mut text = Vec::new();
    let mut message = [0; 512];
    while let Ok(n) = rustix::io::read(fs, &mut message) {
        if n == 0 {
            break;
        }
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(message[..n].trim_ascii());
    }
    if text.is_empty() {
        err
    } else {
        io::Error::new(
            err.kind(),
            format!("{err} ({})", String::from_utf8_lossy(&text)),
        )
    }
}
