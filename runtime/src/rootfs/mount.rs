//! One mount, made detached and then put in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

use super::options::Options;
use super::plan::{MountOp, What, coverable_on_proc};
use super::root::{RootDir, Stub, is_directory, stat};
use crate::init::{Failure, Step};
use crate::sys::{self, MountAttr};

/// Longest value that `fsconfig(2)` takes, in bytes; longer ones (overlay's
/// layers) still go through `mount(2)`.
const FSCONFIG_VALUE_BYTES_MAX: usize = 255;

/// Magic number of procfs, `statfs(2)`.
pub(crate) const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Puts a detached mount on a mount point, both by descriptor.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", flags)
}

/// A detached copy of the mount at an opened place.
pub(crate) fn clone_at(place: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    open_tree(
        place,
        "",
        clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

/// A detached copy of the mount at a path of the host.
pub(crate) fn clone_host(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive))
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    }
}

/// Carries out one mount of the plan, all but cgroups.
pub(crate) fn apply(
    root: &RootDir,
    op: &MountOp,
    label: &str,
    spare: Option<&OwnedFd>,
) -> Result<(), Failure> {
    match &op.what {
        What::Bind {
            source,
            recursive,
            maps,
        } => {
            let named = || format!("{source:?} to {:?}", op.target);
            let mapped = maps.is_some() || op.options.idmap.is_some();
            let tree = match (mapped, spare) {
                // Made by the runtime, with its ids mapped.
                (true, Some(spare)) => spare.try_clone().map_err(Step::Mount.on(named()))?,
                _ => source_tree(source, *recursive, spare)
                    .map_err(|error| source_failure(source, Step::Mount.on(named())(error)))?,
            };
            let stub = if is_directory(&tree).map_err(Step::Mount.on(named()))? {
                Stub::Directory
            } else {
                Stub::File
            };
            let target = mount_point(root, op, stub)?;
            set_attributes(tree.as_fd(), &op.options, false).map_err(Step::Mount.on(named()))?;
            attach(&tree, target).map_err(Step::Mount.on(named()))
        }
        What::Filesystem { kind, source } => filesystem(root, op, kind, source, label),
        What::Remount => {
            let named = || format!("again {:?}", op.target);
            let target = root
                .open(&op.target, OFlags::PATH)
                .map_err(Step::Mount.on(named()))?;
            set_attributes(target.as_fd(), &op.options, false).map_err(Step::Mount.on(named()))
        }
        // Done by the caller, who knows the cgroups.
        What::Cgroup => Ok(()),
    }
}

/// The failure to open a bind source: here the host's tree can be looked at.
fn source_failure(source: &Path, failure: Failure) -> Failure {
    let missing = crate::file::first_missing(source).filter(|_| failure.errno == libc::ENOENT);
    let failure = failure.at("/source");
    match missing {
        Some(missing) => failure.hint(format!("the host has no {missing:?}")),
        None => failure,
    }
}

/// A detached copy of a bind source; the spare one where a mapped root may not
/// look it up.
fn source_tree(
    source: &Path,
    recursive: bool,
    spare: Option<&OwnedFd>,
) -> std::io::Result<OwnedFd> {
    match (clone_host(source, recursive), spare) {
        (Err(Errno::ACCESS), Some(spare)) => spare.try_clone(),
        (result, _) => Ok(result?),
    }
}

/// Opens the mount point of `op`, makes it where it is missing, and refuses
/// those that would let the image lead us astray.
pub(crate) fn mount_point(root: &RootDir, op: &MountOp, stub: Stub) -> Result<OwnedFd, Failure> {
    let named = || format!("{:?}", op.target);
    match root.open_without_links(&op.target, OFlags::PATH) {
        Ok(target) => return Ok(target),
        Err(Errno::NOENT) => {
            return root
                .create(&op.target, stub)
                .map_err(|error| Step::MountPoint.on(named())(error).at("/destination"));
        }
        Err(Errno::LOOP) => (),
        Err(errno) => return Err(Step::MountPoint.on(named())(errno).at("/destination")),
    }
    // A symbolic link is on the way.
    if let What::Filesystem { kind, .. } = &op.what
        && (kind == "proc" || kind == "sysfs")
    {
        return Err(Step::Mount
            .refuses(
                format!("{kind} on {:?}", op.target),
                "it must be mounted on an ordinary directory",
            )
            .at("/destination"));
    }
    let target = match root.open(&op.target, OFlags::PATH) {
        Err(Errno::NOENT) => root
            .create(&op.target, stub)
            .map_err(Step::MountPoint.on(named()))?,
        result => result.map_err(Step::MountPoint.on(named()))?,
    };
    let filesystem = rustix::fs::fstatfs(&target).map_err(Step::MountPoint.on(named()))?;
    if filesystem.f_type as u64 == PROC_SUPER_MAGIC && !coverable_on_proc(&op.target) {
        return Err(Step::Mount
            .refuses(
                format!("on {:?}", op.target),
                "a symbolic link leads it into /proc",
            )
            .at("/destination"));
    }
    Ok(target)
}

