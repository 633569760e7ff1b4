//! The root file system of a RUN step: an overlay whose upper directory becomes the layer.

use crate::tree::{Kind, Meta, Root, TreeError};
use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use teu_store::identity::holds_all_ids;

/// A mount that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}{detail}")]
pub struct MountError {
    action: &'static str,
    path: PathBuf,
    /// What the kernel said about an option.
    detail: String,
    source: rustix::io::Errno,
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> MountError {
    move |source| MountError {
        action,
        path: path.to_owned(),
        detail: String::new(),
        source,
    }
}

/// A mount in our own mount namespace; taken away when dropped.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Who still uses it keeps it; our namespace ends with us in any case.
        let _ = unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<Mounted, MountError> {
    move_mount(
        mount,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(error("mount at", target))?;
    Ok(Mounted(target.to_owned()))
}

/// Mounts an empty file system in memory at `target`.
///
/// # Errors
/// As `fsmount(2)` and `move_mount(2)`.
pub(crate) fn tmpfs(target: &Path) -> Result<Mounted, MountError> {
    let make = || {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "mode", "0700")?;
        fsconfig_create(&fs)?;
        fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID,
        )
    };
    attach(&make().map_err(error("make a tmpfs for", target))?, target)
}

/// Makes what `place` names appear at `target`.
///
/// # Errors
/// As `open_tree(2)` and `move_mount(2)`.
pub(crate) fn bind(place: impl AsFd, target: &Path) -> Result<Mounted, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(place.as_fd(), "", flags).map_err(error("clone for", target))?;
    attach(&tree, target)
}

/// Mounts an overlay of `lowers`, top first, whose changes go to `upper`.
///
/// The options keep inodes of the upper independent of the lowers, and spare the host every
/// sync of what would be thrown away after a crash anyway; a kernel without `volatile` syncs.
///
/// # Errors
/// As `fsconfig(2)`, with what the kernel says about it.
pub(crate) fn overlay(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
) -> Result<Mounted, MountError> {
    let mount = overlay_with(lowers, Some((upper, work)), true)
        .or_else(|_| overlay_with(lowers, Some((upper, work)), false));
    attach(&mount.map_err(refused(target))?, target)
}

/// Mounts an overlay of two or more `lowers`, top first, that cannot be written to.
///
/// # Errors
/// As [`overlay`].
pub(crate) fn read_only_overlay(lowers: &[PathBuf], target: &Path) -> Result<Mounted, MountError> {
    let mount = overlay_with(lowers, None, false);
    attach(&mount.map_err(refused(target))?, target)
}

fn refused(target: &Path) -> impl FnOnce((rustix::io::Errno, String)) -> MountError {
    |(source, detail)| MountError {
        action: "make an overlay for",
        path: target.to_owned(),
        detail,
        source,
    }
}

fn overlay_with(
    lowers: &[PathBuf],
    writes: Option<(&Path, &Path)>,
    volatile: bool,
) -> Result<OwnedFd, (rustix::io::Errno, String)> {
    let fs =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| (errno, String::new()))?;
    let make = || {
        lowers
            .iter()
            .try_for_each(|lower| fsconfig_set_string(&fs, "lowerdir+", lower.as_path()))?;
        if let Some((upper, work)) = writes {
            fsconfig_set_string(&fs, "upperdir", upper)?;
            fsconfig_set_string(&fs, "workdir", work)?;
        }
        ["metacopy", "index"]
            .iter()
            .try_for_each(|option| fsconfig_set_string(&fs, *option, "off"))?;
        if holds_all_ids() {
            fsconfig_set_string(&fs, "redirect_dir", "off")?;
        } else {
            // Without privileges what belongs to layers is kept in attributes that anybody may set; then
            // directories are never redirected, and may not be told to be; overlayfs.rst, "userxattr".
            fsconfig_set_flag(&fs, "userxattr")?;
        }
        if volatile {
            fsconfig_set_flag(&fs, "volatile")?;
        }
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    make().map_err(|errno| (errno, said_by(&fs)))
}

/// What the kernel noted about the last refused option; fsopen(2), "message retrieval".
fn said_by(fs: &OwnedFd) -> String {
    let mut message = [0; 512];
    match rustix::io::read(fs, &mut message) {
        Ok(length) if length > 0 => {
            format!(" ({})", String::from_utf8_lossy(&message[..length]).trim())
        }
        _ => String::new(),
    }
}

/// Mount points that the runtime will have to make, because the tree below lacks them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stubs {
    /// Files and directories to be made, parents first.
    missing: Vec<PathBuf>,
    /// The deepest directories that are there already: making something in them copies them up.
    parents: Vec<(PathBuf, Option<Meta>)>,
}

