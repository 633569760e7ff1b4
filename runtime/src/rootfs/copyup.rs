//! `tmpcopyup`: what a new tmpfs covers is copied into it first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Deepest directory that is copied. PATH_MAX allows 2048 levels of names of
/// one letter; the limit keeps a hostile image from exhausting the stack.
const DEPTH_MAX: u32 = 1024;

/// Copies the content of the directory `from`, and its mode and owner, into
/// the directory `to`. Symbolic links stay links; nothing is followed.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    copy_directory(from, to, 0)
}

fn copy_directory(from: OwnedFd, to: BorrowedFd<'_>, depth: u32) -> std::io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    let own = rustix::fs::fstat(&from)?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(&from, name, flags, Mode::empty())?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                copy_directory(source, target.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => copy_file(&from, name, to, &stat)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(&*link, to, name)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind => {
                rustix::fs::mknodat(
                    to,
                    name,
                    kind,
                    Mode::from_raw_mode(stat.st_mode),
                    stat.st_rdev,
                )?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    // Last: a directory without write permission could not be filled.
    let to = rustix::fs::openat(
        to,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (uid, gid) = owner(&own);
    rustix::fs::fchown(&to, uid, gid)?;
    Ok(rustix::fs::fchmod(
        &to,
        Mode::from_raw_mode(own.st_mode & 0o7777),
    )?)
}

fn copy_file(
    from: &OwnedFd,
    name: &std::ffi::CStr,
    to: BorrowedFd<'_>,
    stat: &Stat,
) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = std::fs::File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut target = std::fs::File::from(rustix::fs::openat(
        to,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    std::io::copy(&mut source, &mut target)?;
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(&target, uid, gid)?;
    Ok(rustix::fs::fchmod(
        &target,
        Mode::from_raw_mode(stat.st_mode & 0o7777),
    )?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}
