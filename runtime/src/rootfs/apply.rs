//! Building the planned file system, and switching to it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};

use super::mount::{Mounted, attach, clone_at, clone_host, source_failure};
use super::op::{MountOp, What};
use super::plan::Plan;
use super::root::Stub;
use super::source::{Helper, Sources};
use super::{RootDir, device};
use crate::init::{Failure, Step};
use crate::sys::{self, MountAttr};

/// What only the caller can do while the root is built.
pub(crate) trait Caller: Helper {
    /// Mounts the cgroups of the container on an opened mount point. They
    /// must be joined, and their namespace entered, before.
    fn mount_cgroups(&mut self, target: OwnedFd, op: &MountOp) -> Result<(), Failure>;
}

/// What is left to be done when everything is mounted.
#[derive(Debug, Default)]
pub(crate) struct Late<'a> {
    /// Cgroup mounts that wait until the root is switched: their mount points.
    pub cgroups: Vec<(&'a MountOp, OwnedFd)>,
    /// Mounts that become read-only once they are filled.
    readonly: Vec<(&'a MountOp, OwnedFd)>,
}

/// The part that needs the host's ids: propagation and the root itself.
pub(crate) fn open(plan: &Plan) -> Result<RootDir, Failure> {
    let fail = || format!("{:?}", plan.rootfs);
    if plan.untouched {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&plan.rootfs, flags, Mode::empty())
            .map_err(Step::Rootfs.on(fail()))?;
        return Ok(RootDir(root));
    }
    if plan.own_mounts {
        mount_change("/", flags(plan.propagation)).map_err(Step::Propagation.on("\"/\""))?;
        if plan.propagation.0 == libc::MS_SHARED {
            privatise_parent(&plan.rootfs)?;
        }
    }
    // A mount of its own for the root: pivot_root(2) demands one.
    let root = clone_host(&plan.rootfs, true).map_err(Step::Rootfs.on(fail()))?;
    let empty_from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root.as_fd(), "", CWD, &plan.rootfs, empty_from).map_err(Step::Rootfs.on(fail()))?;
    Ok(RootDir(root))
}

/// Mounts everything and makes the devices. The mask of the process is 0.
pub(crate) fn build<'a>(
    plan: &'a Plan,
    root: &RootDir,
    sources: &Sources,
    caller: &mut impl Caller,
) -> Result<Late<'a>, Failure> {
    let mut late = Late::default();
    for (index, op) in plan.mounts.iter().enumerate() {
        let mounted = mount(plan, root, index, sources, caller);
        match mounted.map_err(|failure| at_mount(failure, index))? {
            Mounted::Done => (),
            Mounted::Fill(mount) => late.readonly.push((op, mount)),
            Mounted::Later(place) => {
                late.cgroups.push((op, place));
                continue;
            }
        }
        crate::trace::step_of(|| op.what.words(&op.target));
    }
    device::make(root, &plan.devices, plan.bind_devices)?;
    if !plan.symlinks.is_empty() {
        symlinks(root, &plan.symlinks)?;
    }
    crate::trace::step("make the devices");
    Ok(late)
}

/// Carries out one mount of the plan.
fn mount(
    plan: &Plan,
    root: &RootDir,
    index: usize,
    sources: &Sources,
    caller: &mut impl Caller,
) -> Result<Mounted, Failure> {
    let op = &plan.mounts[index];
    match &op.what {
        What::Bind { source, .. } => {
            let tree = sources
                .take(index, op, caller)
                .map_err(|error| source_failure(source, &op.target, error))?;
            super::mount::bind(root, op, source, &tree).map(|()| Mounted::Done)
        }
        What::Filesystem { kind, source } => {
            super::mount::filesystem(root, op, kind, source, &plan.mount_label)
        }
        What::Remount => super::mount::remount(root, op).map(|()| Mounted::Done),
        What::Cgroup => {
            let place = super::mount::mount_point(root, op, Stub::Directory)?;
            if plan.cgroups_last {
                return Ok(Mounted::Later(place));
            }
            caller.mount_cgroups(place, op).map(|()| Mounted::Done)
        }
    }
}

/// Names the entry of `mounts` that failed; joining the cgroups may fail on
/// the way and is none.
fn at_mount(failure: Failure, index: usize) -> Failure {
    match failure.step {
        Step::Mount | Step::MountPoint => failure.at(&format!("/mounts/{index}")),
        _ => failure,
    }
}

