//! One mount as it was asked for: a pure value.

use std::path::{Component, Path, PathBuf};

use super::options::{Options, Recursive};
use crate::error::Error;
use crate::spec::{IdMapping, Mount, invalid};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOp {
    /// Where, inside the container.
    pub target: PathBuf,
    /// What.
    pub what: What,
    /// How.
    pub options: Options,
}

impl MountOp {
    /// Whether ids are mapped, by maps of its own or the container's.
    pub(crate) fn maps_ids(&self) -> bool {
        let own = matches!(&self.what, What::Bind { maps: Some(_), .. });
        let bind = matches!(self.what, What::Bind { .. });
        own || (bind && self.options.idmap.is_some())
    }
}

/// The kinds of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A part of the host's tree.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Whether the mounts below come along.
        recursive: bool,
        /// Ids to map, where the mount has maps of its own.
        maps: Option<Maps>,
    },
    /// A file system of this type.
    Filesystem {
        /// Its type.
        kind: String,
        /// Its device or name.
        source: String,
    },
    /// The container's cgroups, in the layout of the host.
    Cgroup,
    /// New attributes for the mount that is there.
    Remount,
}

impl What {
    /// What is done, for a person.
    pub(crate) fn words(&self, target: &Path) -> String {
        match self {
            What::Bind { source, .. } => format!("mount {source:?} to {target:?}"),
            What::Filesystem { kind, .. } => format!("mount {kind} on {target:?}"),
            What::Cgroup => format!("mount the cgroups on {target:?}"),
            What::Remount => format!("mount again {target:?}"),
        }
    }
}

/// Id maps of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maps {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

/// Files of procfs that may be covered: they report numbers and configure
/// nothing. All else below /proc steers the kernel or our own next steps.
const PROC_COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// The path as the container means it: absolute, `.` and `..` resolved by
/// name alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
    out
}

/// Plans one mount of a container whose root is at `rootfs` on the host.
/// `field` names the mount in messages; `warnings` takes what is left out of it.
pub(crate) fn plan(
    mount: &Mount,
    bundle: &Path,
    rootfs: &Path,
    field: &str,
    warnings: &mut Vec<String>,
) -> Result<MountOp, Error> {
    let target = target(&mount.destination, rootfs);
    if target == Path::new("/") {
        return Err(invalid(
            &format!("{field}.destination"),
            &format!("mountpoint {target:?} is on the top of rootfs {rootfs:?}"),
        ));
    }
    let mut options = Options::parse(&mount.options);
    let bind = options
        .bind
        .or((mount.kind == "bind").then_some(Recursive::No));
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if mapped && bind.is_none() {
        return Err(invalid(
            &format!("{field}.uidMappings"),
            "are possible on bind mounts only",
        ));
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err(invalid(
            &format!("{field}.uidMappings"),
            "and gidMappings belong together",
        ));
    }
    if bind.is_some() && !options.remount && !options.filesystem.is_empty() {
        warnings.push(leave_out(&mut options.filesystem, field));
    }
    let what = match bind {
        _ if options.remount => What::Remount,
        Some(recursive) => What::Bind {
            source: bind_source(mount, bundle, field)?,
            recursive: recursive == Recursive::Yes,
            maps: mapped.then(|| Maps {
                uids: mount.uid_mappings.clone(),
                gids: mount.gid_mappings.clone(),
            }),
        },
        None if mount.kind == "cgroup" || mount.kind == "cgroup2" => What::Cgroup,
        None if mount.kind.is_empty() => {
            return Err(invalid(
                &format!("{field}.type"),
                "is needed where the options name neither bind nor rbind",
            ));
        }
        None => What::Filesystem {
            kind: mount.kind.clone(),
            source: mount.source.clone(),
        },
    };
    check_below_proc(&target, &what, field)?;
    Ok(MountOp {
        target,
        what,
        options,
    })
}

/// Takes away what only a file system that is being made could heed: the kernel
/// would not even look at it. What was meant is not what happens, so it is said,
/// in runc's words as far as it has them; it refuses such mounts, crun makes them.
fn leave_out(options: &mut Vec<(String, Option<String>)>, field: &str) -> String {
    let words: Vec<_> = options.drain(..).map(|(key, _)| key).collect();
    format!(
        "{field}.options: bind mounts cannot have any filesystem-specific options applied: {} left out",
        words.join(",")
    )
}

