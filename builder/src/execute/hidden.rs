//! What an ignore file excludes, hidden from a step that binds the context.

use super::fill::node;
use super::run::{RunError, failed, make_folder};
use crate::context::Context;
use crate::tree::walk::{Excluding, walk};
use crate::tree::{Meta, Root};
use rustix::fs::{AtFlags, CWD, FileType, Timespec, Timestamps, utimensat};
use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// How much of a file or directory of the context is there for a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    All,
    /// What an overlay shows whose top is the directory that was filled with whiteouts.
    Rest,
}

/// Says how much of `source` is left, and fills `to`, which it makes, with whiteouts for the others.
pub(super) fn shown(context: &Context, source: &Path, to: &Path) -> Result<Shown, RunError> {
    let source = context.root.resolve(source)?;
    let source = source.strip_prefix("/").unwrap_or(&source);
    let name = source.to_string_lossy();
    let is_excluded = !name.is_empty() && context.rules.excludes(&name);
    let is_directory = |meta: Meta| meta.is_directory();
    if context.rules.is_empty() || !context.root.meta(source)?.is_some_and(is_directory) {
        return Ok(if is_excluded {
            Shown::Nothing
        } else {
            Shown::All
        });
    }
    let rest = walk(&context.root, source, &name, &Excluding(&context.rules))?;
    if is_excluded && rest.is_empty() {
        return Ok(Shown::Nothing);
    }
    let names: HashSet<&Path> = rest.iter().map(|found| found.relative.as_path()).collect();
    let mut cover = Cover {
        root: &context.root,
        source,
        to,
        made: Vec::new(),
    };
    let entered = rest.iter().filter(|found| found.meta.is_directory());
    let entered = entered.map(|found| found.relative.as_path());
    for directory in std::iter::once(Path::new("")).chain(entered) {
        for (name, _) in context.root.list(&source.join(directory))?.iter() {
            let path = directory.join(name);
            if !names.contains(path.as_path()) {
                cover.whiteout(directory, &path)?;
            }
        }
    }
    cover.finish()
}

/// A lower directory of whiteouts (the kernel's overlayfs.rst, "whiteouts and opaque directories").
struct Cover<'a> {
    root: &'a Root,
    source: &'a Path,
    to: &'a Path,
    /// The directories that whiteouts stand in, parents first, and what they are to look like.
    made: Vec<(PathBuf, Meta)>,
}

impl Cover<'_> {
    fn whiteout(&mut self, directory: &Path, path: &Path) -> Result<(), RunError> {
        let above: Vec<&Path> = directory.ancestors().collect();
        for directory in above.into_iter().rev() {
            let place = self.to.join(directory);
            if place.is_dir() {
                continue;
            }
            let path = self.source.join(directory);
            // Removed since it was listed.
            let Some(meta) = self.root.meta(&path)? else {
                return Ok(());
            };
            self.made.push((make_folder(place)?, meta));
        }
        node(&self.to.join(path), FileType::CharacterDevice, 0)
    }

    /// Makes the directories look like those they cover: the top one is what an overlay shows.
    fn finish(self) -> Result<Shown, RunError> {
        for (place, meta) in self.made.iter().rev() {
            dress(place, meta)?;
        }
        Ok(if self.made.is_empty() {
            Shown::All
        } else {
            Shown::Rest
        })
    }
}

/// Gives a directory of ours the owner, permissions and time of another.
pub(super) fn dress(place: &Path, meta: &Meta) -> Result<(), RunError> {
    // An owner without an id here cannot be given, and is nobody's in either place.
    let _ = chown(place, Some(meta.uid), Some(meta.gid));
    std::fs::set_permissions(place, Permissions::from_mode(meta.mode))
        .map_err(failed("set permissions of", place))?;
    let time = Timespec {
        tv_sec: meta.mtime.seconds,
        tv_nsec: meta.mtime.nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("set the time of", place)(errno.into()))
}
