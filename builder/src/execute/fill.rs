//! A new cache mount that begins with files of a stage, an image or a context.

use super::run::{RunError, failed};
use crate::pattern::ignore::Rules;
use crate::tree::walk::{Excluding, walk};
use crate::tree::{Kind, Meta, Root};
use rustix::fs::{AtFlags, CWD, FileType, Mode, chownat, makedev, mknodat};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// Copies what is at `source` in `root` into the new directory `to`, which nobody else knows yet.
pub(super) fn copy_tree(root: &Root, source: &Path, to: &Path) -> Result<(), RunError> {
    let source = root.resolve(source)?;
    let none = || RunError::NoSource {
        path: source.display().to_string(),
        place: "what the cache is filled from",
    };
    let meta = root.meta(&source)?.ok_or_else(none)?;
    if !meta.is_directory() {
        return Err(none());
    }
    let all = Rules::default();
    for found in walk(root, &source, "", &Excluding(&all))? {
        let (from, target) = (source.join(&found.relative), to.join(&found.relative));
        one(root, &from, &found.meta, &target)?;
    }
    Ok(())
}

fn one(root: &Root, from: &Path, meta: &Meta, to: &Path) -> Result<(), RunError> {
    match meta.kind {
        Kind::Directory => std::fs::create_dir(to).map_err(failed("create", to))?,
        Kind::File => {
            let mut file = std::fs::File::create_new(to).map_err(failed("create", to))?;
            io::copy(&mut root.open_file(from)?, &mut file).map_err(failed("write", to))?;
        }
        Kind::Symlink => {
            symlink(root.read_link(from)?, to).map_err(failed("create", to))?;
            let owner = (
                Some(rustix::fs::Uid::from_raw(meta.uid)),
                Some(rustix::fs::Gid::from_raw(meta.gid)),
            );
            let changed = chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
            return changed.map_err(|errno| failed("set the owner of", to)(errno.into()));
        }
        Kind::Fifo => node(to, FileType::Fifo, 0)?,
        Kind::Block(major, minor) => node(to, FileType::BlockDevice, makedev(major, minor))?,
        Kind::Character(major, minor) => {
            node(to, FileType::CharacterDevice, makedev(major, minor))?
        }
        Kind::Socket => return Ok(()),
    }
    chown(to, Some(meta.uid), Some(meta.gid)).map_err(failed("set the owner of", to))?;
    std::fs::set_permissions(to, Permissions::from_mode(meta.mode))
        .map_err(failed("set permissions of", to))
}

/// Makes a special file that only its owner may use.
pub(super) fn node(to: &Path, kind: FileType, device: u64) -> Result<(), RunError> {
    mknodat(CWD, to, kind, Mode::RUSR | Mode::WUSR, device)
        .map_err(|errno| failed("create", to)(errno.into()))
}
