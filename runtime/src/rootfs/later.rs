//! Mounts added to, and taken from, a container that is there already. Done by
//! a process in its mount namespace, whose root is the container's.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::RootDir;
use super::apply::set_readonly;
use super::mount::{self, Mounted};
use super::op::{MountOp, What};
use crate::init::{Failure, Step};

/// Adds mounts, in order; `trees` are detached copies of the bind sources, in
/// the order of their mounts. After a failure none is left.
pub(crate) fn add(root: &RootDir, ops: &[MountOp], trees: Vec<OwnedFd>) -> Result<(), Failure> {
    let mut trees = trees.into_iter();
    for (index, op) in ops.iter().enumerate() {
        if let Err(failure) = add_one(root, op, &mut trees) {
            for made in ops[..index].iter().rev() {
                // The failure is worth more than what this may say.
                let _ = take_off(root, &made.target);
            }
            return Err(failure.at(&format!("/{index}")));
        }
    }
    Ok(())
}

fn add_one(
    root: &RootDir,
    op: &MountOp,
    trees: &mut impl Iterator<Item = OwnedFd>,
) -> Result<(), Failure> {
    match (&op.what, trees) {
        (What::Bind { source, .. }, trees) => match trees.next() {
            Some(tree) => mount::bind(root, op, source, &tree),
            None => Err(Step::Mount.says("no source was opened")),
        },
        (What::Filesystem { kind, source }, _) => {
            match mount::filesystem(root, op, kind, source, "")? {
                Mounted::Fill(mount) => {
                    set_readonly(&mount).map_err(Step::Readonly.on(format!("{:?}", op.target)))
                }
                Mounted::Done | Mounted::Later(_) => Ok(()),
            }
        }
        (What::Remount, _) => mount::remount(root, op),
        (What::Cgroup, _) => Err(refused(op)),
    }
}

/// What cannot be mounted from here: it shows the namespaces of its mounter.
pub(crate) fn refused(op: &MountOp) -> Failure {
    let reason = "cannot be added to a container that is there already";
    Step::Mount.refuses(format!("{:?}", op.target), reason)
}

/// Takes mounts off, the last one first.
pub(crate) fn remove(root: &RootDir, ops: &[MountOp]) -> Result<(), Failure> {
    for (index, op) in ops.iter().enumerate().rev() {
        take_off(root, &op.target).map_err(|failure| failure.at(&format!("/{index}")))?;
    }
    Ok(())
}

/// By the name in an opened directory: no symbolic link leads elsewhere.
fn take_off(root: &RootDir, target: &Path) -> Result<(), Failure> {
    let fail = |errno: Errno| {
        let failure = Step::Unmount.on(format!("{target:?}"))(errno);
        match errno {
            Errno::INVAL => failure.because("nothing is mounted there"),
            _ => failure,
        }
    };
    let name = target.file_name().ok_or(Errno::BUSY).map_err(fail)?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    let parent = root
        .open(parent, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(fail)?;
    rustix::process::fchdir(&parent).map_err(fail)?;
    unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(fail)
}
