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

use super::op::{MountOp, What, coverable_on_proc};
use super::options::Options;
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

/// What became of one mount.
#[derive(Debug)]
pub(super) enum Mounted {
    /// It is there.
    Done,
    /// It is there, and becomes read-only when it is filled.
    Fill(OwnedFd),
    /// Only its mount point is there.
    Later(OwnedFd),
}

/// Changes the flags of the mount that is at the destination.
pub(super) fn remount(root: &RootDir, op: &MountOp) -> Result<(), Failure> {
    let fail = || format!("again to rootfs at {:?}", op.target);
    let target = root
        .open(&op.target, OFlags::PATH)
        .map_err(Step::Mount.on(fail()))?;
    let attr = op.options.flags.change();
    set_attributes(target.as_fd(), attr, &op.options).map_err(Step::Mount.on(fail()))
}

/// Mounts a detached copy of `source`.
pub(crate) fn bind(
    root: &RootDir,
    op: &MountOp,
    source: &Path,
    tree: &OwnedFd,
) -> Result<(), Failure> {
    let named = || bind_name(source, &op.target);
    let directory = is_directory(tree).map_err(Step::Mount.on(named()))?;
    if op.target == Path::new("/proc") {
        check_shows_proc(tree, op)?;
    }
    let stub = if directory {
        Stub::Directory
    } else {
        Stub::File
    };
    let target = mount_point(root, op, stub)?;
    dress(tree.as_fd(), op, &named)?;
    match attach(tree, &target) {
        // The kernel does not say what does not fit.
        Err(Errno::INVAL) if is_directory(&target).is_ok_and(|other| other != directory) => {
            let (what, on) = if directory {
                ("directory", "file")
            } else {
                ("file", "directory")
            };
            let failure = Step::Mount.on(named())(Errno::NOTDIR);
            Err(failure.because(format!("the source is a {what}, the destination a {on}")))
        }
        result => result.map_err(Step::Mount.on(named())),
    }
}

/// How messages name a bind mount.
pub(crate) fn bind_name(source: &Path, target: &Path) -> String {
    format!("{source:?} to rootfs at {target:?}")
}

/// The failure to open a bind source: here the host's tree can be looked at.
pub(crate) fn source_failure(source: &Path, target: &Path, error: std::io::Error) -> Failure {
    let failure = Step::Mount.on(bind_name(source, target))(error).at("/source");
    let missing = crate::file::first_missing(source).filter(|_| failure.errno == libc::ENOENT);
    match missing {
        Some(missing) => failure.hint(format!("the host has no {missing:?}")),
        None => failure,
    }
}

/// Only a procfs may take the place of /proc: our own next steps rely on it.
fn check_shows_proc(tree: &OwnedFd, op: &MountOp) -> Result<(), Failure> {
    let named = || format!("{:?}", op.target);
    let filesystem = rustix::fs::fstatfs(tree).map_err(Step::Mount.on(named()))?;
    if filesystem.f_type as u64 == PROC_SUPER_MAGIC {
        return Ok(());
    }
    let reason = "cannot be mounted because it is not of type proc";
    Err(Step::Mount
        .says(format!("{} {reason}", named()))
        .at("/source"))
}

/// Gives a copied mount its flags. In a user namespace some flags of the
/// source may be locked: those stay where nothing was said against them.
fn dress(tree: BorrowedFd<'_>, op: &MountOp, named: &impl Fn() -> String) -> Result<(), Failure> {
    let flags = op.options.flags;
    let refused = match set_attributes(tree, flags.exact(), &op.options) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => error,
        result => return result.map_err(Step::Mount.on(named())),
    };
    let source = rustix::fs::fstatvfs(tree).map_err(Step::Mount.on(named()))?;
    let attr = flags
        .beside_locked(source.f_flag)
        .map_err(|locked| Step::Mount.on(named())(refused).because(locked.to_string()))?;
    set_attributes(tree, attr, &op.options).map_err(Step::Mount.on(named()))
}

/// Opens the mount point of `op`, makes it where it is missing, and refuses
/// those that would let the image lead us astray.
pub(crate) fn mount_point(root: &RootDir, op: &MountOp, stub: Stub) -> Result<OwnedFd, Failure> {
    match existing(root, op)? {
        Some(target) => Ok(target),
        None => create_point(root, op, stub),
    }
}

