//! The restored mounts are made to be what the bundle says.
//!
//! The images say how each mount was made; they must not have the last word.
//! And CRIU (3.17 at least) loses attributes: a read-only root, and the second
//! bind mount of one source, come back writable. So, while all processes still
//! stand, each bind mount must show its source, and what the bundle protects
//! from writing, set-id programs, devices or execution is protected again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::mounts::{Live, refused};
use super::private::Elsewhere;
use crate::error::Error;
use crate::rootfs::op::What;
use crate::rootfs::plan::Plan;
use crate::sys::{self, MountAttr};

/// Attributes that protect; `MOUNT_ATTR_*` and the flags of `statvfs(3)` have
/// the same numbers for these.
const PROTECTIONS: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC;

/// What one mount must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    /// Mount point.
    place: PathBuf,
    /// What it shows, where that is a part of the host's tree.
    source: Option<PathBuf>,
    /// Of [`PROTECTIONS`].
    attributes: u64,
    /// The same for the mounts below it.
    below: u64,
}

/// What is on top in the end, as the plan says: a later mount covers what was
/// mounted on its place and below it.
fn expected(plan: &Plan) -> Vec<Expected> {
    let mut all: Vec<Expected> = Vec::new();
    for op in &plan.mounts {
        if op.what == What::Remount {
            if let Some(mount) = all.iter_mut().find(|mount| mount.place == op.target) {
                let change = op.options.flags.change();
                mount.attributes = (mount.attributes & !change.clear) | change.set & PROTECTIONS;
            }
            continue;
        }
        all.retain(|mount| !mount.place.starts_with(&op.target));
        all.push(Expected {
            place: op.target.clone(),
            source: match &op.what {
                What::Bind { source, .. } => Some(source.clone()),
                What::Filesystem { .. } | What::Cgroup | What::Remount => None,
            },
            attributes: op.options.flags.attributes() & PROTECTIONS,
            below: op.options.recursive_attr.set & PROTECTIONS,
        });
    }
    let root = plan.readonly.then(|| PathBuf::from("/"));
    for place in plan.readonly_paths.iter().cloned().chain(root) {
        let read_only = libc::MOUNT_ATTR_RDONLY;
        match all.iter_mut().find(|mount| mount.place == place) {
            Some(mount) => mount.attributes |= read_only,
            None => all.push(Expected {
                place,
                source: None,
                attributes: read_only,
                below: 0,
            }),
        }
    }
    all
}

/// Checks and protects the mounts of a restored container. What is no mount
/// any more in the container is passed over.
pub(super) fn restore(pid: i32, plan: &Plan) -> Result<(), Error> {
    let live = Live::of(pid)?;
    let mut open = Vec::new();
    for mount in expected(plan) {
        if live.mount_on(&mount.place)?.is_none() {
            continue;
        }
        let place = live
            .root
            .open(&mount.place, OFlags::PATH)
            .map_err(Error::on("open", &mount.place))?;
        if let Some(source) = &mount.source {
            check_source(&place, &mount.place, source)?;
        }
        open.push((place, mount));
    }
    // Attributes can be set from inside of the namespace only.
    let _inside = Elsewhere::of(pid)?;
    open.iter()
        .try_for_each(|(place, mount)| protect(place, mount))
}

fn check_source(place: &OwnedFd, name: &Path, source: &Path) -> Result<(), Error> {
    let is = rustix::fs::fstat(place).map_err(Error::on("stat", name))?;
    let should = rustix::fs::stat(source).map_err(Error::on("stat", source))?;
    if (is.st_dev, is.st_ino) == (should.st_dev, should.st_ino) {
        return Ok(());
    }
    let why = format!("was restored from the images as something else than {source:?}");
    Err(refused(name, &why))
}

fn protect(place: &OwnedFd, mount: &Expected) -> Result<(), Error> {
    let has = rustix::fs::fstatvfs(place).map_err(Error::on("stat", &mount.place))?;
    let missing = mount.attributes & !has.f_flag.bits();
    for (set, recursive) in [(missing, false), (mount.below, true)] {
        if set != 0 {
            let attr = MountAttr {
                set,
                ..MountAttr::default()
            };
            sys::mount_setattr(place.as_fd(), attr, recursive, None)
                .map_err(Error::on("protect mount on", &mount.place))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn of(mounts: &str) -> Vec<(String, u64)> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs","readonly":true}},"mounts":[{mounts}],
               "linux":{{"namespaces":[{{"type":"mount"}}],"readonlyPaths":["/proc/sys"]}}}}"#
        );
        let spec = Spec::parse(text.as_bytes()).unwrap();
        let plan = Plan::new(&spec, Path::new("/bundle"), false).unwrap();
        let mounts = expected(&plan).into_iter();
        mounts
            .map(|mount| (mount.place.to_str().unwrap().to_owned(), mount.attributes))
            .collect()
    }

    fn mount(place: &str, attributes: u64) -> (String, u64) {
        (place.to_owned(), attributes)
    }

    #[test]
    fn the_last_mount_on_a_place_covers_those_below() {
        let mounts = r#"{"destination":"/a/b","source":"/1","options":["bind","ro"]},
            {"destination":"/c","source":"/1","options":["bind","nosuid","nodev"]},
            {"destination":"/a","type":"tmpfs","options":["noexec"]}"#;
        let all = [
            mount("/c", 2 | 4),
            mount("/a", 8),
            mount("/proc/sys", 1),
            mount("/", 1),
        ];
        assert_eq!(of(mounts), all);
    }

    #[test]
    fn a_remount_changes_what_is_there() {
        let mounts = r#"{"destination":"/a","source":"/1","options":["bind","ro","nosuid"]},
            {"destination":"/a","options":["remount","bind","rw","noexec"]},
            {"destination":"/dev","type":"tmpfs","options":["ro","nosuid"]}"#;
        let all = of(mounts);
        assert_eq!(all[0], mount("/a", 2 | 8));
        assert_eq!(all[1], mount("/dev", 1 | 2));
    }

    #[test]
    fn the_flags_of_a_mount_are_numbered_alike() {
        assert_eq!(PROTECTIONS, 15);
        assert_eq!(
            PROTECTIONS,
            libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC
        );
    }
}