/// Applies attributes and propagation with as few calls as their different
/// reach allows. `fresh`: the plain attributes are set already.
fn set_attributes(mount: BorrowedFd<'_>, options: &Options, fresh: bool) -> std::io::Result<()> {
    let mut plain = if fresh {
        MountAttr::default()
    } else {
        options.attr
    };
    let mut recursive = options.recursive_attr;
    let mut later = Vec::new();
    for &(flag, deep) in &options.propagation {
        let attr = if deep { &mut recursive } else { &mut plain };
        if attr.propagation == 0 {
            attr.propagation = flag;
        } else {
            later.push((flag, deep));
        }
    }
    for (attr, deep) in [(plain, false), (recursive, true)] {
        if attr != MountAttr::default() {
            sys::mount_setattr(mount, attr, deep, None)?;
        }
    }
    for (propagation, deep) in later {
        sys::mount_setattr(
            mount,
            MountAttr {
                propagation,
                ..MountAttr::default()
            },
            deep,
            None,
        )?;
    }
    Ok(())
}

/// Mounts a file system of its own.
fn filesystem(
    root: &RootDir,
    op: &MountOp,
    kind: &str,
    source: &str,
    label: &str,
) -> Result<(), Failure> {
    let named = || format!("{kind} on {:?}", op.target);
    let existed = root.open_without_links(&op.target, OFlags::PATH).ok();
    let inherits_mode = kind == "tmpfs" && existed.is_some() && !op.options.has("mode");
    let target = match existed {
        Some(target) => target,
        None => mount_point(root, op, Stub::Directory)?,
    };
    let mut settings = op.options.filesystem.clone();
    if inherits_mode {
        let mode = stat(&target).map_err(Step::Mount.on(named()))?.st_mode & 0o7777;
        settings.push(("mode".into(), Some(format!("{mode:04o}"))));
    }
    if !label.is_empty() && kind != "proc" && kind != "sysfs" {
        settings.push(("context".into(), Some(label.into())));
    }
    if settings.iter().any(|(_, value)| {
        value
            .as_ref()
            .is_some_and(|v| v.len() > FSCONFIG_VALUE_BYTES_MAX)
    }) {
        return mount_classic(root, op, kind, source, &settings);
    }
    let mount = create(kind, source, &settings, op, named)?;
    if op.options.copy_up {
        super::copyup::copy(target.as_fd(), mount.as_fd())
            .map_err(Step::Mount.on(format!("{}: copy up", named())))?;
        let read_only = op.options.attr.set & libc::MOUNT_ATTR_RDONLY;
        let attr = MountAttr {
            set: read_only,
            ..MountAttr::default()
        };
        sys::mount_setattr(mount.as_fd(), attr, false, None).map_err(Step::Mount.on(named()))?;
    }
    set_attributes(mount.as_fd(), &op.options, true).map_err(Step::Mount.on(named()))?;
    attach(&mount, &target).map_err(Step::Mount.on(named()))
}

/// Makes the file system and a detached mount of it. `fsopen(2)`, Linux 5.2.
fn create(
    kind: &str,
    source: &str,
    settings: &[(String, Option<String>)],
    op: &MountOp,
    named: impl Fn() -> String,
) -> Result<OwnedFd, Failure> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Step::Mount.on(named()))?;
    let explain = |setting: &str| {
        let reason = match kernel_message(&context) {
            Some(message) => message,
            None if setting.is_empty() => String::new(),
            None => format!("option {setting}"),
        };
        let failure = Step::Mount.refuses(named(), reason);
        move |errno: Errno| Failure {
            errno: errno.raw_os_error(),
            ..failure
        }
    };
    if !source.is_empty() {
        fsconfig_set_string(context.as_fd(), "source", source).map_err(|e| explain("source")(e))?;
    }
    for (key, value) in settings {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context.as_fd(), key.as_str()),
        }
        .map_err(|e| explain(key)(e))?;
    }
    fsconfig_create(context.as_fd()).map_err(|e| explain("")(e))?;
    let mut attributes = op.options.attr.set;
    if op.options.copy_up {
        attributes &= !libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| explain("")(e))
}

/// What the kernel wrote about the last failure on this context, if anything.
fn kernel_message(context: &OwnedFd) -> Option<String> {
    let mut message = [0u8; 256];
    let length = rustix::io::read(context, &mut message).ok()?;
    // "e " stands before an error, "w " and "i " before lesser news.
    let text = String::from_utf8_lossy(&message[..length]);
    text.strip_prefix("e ")
        .map(|text| text.trim_end().to_owned())
}

/// `mount(2)` with all options in one string, on the descriptor's own path.
fn mount_classic(
    root: &RootDir,
    op: &MountOp,
    kind: &str,
    source: &str,
    settings: &[(String, Option<String>)],
) -> Result<(), Failure> {
    let named = || format!("{kind} on {:?}", op.target);
    let target = mount_point(root, op, Stub::Directory)?;
    let words: Vec<String> = settings
        .iter()
        .map(|(key, value)| {
            value
                .as_ref()
                .map_or_else(|| key.clone(), |value| format!("{key}={value}"))
        })
        .collect();
    let data = std::ffi::CString::new(words.join(",")).map_err(|_| Step::Mount.says(named()))?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    rustix::mount::mount(
        source,
        path,
        kind,
        MountFlags::empty(),
        Some(data.as_c_str()),
    )
    .map_err(Step::Mount.on(named()))?;
    let mounted = root
        .open(&op.target, OFlags::PATH)
        .map_err(Step::Mount.on(named()))?;
    set_attributes(mounted.as_fd(), &op.options, false).map_err(Step::Mount.on(named()))
}

/// Copies of all bind sources, made while the process still has the ids of
/// the host: a mapped root may not be allowed to look them up later.
pub(super) fn spares(mounts: &[MountOp]) -> Vec<Option<OwnedFd>> {
    mounts
        .iter()
        .map(|op| match &op.what {
            What::Bind {
                source, recursive, ..
            } => clone_host(source, *recursive).ok(),
            _ => None,
        })
        .collect()
}
