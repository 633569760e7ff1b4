//! The container's own cgroups as a mount inside it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{Failure, Step};
use crate::cgroup::Paths;
use crate::rootfs::mount::{attach, clone_host};
use crate::rootfs::op::MountOp;
use crate::sys::{self, MountAttr};

/// What is mounted where the specification asks for type `cgroup`.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Whether the host has cgroup2 alone.
    unified: bool,
    /// Whether the container has a cgroup namespace: then each hierarchy is
    /// mounted anew, else the container's part of the host's mount is bound.
    own_namespace: bool,
    /// Each hierarchy: controllers and the container's directory in it.
    hierarchies: Vec<(Vec<String>, PathBuf)>,
}

impl View {
    /// The view of a container with cgroups at `paths`.
    pub(crate) fn new(paths: &Paths, own_namespace: bool) -> View {
        let unified = paths.is_v2();
        let hierarchies = paths
            .directories()
            .into_iter()
            // Of a hybrid host the container sees version 1, as runc shows it.
            .filter(|(_, names)| unified || *names != [""])
            .map(|(path, names)| {
                (
                    names.into_iter().map(str::to_owned).collect(),
                    path.to_owned(),
                )
            })
            .collect();
        View {
            unified,
            own_namespace,
            hierarchies,
        }
    }

    /// What of the view on `target` is a part of the host's mounts: its place in
    /// the container, and its source.
    pub(crate) fn binds(&self, target: &Path) -> Vec<(PathBuf, PathBuf)> {
        if self.own_namespace {
            return Vec::new();
        }
        let place = |(names, path): &(Vec<String>, PathBuf)| {
            let place = if self.unified {
                target.to_owned()
            } else {
                target.join(directory(names))
            };
            (place, path.clone())
        };
        self.hierarchies.iter().map(place).collect()
    }

    /// Mounts the view on an opened mount point, as `op` says.
    pub(crate) fn mount(&self, target: OwnedFd, op: &MountOp) -> Result<(), Failure> {
        let named = || format!("\"cgroup\" to rootfs at {:?}", op.target);
        let flags = op.options.flags.attributes() as u32;
        if self.unified {
            let path = self.hierarchies.first().map(|(_, path)| path.as_path());
            let mount = self
                .hierarchy("cgroup2", &[], path, flags)
                .map_err(Step::Mount.on(named()))?;
            return attach(mount, target).map_err(Step::Mount.on(named()));
        }
        let writable = flags & !(libc::MOUNT_ATTR_RDONLY as u32);
        let base = tmpfs(writable).map_err(Step::Mount.on(named()))?;
        attach(&base, &target).map_err(Step::Mount.on(named()))?;
        for (names, path) in &self.hierarchies {
            let directory = directory(names);
            let place = op.target.join(&directory);
            let named = || format!("\"cgroup\" to rootfs at {place:?}");
            rustix::fs::mkdirat(&base, &directory, Mode::from_raw_mode(0o755))
                .map_err(Step::Mount.on(named()))?;
            let place = rustix::fs::openat(
                &base,
                &directory,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(Step::Mount.on(named()))?;
            let mount = self
                .hierarchy("cgroup", names, Some(path), flags)
                .map_err(Step::Mount.on(named()))?;
            attach(mount, place).map_err(Step::Mount.on(named()))?;
            // cpu,cpuacct is also found as cpu and as cpuacct.
            for name in names
                .iter()
                .filter(|name| names.len() > 1 && !name.is_empty())
            {
                rustix::fs::symlinkat(&directory, &base, name).map_err(Step::Mount.on(named()))?;
            }
        }
        if flags != writable {
            let attr = MountAttr {
                set: libc::MOUNT_ATTR_RDONLY,
                ..MountAttr::default()
            };
            sys::mount_setattr(base.as_fd(), attr, false, None).map_err(Step::Mount.on(named()))?;
        }
        Ok(())
    }

    fn hierarchy(
        &self,
        kind: &str,
        names: &[String],
        path: Option<&Path>,
        flags: u32,
    ) -> std::io::Result<OwnedFd> {
        if !self.own_namespace {
            let path = path.ok_or(rustix::io::Errno::NOENT)?;
            let mount = clone_host(path, false)?;
            // Access times stay the host's: in a user namespace they are locked.
            let times = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
            let attr = MountAttr {
                set: u64::from(flags) & !times,
                ..MountAttr::default()
            };
            sys::mount_setattr(mount.as_fd(), attr, false, None)?;
            return Ok(mount);
        }
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", kind)?;
        for name in names {
            match name.strip_prefix("name=") {
                Some(name) => fsconfig_set_string(context.as_fd(), "name", name)?,
                None => fsconfig_set_flag(context.as_fd(), name.as_str())?,
            }
        }
        if names.iter().any(|name| name.starts_with("name=")) {
            fsconfig_set_flag(context.as_fd(), "none")?;
        }
        fsconfig_create(context.as_fd())?;
        Ok(fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(flags),
        )?)
    }
}

/// The name of a hierarchy's directory.
fn directory(names: &[String]) -> String {
    names
        .iter()
        .map(|name| name.strip_prefix("name=").unwrap_or(name))
        .collect::<Vec<_>>()
        .join(",")
}

fn tmpfs(flags: u32) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
    fsconfig_set_string(context.as_fd(), "mode", "755")?;
    fsconfig_create(context.as_fd())?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(flags),
    )
}