/// Covers and protects what was asked for, and makes `root` the root of this
/// process, which nothing of the host's tree survives.
pub(crate) fn seal(plan: &Plan, root: &RootDir, late: &mut Late<'_>) -> Result<(), Failure> {
    for (op, mount) in late.readonly.drain(..) {
        set_readonly(&mount).map_err(Step::Readonly.on(format!("{:?}", op.target)))?;
    }
    for path in &plan.readonly_paths {
        readonly_path(root, path)?;
    }
    mask(root, &plan.masked, &plan.mount_label)?;
    if plan.readonly {
        set_readonly(&root.0).map_err(Step::Readonly.on("\"/\""))?;
    }
    if !plan.own_mounts {
        rustix::process::fchdir(root).map_err(Step::Rootfs.on(format!("{:?}", plan.rootfs)))?;
        rustix::process::chroot(".").map_err(Step::Rootfs.on(format!("{:?}", plan.rootfs)))?;
        return Ok(());
    }
    if plan.no_pivot {
        move_root(plan, root)?
    } else {
        pivot(plan, root)?
    }
    if let Some(last) = plan.final_propagation {
        mount_change("/", flags(last)).map_err(Step::Propagation.on("\"/\""))?;
    }
    Ok(())
}

/// Takes off what was mounted in a table that is not our own, after a failure.
pub(crate) fn abandon(plan: &Plan) {
    if !plan.own_mounts && !plan.untouched {
        // Everything hangs below the root, which takes it along.
        let _ = unmount(&plan.rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

fn flags((propagation, recursive): (u64, bool)) -> MountPropagationFlags {
    let recursive = if recursive { libc::MS_REC } else { 0 };
    MountPropagationFlags::from_bits_retain((propagation | recursive) as u32)
}

pub(super) fn set_readonly(mount: &OwnedFd) -> std::io::Result<()> {
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    sys::mount_setattr(mount.as_fd(), attr, false, None)
}

/// Keeps the mount of the new root from showing up on the host: pivot_root(2)
/// refuses a shared parent.
fn privatise_parent(rootfs: &Path) -> Result<(), Failure> {
    for place in rootfs.ancestors() {
        match mount_change(place, MountPropagationFlags::PRIVATE) {
            Ok(()) => return Ok(()),
            // Not a mount point: the parent mount begins further up.
            Err(Errno::INVAL) => (),
            Err(errno) => return Err(Step::Propagation.on(format!("{place:?}"))(errno)),
        }
    }
    Ok(())
}

/// Links of /dev; where the image has the name already, its file stays.
fn symlinks(root: &RootDir, links: &[(&str, &str)]) -> Result<(), Failure> {
    let (directory, _) = root
        .parent(Path::new(links[0].0))
        .map_err(Step::Symlink.on("in \"/dev\""))?;
    for (path, target) in links {
        let name = path.rsplit('/').next().unwrap_or(path);
        match rustix::fs::symlinkat(*target, &directory, name) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(errno) => return Err(Step::Symlink.on(format!("{path:?}"))(errno)),
        }
    }
    Ok(())
}

fn readonly_path(root: &RootDir, path: &Path) -> Result<(), Failure> {
    let fail = || format!("{path:?}");
    let place = match root.open(path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.map_err(Step::Readonly.on(fail()))?,
    };
    let mount = clone_at(place.as_fd(), true).map_err(Step::Readonly.on(fail()))?;
    set_readonly(&mount).map_err(Step::Readonly.on(fail()))?;
    attach(&mount, &place).map_err(Step::Readonly.on(fail()))
}

/// Covers files with /dev/null and directories with one empty read-only tmpfs.
fn mask(root: &RootDir, paths: &[std::path::PathBuf], label: &str) -> Result<(), Failure> {
    let mut empty: Option<OwnedFd> = None;
    let mut null_checked = false;
    for path in paths {
        let fail = || format!("{path:?}");
        let place = match root.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            result => result.map_err(Step::Mask.on(fail()))?,
        };
        let cover = if super::root::is_directory(&place).map_err(Step::Mask.on(fail()))? {
            match &empty {
                // A mount can be copied only where it is attached.
                Some(first) => clone_at(first.as_fd(), false).map_err(Step::Mask.on(fail()))?,
                None => empty_directory(label).map_err(Step::Mask.on(fail()))?,
            }
        } else {
            let null = clone_host(Path::new("/dev/null"), false).map_err(Step::Mask.on(fail()))?;
            if !null_checked {
                check_null(&null)?;
                null_checked = true;
            }
            attach(&null, &place).map_err(Step::Mask.on(fail()))?;
            continue;
        };
        attach(&cover, &place).map_err(Step::Mask.on(fail()))?;
        empty.get_or_insert(cover);
    }
    Ok(())
}

fn empty_directory(label: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some((key, Some(value))) = super::label::setting("tmpfs", label) {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_set_string(context.as_fd(), "nr_blocks", "1")?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", "1")?;
    fsconfig_create(context.as_fd())?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// A cover that is not the null device could leak or be written to.
fn check_null(null: &OwnedFd) -> Result<(), Failure> {
    let stat = super::root::stat(null).map_err(Step::Mask.on("\"/dev/null\""))?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if device && stat.st_rdev == rustix::fs::makedev(1, 3) {
        return Ok(());
    }
    Err(Step::Mask.says("the host's /dev/null is not the null device"))
}

/// `pivot_root(2)`, "pivot_root(".", ".")": the old root ends on top of the
/// new one and is taken off.
fn pivot(plan: &Plan, root: &RootDir) -> Result<(), Failure> {
    let fail = || format!("{:?}", plan.rootfs);
    rustix::process::fchdir(root).map_err(Step::Pivot.on(fail()))?;
    rustix::process::pivot_root(".", ".").map_err(Step::Pivot.on(fail()))?;
    // Only a slave or private tree may be taken off without the host noticing.
    if plan.propagation.0 == libc::MS_SHARED {
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(".", slave).map_err(Step::Pivot.on(fail()))?;
    }
    unmount(".", UnmountFlags::DETACH).map_err(Step::Pivot.on(fail()))?;
    rustix::process::chdir("/").map_err(Step::Pivot.on(fail()))
}

/// For roots that pivot_root(2) cannot leave (an initramfs). The host's
/// procfs and sysfs go first: a process that escapes a plain chroot(2), or a
/// new user namespace, must not find them uncovered.
fn move_root(plan: &Plan, root: &RootDir) -> Result<(), Failure> {
    let fail = || format!("{:?}", plan.rootfs);
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Step::Rootfs.on("read mountinfo"))?;
    for place in uncovered(&table, &plan.rootfs) {
        match unmount(&place, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => (),
            Err(_) => {
                let cover = empty_directory("").map_err(Step::Rootfs.on(fail()))?;
                let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(cover.as_fd(), "", CWD, &place, from)
                    .map_err(Step::Rootfs.on(format!("{place:?}")))?;
            }
        }
    }
    rustix::process::fchdir(root).map_err(Step::Rootfs.on(fail()))?;
    move_mount(
        root.as_fd(),
        "",
        CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(Step::Rootfs.on(fail()))?;
    rustix::process::chroot(".").map_err(Step::Rootfs.on(fail()))?;
    rustix::process::chdir("/").map_err(Step::Rootfs.on(fail()))
}

/// Mount points of procfs and sysfs outside of `rootfs`, deepest first.
fn uncovered(mountinfo: &str, rootfs: &Path) -> Vec<std::path::PathBuf> {
    let mut places: Vec<_> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split(' ').next()?;
            let place = Path::new(left.split(' ').nth(4)?);
            ((kind == "proc" || kind == "sysfs") && !place.starts_with(rootfs))
                .then(|| place.to_owned())
        })
        .collect();
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_procfs_is_found_and_the_containers_is_not() {
        let table = "22 28 0:21 / /sys rw - sysfs sysfs rw\n\
                     23 28 0:22 / /proc rw shared:5 - proc proc rw\n\
                     40 28 0:50 / /b/rootfs/proc rw - proc proc rw\n\
                     41 28 0:51 / /tmp rw - tmpfs tmpfs rw\n";
        let places = uncovered(table, Path::new("/b/rootfs"));
        assert_eq!(places, [Path::new("/proc"), Path::new("/sys")]);
    }
}