impl Stubs {
    /// What mounts at `destinations` will leave in the upper directory.
    ///
    /// # Errors
    /// The tree below cannot be looked at.
    pub(crate) fn expect(
        below: Option<&Root>,
        destinations: &[PathBuf],
    ) -> Result<Self, TreeError> {
        let mut stubs = Self::default();
        for (index, destination) in destinations.iter().enumerate() {
            // What lies in an earlier mount is made there, not in the root file system.
            if destinations[..index]
                .iter()
                .any(|earlier| destination.starts_with(earlier) && destination != earlier)
            {
                continue;
            }
            stubs.expect_one(below, destination)?;
        }
        stubs.missing.sort();
        stubs.missing.dedup();
        Ok(stubs)
    }

    fn expect_one(&mut self, below: Option<&Root>, destination: &Path) -> Result<(), TreeError> {
        let path = match below {
            Some(below) => below.resolve(destination)?,
            None => destination
                .strip_prefix("/")
                .unwrap_or(destination)
                .to_owned(),
        };
        let mut at = PathBuf::new();
        let mut parent = (PathBuf::new(), meta(below, Path::new(""))?);
        for element in &path {
            at.push(element);
            match meta(below, &at)? {
                Some(meta) => parent = (at.clone(), Some(meta)),
                None => self.missing.push(at.clone()),
            }
        }
        let inside = |stub: &PathBuf| stub.starts_with(&parent.0);
        if self.missing.iter().any(inside) && !parent.0.as_os_str().is_empty() {
            // Copying up a directory copies up its own parents.
            let copied = parent
                .0
                .ancestors()
                .filter(|path| !path.as_os_str().is_empty());
            for path in copied.map(Path::to_owned) {
                let known = meta(below, &path)?;
                self.parents.push((path, known));
            }
        }
        Ok(())
    }

    /// Removes from the upper directory what is still as the runtime made it: empty files and
    /// directories. What a step put into them stays, and with it their directories.
    ///
    /// # Errors
    /// The upper directory cannot be looked at.
    pub(crate) fn remove(&self, upper: &Root) -> Result<(), TreeError> {
        for path in self.missing.iter().rev() {
            if let Some(meta) = upper.meta(path)? {
                let empty_file = meta.kind == Kind::File && meta.size == 0;
                if meta.is_directory() || empty_file {
                    remove_empty(upper, path, meta.is_directory());
                }
            }
        }
        let mut parents: Vec<_> = self.parents.iter().collect();
        parents.sort_by(|a, b| b.0.cmp(&a.0));
        parents.dedup_by(|a, b| a.0 == b.0);
        for (path, below) in parents {
            let (Some(above), Some(below)) = (upper.meta(path)?, below) else {
                continue;
            };
            if above.is_directory()
                && (above.mode, above.uid, above.gid) == (below.mode, below.uid, below.gid)
                && !upper.is_opaque(path)?
            {
                remove_empty(upper, path, true);
            }
        }
        Ok(())
    }
}

fn meta(below: Option<&Root>, path: &Path) -> Result<Option<Meta>, TreeError> {
    below.map_or(Ok(None), |below| below.meta(path))
}

/// Removes a file, or a directory if it is empty; anything that stands in the way stays.
fn remove_empty(upper: &Root, path: &Path, directory: bool) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let flags = if directory {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    if let Ok(parent) = upper.open_directory(parent) {
        let _ = unlinkat(parent, name, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_vanish_and_what_the_step_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (below, upper) = (dir.path().join("below"), dir.path().join("upper"));
        std::fs::create_dir_all(below.join("etc")).unwrap();
        for path in ["etc", "proc", "run/secrets", "dev", "kept"] {
            std::fs::create_dir_all(upper.join(path)).unwrap();
        }
        std::fs::write(upper.join("etc/hosts"), "").unwrap();
        std::fs::write(upper.join("run/secrets/s"), "").unwrap();
        std::fs::write(upper.join("run/mine"), "x").unwrap();
        let below = Root::open(&below).unwrap();
        let destinations: Vec<PathBuf> =
            ["/proc", "/dev", "/dev/pts", "/etc/hosts", "/run/secrets/s"]
                .map(PathBuf::from)
                .to_vec();
        let stubs = Stubs::expect(Some(&below), &destinations).unwrap();
        assert!(!stubs.missing.contains(&PathBuf::from("dev/pts")));
        stubs.remove(&Root::open(&upper).unwrap()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&upper)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["kept", "run"]);
        assert!(!upper.join("run/secrets").exists() && upper.join("run/mine").exists());
    }
}
