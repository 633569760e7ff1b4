//! What a file of a directory says of itself, as a layer says it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::identity;
use crate::tar::{Attributes, Device, Time, Xattrs};

/// Longest list of attribute names, and longest value, that Linux has, in bytes.
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// Attributes that belong to the host: its security module labels every new file.
const HOST_XATTRS: [&[u8]; 1] = [b"security.selinux"];

/// A file's attributes.
#[derive(Debug)]
pub(crate) struct Observed {
    /// As a layer has them: without what an overlay or the host has added.
    pub(crate) attributes: Attributes,
    /// Of a directory in an upper: nothing of the layers below shows in it.
    pub(crate) is_opaque: bool,
    /// The device that an empty file stands for, where devices may not be made.
    pub(crate) device: Option<Device>,
}

type Failed = (&'static str, io::Error);

impl Observed {
    /// Reads what `stat` does not say of `name` in `directory`.
    pub(crate) fn of(
        directory: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
    ) -> Result<Observed, Failed> {
        let mut xattrs = xattrs(directory, name)?;
        let is_opaque = is_opaque(&xattrs);
        xattrs.retain(|name, _| {
            !name.starts_with(b"trusted.overlay.")
                && !name.starts_with(b"user.overlay.")
                && !HOST_XATTRS.contains(&&**name)
        });
        let mut attributes = Attributes {
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time_of(stat),
            xattrs,
        };
        let device = identity::own().translate(&mut attributes);
        Ok(Observed {
            attributes,
            is_opaque,
            device,
        })
    }
}

/// All extended attributes of `name` in `directory`, those of an overlay among them.
pub(super) fn xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, Failed> {
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name,
    ]
    .concat();
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path.as_slice(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.map_err(|errno| ("list attributes of", errno.into()))?,
    };
    let mut xattrs = Xattrs::new();
    if length == 0 {
        return Ok(xattrs);
    }
    let mut value = vec![0; XATTR_BYTES_MAX];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let length = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..])
            .map_err(|errno| ("read attributes of", errno.into()))?;
        xattrs.insert(name.into(), value[..length].into());
    }
    Ok(xattrs)
}

fn is_opaque(xattrs: &Xattrs) -> bool {
    [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"]
        .iter()
        .any(|key| xattrs.get(*key).is_some_and(|value| value.as_ref() == b"y"))
}

pub(super) fn time_of(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}
