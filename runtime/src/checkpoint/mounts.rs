//! Mounts whose source is outside of the container: CRIU saves only a name for
//! them, and is told at the restore what stands behind the name.
//!
//! The name is the destination as `config.json` has it, as with runc. So what
//! is mounted at a restore is decided by the bundle alone, by equal text: no
//! symbolic link, and nothing that the container did, is asked. Only *where* a
//! mount is now is asked of the kernel, at the dump.
//!
//! CRIU puts both into one string, `mnt[KEY]:VALUE`, and searches for the first
//! one that begins with `mnt[KEY]` and goes on with a colon: a name with `]:`
//! in it could be taken for another (CVE-2026-119101). It is refused.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, move_mount};

use super::private::Elsewhere;
use super::rpc::ExternalMount;
use super::table::Mount;
use crate::error::Error;
use crate::init::cgroup_view::View;
use crate::rootfs::idmap::Namespaces;
use crate::rootfs::mount::{bind, clone_host, mount_point, source_failure};
use crate::rootfs::op::{MountOp, What};
use crate::rootfs::plan::Plan;
use crate::rootfs::root::{RootDir, Stub, is_directory};

/// What a masked file is covered with, and its name in the images.
const NULL: &str = "/dev/null";

/// The end of a key in CRIU's own spelling of an external mount.
const KEY_END: &[u8] = b"]:";

/// Largest mount table that is read, in bytes: 100,000 mounts.
pub(super) const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A mount from outside, as the bundle says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    /// Destination in `config.json`: the name.
    name: PathBuf,
    /// On the host.
    source: PathBuf,
}

/// All mounts from outside but masked files, each name once: of several on one
/// destination the last is on top.
fn named(plan: &Plan, cgroups: &View) -> Result<Vec<Named>, Error> {
    let mut all: Vec<Named> = Vec::new();
    let mut add = |name: PathBuf, source: PathBuf| {
        all.retain(|other| other.name != name);
        all.push(Named { name, source });
    };
    for op in &plan.mounts {
        match &op.what {
            What::Bind { source, .. } => {
                if op.maps_ids() {
                    return Err(refused(&op.target, "is idmapped, which CRIU cannot save"));
                }
                add(op.target.clone(), source.clone());
            }
            What::Cgroup => {
                for (place, source) in cgroups.binds(&op.target) {
                    add(place, source);
                }
            }
            What::Filesystem { .. } | What::Remount => {}
        }
    }
    if plan.bind_devices {
        for node in &plan.devices {
            add(node.path.clone(), node.path.clone());
        }
    }
    for Named { name, .. } in &all {
        check_name(name)?;
        if name == Path::new(NULL) && !plan.masked.is_empty() && !plan.bind_devices {
            return Err(refused(name, "could be taken for the masked paths"));
        }
    }
    Ok(all)
}

fn check_name(name: &Path) -> Result<(), Error> {
    let bytes = name.as_os_str().as_bytes();
    if bytes.windows(KEY_END.len()).any(|part| part == KEY_END) {
        return Err(refused(
            name,
            "has \"]:\" in its name, which ends a name of CRIU's",
        ));
    }
    Ok(())
}

pub(super) fn refused(place: &Path, why: &str) -> Error {
    super::Error::Refused(format!("mount on {place:?} {why}")).into()
}

/// What CRIU must not save: where each mount from outside is in the container
/// of `pid` now, and its name.
pub(super) fn for_dump(pid: i32, plan: &Plan, cgroups: &View) -> Result<Vec<ExternalMount>, Error> {
    let live = Live::of(pid)?;
    let mut found: Vec<(u64, ExternalMount)> = Vec::new();
    for Named { name, .. } in named(plan, cgroups)? {
        let Some((id, key)) = live.mount_on(&name)? else {
            continue;
        };
        if let Some((_, other)) = found.iter().find(|(known, _)| *known == id) {
            let why = format!("has come to be the one on {:?}", other.value);
            return Err(refused(&name, &why));
        }
        found.push((id, ExternalMount { key, value: name }));
    }
    for path in &plan.masked {
        let Some((id, key)) = live.mount_on(path)? else {
            continue;
        };
        let file = live.root.open(path, OFlags::PATH);
        let is_file = file
            .and_then(is_directory)
            .is_ok_and(|directory| !directory);
        if is_file && found.iter().all(|(known, _)| *known != id) {
            found.push((
                id,
                ExternalMount {
                    key,
                    value: NULL.into(),
                },
            ));
        }
    }
    Ok(found.into_iter().map(|(_, mount)| mount).collect())
}

/// What stands behind each name. Sources are real paths: CRIU looks for their
/// mounts by name in the mount table, which has neither `.` nor symbolic links.
pub(super) fn for_restore(plan: &Plan, cgroups: &View) -> Result<Vec<ExternalMount>, Error> {
    let mut all: Vec<ExternalMount> = named(plan, cgroups)?
        .into_iter()
        .map(|Named { name, source }| ExternalMount {
            key: name,
            value: std::fs::canonicalize(&source).unwrap_or(source),
        })
        .collect();
    if !plan.masked.is_empty() && all.iter().all(|mount| mount.key != Path::new(NULL)) {
        all.push(ExternalMount {
            key: NULL.into(),
            value: NULL.into(),
        });
    }
    Ok(all)
}

/// The file system of a running container, from outside.
pub(super) struct Live {
    /// Its root.
    pub root: RootDir,
    table: Vec<Mount>,
}

