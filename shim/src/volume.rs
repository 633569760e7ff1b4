//! Volumes: folders of ours under DATA/volumes, and filling a new one with
//! what the image has at its place.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags, chownat, fgetxattr, flistxattr, fsetxattr, mkdirat, mknodat, openat, openat2,
    readlinkat, statat, symlinkat, utimensat,
};

use crate::Error;
use crate::container::folder::make_dir;
use crate::container::record::Volume;
use crate::container::{Name, Place};
use crate::error::At as _;

/// How often an open is tried again that a rename elsewhere on the host disturbed. `openat2(2)`, EAGAIN.
const OPEN_TRIES: usize = 128;
/// Deepest tree that is copied; what nests deeper is refused rather than overflowing the stack.
const DEPTH_MAX: usize = 512;
/// Longest list or value of extended attributes, in bytes: the kernel's own limits.
const XATTR_BYTES_MAX: usize = 65_536;

/// Makes volume `name` if it lacks, and says where it is. Its root is as open as a new folder's.
///
/// # Errors
/// I/O errors.
pub fn ensure(place: &Place, name: &Name) -> Result<PathBuf, Error> {
    let home = place.volumes();
    make_dir(&home)?;
    let path = home.join(name.as_str());
    match fs::create_dir(&path) {
        Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .at("change mode of", &path)?,
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        Err(err) => return Err(err).at("create folder", &path),
    }
    Ok(path)
}

/// Removes a volume with all that is in it. Idempotent.
///
/// # Errors
/// I/O errors.
pub fn remove(place: &Place, name: &Name) -> Result<(), Error> {
    let path = place.volumes().join(name.as_str());
    match fs::remove_dir_all(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err).at("remove", &path),
        _ => Ok(()),
    }
}

/// Fills `volume`, if it is empty, with what `rootfs` has at its target: contents,
/// owners, modes, times and attributes. Hard links become files of their own.
///
/// # Errors
/// I/O errors.
pub fn fill(place: &Place, volume: &Volume, rootfs: &Path) -> Result<(), Error> {
    let path = place.volumes().join(volume.name.as_str());
    if !volume.copy || fs::read_dir(&path).at("list", &path)?.next().is_some() {
        return Ok(());
    }
    let root = open_dir(CWD, rootfs).at("open", rootfs)?;
    let source = match open_in_root(&root, &volume.target) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(err) => return Err(err).at("open", Path::new(&volume.target)),
    };
    let target = open_dir(CWD, &path).at("open", &path)?;
    copy_tree(&source, &target, 0).at("copy the image's content to", &path)
}

/// Opens folder `path` as seen from inside `root`. `openat2(2)`, Linux 5.6.
fn open_in_root(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..OPEN_TRIES {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(rustix::io::Errno::AGAIN)
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Copies what is in `source` into `target`, then `source`'s own properties.
fn copy_tree(source: &OwnedFd, target: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "folders nest deeper than {DEPTH_MAX}"
        )));
    }
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            copy_entry(source, target, entry.file_name(), depth)?;
        }
    }
    copy_xattrs(source, target)?;
    let stat = rustix::fs::fstat(source)?;
    rustix::fs::fchown(
        target,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(target, &times(&stat))?)
}

fn copy_entry(source: &OwnedFd, target: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
    let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(target, name, Mode::RWXU)?;
            return copy_tree(
                &open_dir(source, name)?,
                &open_dir(target, name)?,
                depth + 1,
            );
        }
        FileType::RegularFile => return copy_file(source, target, name, &stat),
        FileType::Symlink => symlinkat(readlinkat(source, name, Vec::new())?, target, name)?,
        kind => mknodat(
            target,
            name,
            kind,
            Mode::from_raw_mode(stat.st_mode),
            stat.st_rdev,
        )?,
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(
        target,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(utimensat(
        target,
        name,
        &times(&stat),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn copy_file(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &CStr,
    stat: &rustix::fs::Stat,
) -> io::Result<()> {
    let from = openat(
        source,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut from, mut to) = (File::from(from), File::from(to));
    io::copy(&mut from, &mut to)?;
    copy_xattrs(from.as_fd(), to.as_fd())?;
    // The owner first: changing it clears the set-id bits.
    rustix::fs::fchown(
        &to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(&to, &times(stat))?)
}

/// Copies extended attributes, except overlay's own, which a volume must not carry.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let len = match flistxattr(&from, names.as_mut_slice()) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    let mut value = Vec::new();
    for name in names[..len].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let bytes = name.to_bytes();
        if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
            continue;
        }
        value.resize(XATTR_BYTES_MAX, 0);
        let len = fgetxattr(&from, name, value.as_mut_slice())?;
        fsetxattr(&to, name, &value[..len], XattrFlags::empty())?;
    }
    Ok(())
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    #[expect(
        clippy::useless_conversion,
        reason = "the field's type differs between architectures"
    )]
    Timestamps {
        last_access: time(i64::from(stat.st_atime), u64::from(stat.st_atime_nsec)),
        last_modification: time(i64::from(stat.st_mtime), u64::from(stat.st_mtime_nsec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn volume(target: &str) -> Volume {
        Volume {
            name: "v".parse().unwrap(),
            target: target.into(),
            anonymous: true,
            copy: true,
        }
    }

    #[test]
    fn an_empty_volume_gets_the_images_content_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = crate::container::folder::tests::place(dir.path());
        let rootfs = dir.path().join("rootfs");
        let data = rootfs.join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "x").unwrap();
        fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/outside", data.join("link")).unwrap();
        let path = ensure(&place, &"v".parse().unwrap()).unwrap();
        fill(&place, &volume("/data"), &rootfs).unwrap();
        assert_eq!(fs::read_to_string(path.join("sub/file")).unwrap(), "x");
        assert_eq!(
            fs::metadata(path.join("sub/file")).unwrap().mode() & 0o7777,
            0o4750
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(
            fs::read_link(path.join("link")).unwrap(),
            Path::new("/outside")
        );

        fs::write(data.join("later"), "").unwrap();
        fill(&place, &volume("/data"), &rootfs).unwrap();
        assert!(
            !path.join("later").exists(),
            "a volume in use is not touched"
        );
        remove(&place, &"v".parse().unwrap()).unwrap();
        remove(&place, &"v".parse().unwrap()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_in_the_image_does_not_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = crate::container::folder::tests::place(dir.path());
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        fs::write(dir.path().join("secret/s"), "s").unwrap();
        symlink(dir.path().join("secret"), rootfs.join("data")).unwrap();
        symlink("../../../../../../../..", rootfs.join("up")).unwrap();
        let path = ensure(&place, &"v".parse().unwrap()).unwrap();
        fill(&place, &volume("/data"), &rootfs).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        assert!(open_in_root(&open_dir(CWD, &rootfs).unwrap(), "/up/secret").is_err());
    }
}
