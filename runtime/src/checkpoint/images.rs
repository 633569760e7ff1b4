//! The folder of the images, which may come from anywhere.
//!
//! CRIU opens what is in it by name and follows symbolic links: one in the
//! place of an image would bring a file of the host into the memory of a
//! restored process, one in the place of a log or of statistics would let CRIU
//! empty a file of the host (CVE-2026-53489, CVE-2024-8676).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, fchmod, fchown, fstat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::Error;

/// CRIU's own link to the images of the last `--pre-dump`.
const PARENT: &str = "parent";

/// The end of the names of all images.
const IMAGE_END: &[u8] = b".img";

/// How often memory may have been saved before: as many descriptors are open
/// here, and nobody waits for so many.
const PARENTS_MAX: usize = 256;

/// What CRIU writes beside the images, with a log of either verb: statistics,
/// and a list of the files that it watches.
const WRITTEN: [&str; 5] = [
    super::dump::LOG_FILE,
    super::restore::LOG_FILE,
    "stats-dump",
    "stats-restore",
    "irmap-cache",
];

/// Removes those files that CRIU will write where they are a file of elsewhere
/// too: a symbolic link, or one of several names.
pub(super) fn forget_links(folder: &OwnedFd, path: &Path) -> Result<(), crate::error::Error> {
    for name in WRITTEN {
        let place = || path.join(name);
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(crate::error::Error::on("stat", place())(errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink || (kind == FileType::RegularFile && stat.st_nlink > 1) {
            unlinkat(folder, name, AtFlags::empty())
                .map_err(crate::error::Error::on("remove link", place()))?;
        }
    }
    Ok(())
}

/// The folder, and those that hold what was saved before, which CRIU finds by
/// links: all that it opens images in.
pub(super) fn folders(
    folder: &OwnedFd,
    path: &Path,
) -> Result<Vec<(OwnedFd, PathBuf)>, crate::error::Error> {
    let first = folder.try_clone();
    let first = first.map_err(crate::error::Error::on("open", path))?;
    let mut all = vec![(first, path.to_owned())];
    while let Some((last, path)) = all.last() {
        let path = path.join(PARENT);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = match openat(last, PARENT, flags, Mode::empty()) {
            Err(Errno::NOENT) => break,
            result => result.map_err(crate::error::Error::on("open", &path))?,
        };
        if all.len() > PARENTS_MAX {
            let why = format!("images {path:?} have more than {PARENTS_MAX} parents");
            return Err(Error::Refused(why).into());
        }
        all.push((parent, path));
    }
    Ok(all)
}

/// Refuses a folder with links in it, and with what has no end; so for those of
/// what was saved before. Sockets are CRIU's own, where it waits for readers of pages.
pub(super) fn check(folder: &OwnedFd, path: &Path) -> Result<(), crate::error::Error> {
    let check = |(folder, path): &(OwnedFd, PathBuf)| check_one(folder, path);
    folders(folder, path)?.iter().try_for_each(check)
}

fn check_one(folder: &OwnedFd, path: &Path) -> Result<(), crate::error::Error> {
    let fail = |errno| crate::error::Error::on("read", path)(errno);
    for entry in Dir::read_from(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let kind = match entry.file_type() {
            FileType::Unknown => statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode))
                .map_err(fail)?,
            kind => kind,
        };
        let what = match kind {
            FileType::Symlink if name.to_bytes() == PARENT.as_bytes() => continue,
            FileType::RegularFile | FileType::Directory | FileType::Socket => continue,
            FileType::Symlink => "a symbolic link, which CRIU would follow",
            _ => "no regular file",
        };
        let place = path.join(name.to_string_lossy().as_ref());
        return Err(Error::Refused(format!("image {place:?} is {what}")).into());
    }
    Ok(())
}

/// Lets a group read the images, in all their folders: CRIU opens some of them as
/// the root of the container's user namespace, others as root, before it has become
/// that. What everybody may read stays as it is.
pub(super) fn let_in(folder: &OwnedFd, path: &Path, group: Gid) -> Result<(), crate::error::Error> {
    for (folder, path) in folders(folder, path)? {
        let fail = |errno| crate::error::Error::on("let the container's root read", &path)(errno);
        let_read(&folder, Mode::from_raw_mode(0o050), group).map_err(fail)?;
        for entry in Dir::read_from(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name().to_bytes().ends_with(IMAGE_END) {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let file = openat(&folder, entry.file_name(), flags, Mode::empty());
                let file = file.map_err(fail)?;
                let_read(&file, Mode::RGRP, group).map_err(fail)?;
            }
        }
    }
    Ok(())
}