impl Live {
    /// Of the container whose init is `pid`.
    pub(super) fn of(pid: i32) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(Error::on("open", &path))?;
        let path = format!("/proc/{pid}/mountinfo");
        let file = std::fs::File::open(&path).map_err(Error::on("open", &path))?;
        let table =
            crate::file::read_open(file, TABLE_BYTES_MAX).map_err(Error::on("read", &path))?;
        Ok(Self {
            root: RootDir(root),
            table: Mount::table(&table),
        })
    }

    /// The mount whose root `path` leads to: its number and its mount point.
    /// None where the path is missing, or an ordinary file of another mount.
    pub(super) fn mount_on(&self, path: &Path) -> Result<Option<(u64, PathBuf)>, Error> {
        let Ok(place) = self.root.open(path, OFlags::PATH) else {
            return Ok(None);
        };
        let stat = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .map_err(Error::on("stat", path))?;
        if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Ok(None);
        }
        let entry = self.table.iter().find(|mount| mount.id == stat.stx_mnt_id);
        let Some(Mount { id, point, .. }) = entry else {
            return Err(refused(path, "is in no mount table of the container"));
        };
        check_name(point)?;
        Ok(Some((*id, point.clone())))
    }
}

/// Makes the mount points that a restore needs and the root does not have, as
/// the creation of a container does: also those inside of bind mounts, which
/// are mounted for that, in a mount namespace that ends with this call. What is
/// inside of a tmpfs comes out of the images.
pub(super) fn make_points(plan: &Plan) -> Result<(), Error> {
    let _private = Elsewhere::private()?;
    let fail = |plan: &Plan| Error::on::<rustix::io::Errno>("open root", plan.rootfs.clone());
    let root = clone_host(&plan.rootfs, true).map_err(fail(plan))?;
    let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&root, "", CWD, &plan.rootfs, from).map_err(fail(plan))?;
    let root = RootDir(root);
    // As in init: the modes are those that are asked for.
    let mask = rustix::process::umask(Mode::empty());
    let made = plan
        .mounts
        .iter()
        .filter(|op| !on_tmpfs(&op.target, &plan.mounts))
        .try_for_each(|op| match &op.what {
            What::Cgroup | What::Remount => Ok(()),
            What::Filesystem { .. } => mount_point(&root, op, Stub::Directory).map(drop),
            What::Bind { source, .. } => crate::rootfs::source::take(0, op, &Namespaces::default())
                .map_err(|error| source_failure(source, &op.target, error))
                .and_then(|tree| bind(&root, op, source, &tree)),
        });
    rustix::process::umask(mask);
    Ok(made.map_err(super::Error::MountPoint)?)
}

fn on_tmpfs(path: &Path, mounts: &[MountOp]) -> bool {
    mounts.iter().any(|op| {
        let tmpfs = matches!(&op.what, What::Filesystem { kind, .. } if kind == "tmpfs");
        tmpfs && path != op.target && path.starts_with(&op.target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Paths;
    use crate::spec::Spec;

    fn plan(mounts: &str, linux: &str) -> Plan {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"mounts":[{mounts}],
               "linux":{{"namespaces":[{{"type":"mount"}}]{linux}}}}}"#
        );
        let spec = Spec::parse(text.as_bytes()).unwrap();
        Plan::new(&spec, Path::new("/bundle"), false).unwrap()
    }

    fn restore(mounts: &str, linux: &str) -> Result<Vec<(String, String)>, String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        for_restore(&plan(mounts, linux), &View::new(&Paths::default(), true))
            .map(|all| {
                all.into_iter()
                    .map(|mount| (text(mount.key), text(mount.value)))
                    .collect()
            })
            .map_err(|error| error.chain())
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn the_bundle_says_what_stands_behind_a_name() {
        let mounts = r#"{"destination":"/a,[b]","source":"/s","options":["bind"]},
            {"destination":"/t","type":"tmpfs"},
            {"destination":"conf/../x","source":"rel","options":["rbind"]}"#;
        assert_eq!(
            restore(mounts, "").unwrap(),
            [pair("/a,[b]", "/s"), pair("/x", "/bundle/rel")]
        );
    }

    #[test]
    fn the_last_mount_on_a_destination_counts() {
        let mounts = r#"{"destination":"/a","source":"/1","options":["bind"]},
            {"destination":"/a/","source":"/2","options":["bind"]}"#;
        assert_eq!(restore(mounts, "").unwrap(), [pair("/a", "/2")]);
    }

    #[test]
    fn a_name_that_could_be_taken_for_another_is_refused() {
        let mounts = r#"{"destination":"/a]:/etc","source":"/s","options":["bind"]}"#;
        assert!(restore(mounts, "").unwrap_err().contains("]:"));
        let mounts = r#"{"destination":"/dev/null","source":"/s","options":["bind"]}"#;
        assert!(restore(mounts, r#","maskedPaths":["/proc/kcore"]"#).is_err());
        assert!(restore(mounts, "").is_ok());
    }

    #[test]
    fn masked_files_have_a_name_and_idmaps_are_refused() {
        assert_eq!(
            restore("", r#","maskedPaths":["/proc/kcore"]"#).unwrap(),
            [pair(NULL, NULL)]
        );
        let mounts = r#"{"destination":"/a","source":"/s","options":["bind"],
            "uidMappings":[{"containerID":0,"hostID":1,"size":1}],
            "gidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#;
        assert!(restore(mounts, "").unwrap_err().contains("idmapped"));
    }

    #[test]
    fn mount_points_on_a_tmpfs_are_the_images_own() {
        let plan = plan(
            r#"{"destination":"/t","type":"tmpfs"},{"destination":"/t/in","source":"/s","options":["bind"]}"#,
            "",
        );
        assert!(on_tmpfs(Path::new("/t/in"), &plan.mounts));
        assert!(!on_tmpfs(Path::new("/t"), &plan.mounts));
        assert!(!on_tmpfs(Path::new("/tt"), &plan.mounts));
    }
}