/// The mount point inside the container. A destination below the root's path
/// on the host is taken for one below the root, as runc does.
fn target(destination: &Path, rootfs: &Path) -> PathBuf {
    let target = clean(destination);
    match target.strip_prefix(rootfs) {
        Ok(below) if rootfs != Path::new("/") => clean(below),
        _ => target,
    }
}

fn bind_source(mount: &Mount, bundle: &Path, field: &str) -> Result<PathBuf, Error> {
    if mount.source.is_empty() {
        return Err(invalid(
            &format!("{field}.source"),
            "is needed for a bind mount",
        ));
    }
    Ok(bundle.join(&mount.source))
}

fn check_below_proc(target: &Path, what: &What, field: &str) -> Result<(), Error> {
    let refused = |why: &str| {
        Err(invalid(
            &format!("{field}.destination"),
            &format!("{target:?} cannot be mounted because it is {why}"),
        ))
    };
    if target == Path::new("/proc") {
        return match what {
            What::Filesystem { kind, .. } if kind != "proc" => refused("not of type proc"),
            What::Cgroup => refused("not of type proc"),
            // What a bind mount shows is looked at when it is made.
            _ => Ok(()),
        };
    }
    // A file system mounted inside procfs covers it as well as a bind mount does.
    let harmless = coverable_on_proc(target) || matches!(what, What::Remount);
    if target.starts_with("/proc") && !harmless {
        return refused("inside /proc");
    }
    Ok(())
}

/// Whether a mount point that turned out to lie on procfs may be covered.
pub(crate) fn coverable_on_proc(target: &Path) -> bool {
    target == Path::new("/proc") || PROC_COVERABLE.iter().any(|path| target == Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(mount: &str) -> Result<MountOp, Error> {
        op_and_warnings(mount).0
    }

    fn op_and_warnings(mount: &str) -> (Result<MountOp, Error>, Vec<String>) {
        let mount: Mount = serde_json::from_str(mount).unwrap();
        let mut warnings = Vec::new();
        let (bundle, rootfs) = (Path::new("/bundle"), Path::new("/bundle/rootfs"));
        let op = plan(&mount, bundle, rootfs, "mounts[0]", &mut warnings);
        (op, warnings)
    }

    #[test]
    fn a_destination_cannot_climb() {
        assert_eq!(clean(Path::new("../../etc/./x/../y")), Path::new("/etc/y"));
    }

    #[test]
    fn a_destination_may_name_the_root_on_the_host() {
        let op = op(r#"{"destination":"/bundle/rootfs/a/b","type":"tmpfs"}"#).unwrap();
        assert_eq!(op.target, Path::new("/a/b"));
    }

    #[test]
    fn nothing_is_mounted_on_the_root_itself() {
        for destination in ["/", "/a/..", "/bundle/rootfs"] {
            let error = op(&format!(
                r#"{{"destination":"{destination}","type":"tmpfs"}}"#
            ));
            assert!(error.unwrap_err().to_string().contains("top of rootfs"));
        }
    }

    #[test]
    fn a_bind_mount_has_no_options_of_a_file_system() {
        let text = r#"{"destination":"/a","source":"/x","options":["bind","size=1m","ro"]}"#;
        let (op, warnings) = op_and_warnings(text);
        assert!(op.unwrap().options.filesystem.is_empty());
        assert!(
            warnings[0].contains("filesystem-specific options applied: size left out"),
            "{warnings:?}"
        );
    }

    #[test]
    fn procfs_is_not_covered() {
        let bind = |destination: &str| {
            op(&format!(
                r#"{{"destination":"{destination}","source":"/x","options":["bind"]}}"#
            ))
        };
        assert!(bind("/proc/self/attr").is_err());
        assert!(bind("/proc/cpuinfo").is_ok());
        assert!(bind("/proc").is_ok());
        assert!(op(r#"{"destination":"/proc/../proc/1","type":"tmpfs"}"#).is_err());
        assert!(op(r#"{"destination":"/proc","type":"proc"}"#).is_ok());
        let error = op(r#"{"destination":"/proc","type":"tmpfs"}"#).unwrap_err();
        assert!(error.to_string().contains("not of type proc"));
    }
}