fn create_point(root: &RootDir, op: &MountOp, stub: Stub) -> Result<OwnedFd, Failure> {
    let made = root.create(&op.target, stub);
    let fail = Step::MountPoint.on(format!("{:?}", op.target));
    made.map_err(|error| fail(error).at("/destination"))
}

/// The mount point of `op`, if it is there.
fn existing(root: &RootDir, op: &MountOp) -> Result<Option<OwnedFd>, Failure> {
    let fail = || format!("{:?}", op.target);
    match root.open_without_links(&op.target, OFlags::PATH) {
        Ok(target) => return Ok(Some(target)),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => (),
        Err(errno) => return Err(Step::MountPoint.on(fail())(errno).at("/destination")),
    }
    // A symbolic link is on the way.
    if let What::Filesystem { kind, .. } = &op.what
        && (kind == "proc" || kind == "sysfs")
    {
        let reason = format!("filesystem {kind:?} must be mounted on ordinary directory");
        let failure = Step::Mount.refuses(filesystem_name(kind, op), reason);
        return Err(failure.at("/destination"));
    }
    let target = match root.open(&op.target, OFlags::PATH) {
        Err(Errno::NOENT) => return Ok(None),
        result => result.map_err(Step::MountPoint.on(fail()))?,
    };
    let filesystem = rustix::fs::fstatfs(&target).map_err(Step::MountPoint.on(fail()))?;
    if filesystem.f_type as u64 == PROC_SUPER_MAGIC && !coverable_on_proc(&op.target) {
        let place = format!("to rootfs at {:?}", op.target);
        let failure = Step::Mount.refuses(place, "a symbolic link leads it into /proc");
        return Err(failure.at("/destination"));
    }
    Ok(Some(target))
}

/// Applies flags and propagation with as few calls as their different reach allows.
fn set_attributes(
    mount: BorrowedFd<'_>,
    mut plain: MountAttr,
    options: &Options,
) -> std::io::Result<()> {
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
pub(super) fn filesystem(
    root: &RootDir,
    op: &MountOp,
    kind: &str,
    source: &str,
    label: &str,
) -> Result<Mounted, Failure> {
    let named = || filesystem_name(kind, op);
    let existing = existing(root, op)?;
    let existed = existing.is_some();
    let inherits_mode = kind == "tmpfs" && existed && !op.options.has("mode");
    let target = match existing {
        Some(target) => target,
        None => create_point(root, op, Stub::Directory)?,
    };
    let mut settings = op.options.filesystem.clone();
    if inherits_mode {
        let mode = stat(&target).map_err(Step::Mount.on(named()))?.st_mode & 0o7777;
        settings.push(("mode".into(), Some(format!("{mode:04o}"))));
    }
    if let Some(setting) = super::label::setting(kind, label) {
        settings.push(setting);
    }
    if settings.iter().any(|(_, value)| {
        value
            .as_ref()
            .is_some_and(|v| v.len() > FSCONFIG_VALUE_BYTES_MAX)
    }) {
        mount_classic(root, op, kind, source, &settings)?;
        return Ok(Mounted::Done);
    }
    let mount = create(kind, source, &settings, op, named)?;
    // A point made for it has nothing to copy, and a mode that nobody asked for.
    if op.options.copy_up && existed {
        super::copyup::copy(target.as_fd(), mount.as_fd())
            .map_err(Step::Mount.on(format!("{}: tmpcopyup", named())))?;
    }
    let nothing = MountAttr::default();
    set_attributes(mount.as_fd(), nothing, &op.options).map_err(Step::Mount.on(named()))?;
    attach(&mount, &target).map_err(Step::Mount.on(named()))?;
    super::label::relabel(kind, label, &mount).map_err(Step::Label.on(named()))?;
    Ok(if op.late_readonly() {
        Mounted::Fill(mount)
    } else {
        Mounted::Done
    })
}

/// How messages name the mount of a file system.
fn filesystem_name(kind: &str, op: &MountOp) -> String {
    format!("{kind:?} to rootfs at {:?}", op.target)
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
    let flags = if op.late_readonly() {
        op.options.flags.writable()
    } else {
        op.options.flags
    };
    let attributes = MountAttrFlags::from_bits_retain(flags.attributes() as u32);
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
    let named = || filesystem_name(kind, op);
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
    let attr = MountAttr {
        set: op.options.flags.attributes(),
        clear: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
    };
    set_attributes(mounted.as_fd(), attr, &op.options).map_err(Step::Mount.on(named()))
}
