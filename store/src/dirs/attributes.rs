//! Owner, mode, time and extended attributes of what was just made.
//!
//! The order matters: chown(2) clears setuid bits and capabilities, so it comes first; every other change
//! touches the time, so that comes last. What may not be set is written down: see [`crate::identity`].

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::{Doing, Done, Form};
use crate::identity::{self, Override};
use crate::tar::{Device, Time};
use crate::tree::{Attributes, Content, Node};

/// Describes an open file; one that stands for a device that may not be made says so.
pub(super) fn set_file(file: &File, node: &Node<'_>) -> Done {
    let attributes = &node.attributes;
    let device = match &node.content {
        Content::Device(device) => Some(*device),
        _ => None,
    };
    own(file.as_fd(), attributes, device)?;
    set_xattrs(attributes, |name, value| {
        fsetxattr(file, name, value, XattrFlags::empty())
    })?;
    fchmod(file, mode(attributes)).doing("change mode of")?;
    futimens(file, &times(attributes.mtime)).doing("change time of")
}

/// Describes an open directory, when all is in it.
pub(super) fn set_directory(directory: BorrowedFd<'_>, node: &Node<'_>, form: Form) -> Done {
    let attributes = &node.attributes;
    own(directory, attributes, None)?;
    set_xattrs(attributes, |name, value| {
        fsetxattr(directory, name, value, XattrFlags::empty())
    })?;
    if form == Form::Overlay && node.directory().is_some_and(|directory| directory.opaque) {
        // Without privileges only the user. space can be written, and overlay is told to read that one.
        let name = match identity::own().is_whole {
            true => c"trusted.overlay.opaque",
            false => c"user.overlay.opaque",
        };
        fsetxattr(directory, name, b"y", XattrFlags::empty()).doing("mark as opaque")?;
    }
    fchmod(directory, mode(attributes)).doing("change mode of")?;
    futimens(directory, &times(attributes.mtime)).doing("change time of")
}

/// Describes a link, device or pipe `name` in `directory`, which nobody else writes to.
pub(super) fn set_named(directory: BorrowedFd<'_>, name: &[u8], node: &Node<'_>) -> Done {
    let attributes = &node.attributes;
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name,
    ]
    .concat();
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if identity::own().is_root {
        let owned = chownat(directory, name, Some(uid), Some(gid), flags);
        // Neither a link nor a pipe can have attributes that ordinary users may set.
        tolerate(owned).doing("change owner of")?;
    }
    set_xattrs(attributes, |key, value| {
        let set = lsetxattr(path.as_slice(), key, value, XattrFlags::empty());
        tolerate(set)
    })?;
    if !matches!(node.content, Content::Symlink(_)) {
        chmodat(directory, name, mode(attributes), AtFlags::empty()).doing("change mode of")?;
    }
    utimensat(directory, name, &times(attributes.mtime), flags).doing("change time of")
}

/// Lets pass what who is not root may not do.
fn tolerate(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::PERM | Errno::INVAL) if !identity::own().is_whole => Ok(()),
        other => other,
    }
}

/// Gives a file away, or writes down to whom.
fn own(file: BorrowedFd<'_>, attributes: &Attributes<'_>, stands_for: Option<Device>) -> Done {
    let who = identity::own();
    let owner = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    if who.is_root && stands_for.is_none() {
        match fchown(file, Some(owner.0), Some(owner.1)) {
            Err(Errno::PERM | Errno::INVAL) if !who.is_whole => {}
            other => return other.doing("change owner of"),
        }
    }
    if stands_for.is_none() && (attributes.uid, attributes.gid) == (0, 0) {
        return Ok(());
    }
    let record = Override::text(attributes, stands_for);
    let name = identity::OVERRIDE;
    fsetxattr(file, name, record.as_bytes(), XattrFlags::empty()).doing("note the owner of")
}

fn set_xattrs(
    attributes: &Attributes<'_>,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Done {
    for xattr in attributes.xattrs.iter() {
        if let Some(name) = identity::own().name_here(xattr.name()) {
            set(&name, xattr.value()).doing("set extended attributes of")?;
        }
    }
    Ok(())
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
