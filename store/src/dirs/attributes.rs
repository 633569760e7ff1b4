//! Owner, mode, time and extended attributes of what was just made.
//!
//! The order matters: chown(2) clears setuid bits and capabilities, so it comes first; every other change
//! touches the time, so that comes last.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::{Doing, Done, Form};
use crate::tar::Time;
use crate::tree::{Attributes, Content, Node, Xattrs};

/// Describes an open file.
pub(super) fn set_file(file: &File, node: &Node<'_>) -> Done {
    let attributes = &node.attributes;
    own(file.as_fd(), attributes)?;
    set_xattrs(attributes.xattrs, |name, value| {
        fsetxattr(file, name, value, XattrFlags::empty())
    })?;
    fchmod(file, mode(attributes)).doing("change mode of")?;
    futimens(file, &times(attributes.mtime)).doing("change time of")
}

/// Describes an open directory, when all is in it.
pub(super) fn set_directory(directory: BorrowedFd<'_>, node: &Node<'_>, form: Form) -> Done {
    let attributes = &node.attributes;
    own(directory, attributes)?;
    set_xattrs(attributes.xattrs, |name, value| {
        fsetxattr(directory, name, value, XattrFlags::empty())
    })?;
    if form == Form::Overlay && node.directory().is_some_and(|directory| directory.opaque) {
        // Without privileges only the user. space can be written, and overlay is told to read that one.
        let privileged = fsetxattr(
            directory,
            c"trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        );
        match privileged {
            Err(Errno::PERM) => {
                fsetxattr(directory, c"user.overlay.opaque", b"y", XattrFlags::empty())
            }
            other => other,
        }
        .doing("mark as opaque")?;
    }
    fchmod(directory, mode(attributes)).doing("change mode of")?;
    futimens(directory, &times(attributes.mtime)).doing("change time of")
}

/// Describes a link, device or pipe `name` in `directory`, which nobody else writes to.
pub(super) fn set_named(directory: BorrowedFd<'_>, name: &[u8], node: &Node<'_>) -> Done {
    let attributes = &node.attributes;
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .doing("change owner of")?;
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name,
    ]
    .concat();
    set_xattrs(attributes.xattrs, |key, value| {
        lsetxattr(path.as_slice(), key, value, XattrFlags::empty())
    })?;
    if !matches!(node.content, Content::Symlink(_)) {
        chmodat(directory, name, mode(attributes), AtFlags::empty()).doing("change mode of")?;
    }
    utimensat(
        directory,
        name,
        &times(attributes.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .doing("change time of")
}

fn own(file: BorrowedFd<'_>, attributes: &Attributes<'_>) -> Done {
    fchown(
        file,
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
    )
    .doing("change owner of")
}

fn set_xattrs(xattrs: Xattrs<'_>, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> Done {
    xattrs
        .iter()
        .try_for_each(|xattr| set(xattr.name(), xattr.value()))
        .doing("set extended attributes of")
}

fn mode(attributes: &Attributes<'_>) -> Mode {
    Mode::from_raw_mode(attributes.mode.into())
}

fn times(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
