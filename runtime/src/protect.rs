//! Keeping the container away from this program's own file.
//!
//! A process of the container can reach the binary of whoever enters it
//! through `/proc/PID/exe`, and overwrite the host's file once it is not being
//! executed (CVE-2019-5736). So the program executes itself once more, through
//! a read-only mount that is attached nowhere and that nobody else can name:
//! whatever reaches `exe` then reaches a file that cannot be opened for writing.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Access, MemfdFlags, SealFlags, StatVfsMountFlags};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::error::Error;
use crate::log::Log;
use crate::rootfs::mount::clone_host;
use crate::sys::{self, CStrings, MountAttr};

const OWN: &str = "/proc/self/exe";

/// Makes sure that this process's binary cannot be written to through it, and
/// that no other process may look into it. May execute the program anew.
pub(crate) fn own_binary() -> Result<(), Error> {
    hide().map_err(Error::at("set", "PR_SET_DUMPABLE"))?;
    let filesystem = rustix::fs::statvfs(OWN).map_err(Error::on("stat", OWN))?;
    if filesystem.f_flag.contains(StatVfsMountFlags::RDONLY) || is_sealed() {
        return Ok(());
    }
    // Without rights over the file there is nothing that could be abused.
    if !rustix::process::geteuid().is_root() && rustix::fs::access(OWN, Access::WRITE_OK).is_err() {
        return Ok(());
    }
    match clone_host(Path::new(OWN), false) {
        Ok(mount) => {
            let attr = MountAttr {
                set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
                ..MountAttr::default()
            };
            sys::mount_setattr(mount.as_fd(), attr, false, None)
                .map_err(Error::on("make read-only a mount of", OWN))?;
            Err(again(mount))
        }
        Err(_) => Err(again(sealed_copy()?)),
    }
}

/// Says how the binary is protected: in runc's words, which scripts look for.
pub(crate) fn tell(log: &Log) {
    if is_sealed() {
        log.debug(|| "runc exeseal: using /proc/self/exe clone: a sealed copy in memory".into());
        return;
    }
    log.debug(|| "runc exeseal: using /proc/self/exe clone: a read-only mount of it".into());
    log.debug(|| {
        "the mount is attached nowhere; it does what is elsewhere called \
         `runc exeseal: using overlayfs for sealed /proc/self/exe`"
            .into()
    });
}

/// Lets others look into this process again, for as long as an ordinary user
/// makes a child in a new user namespace: the child's files in procfs, its id
/// maps among them, belong to root otherwise.
pub(crate) fn show() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// Lets no other process look into this one.
pub(crate) fn hide() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Executes `program` with our own arguments and environment.
fn again(program: impl AsFd) -> Error {
    let args = std::env::args_os().map(OsString::into_vec);
    let env =
        std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let strings = |list: Vec<Vec<u8>>| {
        CStrings::new(
            list.into_iter()
                .filter_map(|text| CString::new(text).ok())
                .collect(),
        )
    };
    let error = sys::execve_fd(
        program.as_fd(),
        &strings(args.collect()),
        &strings(env.collect()),
    );
    Error::on("execute again", OWN)(error)
}

/// Whether the program runs from memory that cannot be written to.
fn is_sealed() -> bool {
    let name = rustix::fs::readlink(OWN, Vec::new());
    name.is_ok_and(|name| name.as_bytes().starts_with(b"/memfd:"))
}

/// A copy in memory that cannot be written to, for those who may not mount.
fn sealed_copy() -> Result<std::os::fd::OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy =
        rustix::fs::memfd_create("teu-runtime", flags).map_err(Error::at("create", "memfd"))?;
    let mut source = std::fs::File::open(OWN).map_err(Error::on("open", OWN))?;
    let mut target = std::fs::File::from(copy);
    std::io::copy(&mut source, &mut target).map_err(Error::on("copy", OWN))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&target, seals).map_err(Error::at("seal", "memfd"))?;
    Ok(target.into())
}