/// Not where others may already, nor what has another name elsewhere.
fn let_read(file: &OwnedFd, mode: Mode, group: Gid) -> rustix::io::Result<()> {
    let stat = fstat(file)?;
    let has = Mode::from_raw_mode(stat.st_mode);
    let for_others = Mode::from_raw_mode(mode.as_raw_mode() >> 3);
    let elsewhere =
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1;
    if elsewhere || has.contains(for_others) {
        return Ok(());
    }
    fchown(file, None, Some(group))?;
    fchmod(file, has | mode)
}

/// Opens a file beside the images for reading, no link and no pipe.
pub(super) fn open(path: &Path) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder of its own, removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("teu-runtime-images-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn check(&self) -> Result<(), String> {
            let folder = super::super::dump::open_folder(&self.0).unwrap();
            forget_links(&folder, &self.0).unwrap();
            check(&folder, &self.0).map_err(|error| error.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_and_pipes_are_no_images() {
        let folder = Folder::new("kinds");
        std::fs::write(folder.0.join("core-1.img"), "x").unwrap();
        std::fs::create_dir(folder.0.join("sub")).unwrap();
        symlink("../before", folder.0.join("parent")).unwrap();
        assert_eq!(folder.check(), Ok(()));
        symlink("/etc/passwd", folder.0.join("pages-1.img")).unwrap();
        assert!(folder.check().unwrap_err().contains("symbolic link"));
        std::fs::remove_file(folder.0.join("pages-1.img")).unwrap();
        let pipe = folder.0.join("inventory.img");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        assert!(folder.check().unwrap_err().contains("no regular file"));
        assert_eq!(open(&pipe).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn what_was_saved_before_is_looked_at_too() {
        let folder = Folder::new("parents");
        let before = folder.0.join("before");
        std::fs::create_dir(&before).unwrap();
        symlink("before", folder.0.join("parent")).unwrap();
        assert_eq!(folder.check(), Ok(()));
        symlink("/etc/passwd", before.join("pages-1.img")).unwrap();
        assert!(folder.check().unwrap_err().contains("symbolic link"));
        std::fs::remove_file(before.join("pages-1.img")).unwrap();
        symlink(".", before.join("parent")).unwrap();
        assert!(folder.check().unwrap_err().contains("parents"));
    }

    #[test]
    fn a_group_is_let_in_to_images_alone() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED a_group_is_let_in_to_images_alone: only root gives files away");
            return;
        }
        let folder = Folder::new("group");
        let parent = folder.0.join("before");
        std::fs::create_dir(&parent).unwrap();
        symlink("before", folder.0.join("parent")).unwrap();
        let elsewhere = parent.join("elsewhere");
        let all = [
            (folder.0.clone(), 0o700, (0o750, 7)),
            (parent.clone(), 0o711, (0o751, 7)),
            (parent.join("pages-1.img"), 0o600, (0o640, 7)),
            (folder.0.join("core-1.img"), 0o644, (0o644, 0)),
            (folder.0.join("descriptors.json"), 0o600, (0o600, 0)),
            (elsewhere.clone(), 0o600, (0o600, 0)),
        ];
        for (path, mode, _) in &all {
            if !path.is_dir() {
                std::fs::write(path, "x").unwrap();
            }
            let mode = std::fs::Permissions::from_mode(*mode);
            std::fs::set_permissions(path, mode).unwrap();
        }
        std::fs::hard_link(&elsewhere, parent.join("linked.img")).unwrap();
        let opened = super::super::dump::open_folder(&folder.0).unwrap();
        let_in(&opened, &folder.0, Gid::from_raw(7)).unwrap();
        for (path, _, expected) in all {
            let metadata = std::fs::metadata(&path).unwrap();
            let is = (metadata.mode() & 0o777, metadata.gid());
            assert_eq!(is, expected, "{path:?}");
        }
    }

    #[test]
    fn what_criu_writes_is_no_file_of_elsewhere() {
        let folder = Folder::new("written");
        let elsewhere = folder.0.join("sub/elsewhere");
        std::fs::create_dir(folder.0.join("sub")).unwrap();
        std::fs::write(&elsewhere, "kept").unwrap();
        symlink(&elsewhere, folder.0.join("restore.log")).unwrap();
        std::fs::hard_link(&elsewhere, folder.0.join("stats-restore")).unwrap();
        std::fs::write(folder.0.join("dump.log"), "of the last time").unwrap();
        assert_eq!(folder.check(), Ok(()));
        for (name, there) in [
            ("restore.log", false),
            ("stats-restore", false),
            ("dump.log", true),
            ("sub/elsewhere", true),
        ] {
            assert_eq!(folder.0.join(name).exists(), there, "{name}");
        }
    }
}
