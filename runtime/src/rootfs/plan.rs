//! What will be mounted, made, covered and protected: pure values.

use std::path::{Component, Path, PathBuf};

use super::device::{self, Node};
use super::options::{Options, Recursive, root_propagation};
use crate::error::Error;
use crate::spec::{IdMapping, Mount, NamespaceType, Spec, invalid};

/// Everything that init does to its file system, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The root directory on the host, absolute.
    pub rootfs: PathBuf,
    /// Whether there is a mount table of our own to work in.
    pub own_mounts: bool,
    /// Whether the user namespace is not the host's, so that nodes are bound
    /// instead of made.
    pub bind_devices: bool,
    /// Propagation of the whole table before anything is mounted.
    pub propagation: (u64, bool),
    /// Propagation of the root in the end, where the specification asks for one.
    pub final_propagation: Option<(u64, bool)>,
    /// Mounts, in order.
    pub mounts: Vec<MountOp>,
    /// Whether cgroups may be mounted after the root is switched. Joining them
    /// takes the kernel longer than all else; the rest is done meanwhile.
    pub cgroups_last: bool,
    /// Device nodes; empty where /dev is a bind mount.
    pub devices: Vec<Node>,
    /// Symbolic links (path, target); empty where /dev is a bind mount.
    pub symlinks: Vec<(&'static str, &'static str)>,
    /// Paths to cover.
    pub masked: Vec<PathBuf>,
    /// Paths to protect from writing.
    pub readonly_paths: Vec<PathBuf>,
    /// Mounts that become read-only only when they are filled.
    pub late_readonly: Vec<PathBuf>,
    /// Whether the root becomes read-only.
    pub readonly: bool,
    /// Whether to use a moved mount and chroot(2) instead of pivot_root(2).
    pub no_pivot: bool,
    /// SELinux context of new file systems, or empty.
    pub mount_label: String,
}

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

/// Links that every container has (runtime-linux.md, "Dev symbolic links"),
/// and the multiplexer of its own devpts (config-linux.md, "Default Devices").
const SYMLINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

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

impl Plan {
    /// Plans from a checked specification. `bundle` is absolute.
    pub(crate) fn new(spec: &Spec, bundle: &Path, no_pivot: bool) -> Result<Plan, Error> {
        let root = spec
            .root
            .as_ref()
            .ok_or_else(|| invalid("root", "is missing"))?;
        let own_mounts = spec
            .linux
            .namespace(NamespaceType::Mount)
            .is_some_and(|n| n.path.as_os_str().is_empty());
        if !own_mounts && !spec.mounts.is_empty() {
            return Err(invalid(
                "mounts",
                "needs a new mount namespace in linux.namespaces",
            ));
        }
        if !own_mounts
            && (root.readonly
                || !spec.linux.masked_paths.is_empty()
                || !spec.linux.readonly_paths.is_empty())
        {
            return Err(invalid(
                "linux.maskedPaths, linux.readonlyPaths and root.readonly",
                "need a new mount namespace in linux.namespaces",
            ));
        }
        let (propagation, final_propagation) = propagation(&spec.linux.rootfs_propagation)?;
        let mut plan = Plan {
            rootfs: bundle.join(&root.path),
            own_mounts,
            bind_devices: spec.linux.namespace(NamespaceType::User).is_some(),
            propagation,
            final_propagation,
            masked: unique(&spec.linux.masked_paths),
            readonly_paths: unique(&spec.linux.readonly_paths),
            readonly: root.readonly,
            no_pivot,
            mount_label: spec.linux.mount_label.clone(),
            ..Plan::default()
        };
        for (index, mount) in spec.mounts.iter().enumerate() {
            let op = mount_op(mount, bundle, &format!("mounts[{index}]"))?;
            plan.push(op);
        }
        let dev_is_bound = plan
            .mounts
            .iter()
            .any(|op| op.target == Path::new("/dev") && matches!(op.what, What::Bind { .. }));
        plan.cgroups_last = cgroups_last(spec, &plan.mounts);
        if own_mounts && !dev_is_bound {
            plan.devices = device::nodes(&spec.linux.devices)?;
            plan.symlinks = SYMLINKS.to_vec();
        }
        Ok(plan)
    }

    /// A read-only /dev must still take its nodes first.
    fn push(&mut self, mut op: MountOp) {
        let read_only = op.options.attr.set & libc::MOUNT_ATTR_RDONLY != 0;
        if read_only && op.target == Path::new("/dev") && !matches!(op.what, What::Bind { .. }) {
            op.options.attr.set &= !libc::MOUNT_ATTR_RDONLY;
            self.late_readonly.push(op.target.clone());
        }
        self.mounts.push(op);
    }
}

/// Cgroups can be mounted last when nothing looks for them before: no hook,
/// no other mount, no protected path. Without a namespace of their own they
/// are parts of the host's mounts, which must still be there.
fn cgroups_last(spec: &Spec, mounts: &[MountOp]) -> bool {
    let Some(index) = mounts.iter().position(|op| op.what == What::Cgroup) else {
        return false;
    };
    let target = &mounts[index].target;
    let hooks = &spec.hooks;
    let hooked = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
    ];
    let cwd = spec.process.iter().map(|process| &process.cwd);
    let paths = spec
        .linux
        .masked_paths
        .iter()
        .chain(&spec.linux.readonly_paths)
        .chain(cwd);
    spec.linux.namespace(NamespaceType::Cgroup).is_some()
        && hooked.iter().all(|hooks| hooks.is_empty())
        && mounts[index + 1..]
            .iter()
            .all(|op| !op.target.starts_with(target) && op.what != What::Cgroup)
        && paths
            .into_iter()
            .all(|path| !clean(path).starts_with(target))
}

/// The propagation to begin with and the one to end with. Without a wish the
/// container sees what the host mounts later and never the other way round.
type Propagation = ((u64, bool), Option<(u64, bool)>);

fn propagation(word: &str) -> Result<Propagation, Error> {
    if word.is_empty() {
        return Ok(((libc::MS_SLAVE, true), None));
    }
    let wish = root_propagation(word).ok_or_else(|| {
        invalid(
            "linux.rootfsPropagation",
            &format!("{word:?} is not a propagation"),
        )
    })?;
    // Nothing can be mounted below an unbindable root: it becomes so last.
    let first = if wish.0 == libc::MS_UNBINDABLE {
        libc::MS_PRIVATE
    } else {
        wish.0
    };
    let last = (wish.0 != libc::MS_PRIVATE).then_some(wish);
    Ok(((first, true), last))
}

fn unique(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        if !seen.contains(path) {
            seen.push(path.clone());
        }
    }
    seen
}

/// The path as the container means it: absolute, `.` and `..` resolved by
/// name alone.
fn clean(path: &Path) -> PathBuf {
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

fn mount_op(mount: &Mount, bundle: &Path, field: &str) -> Result<MountOp, Error> {
    let target = clean(&mount.destination);
    let options = Options::parse(&mount.options);
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
    let inside = target.starts_with("/proc") && target != Path::new("/proc");
    let harmless = PROC_COVERABLE.iter().any(|path| target == Path::new(path))
        || matches!(what, What::Remount);
    // A file system mounted inside procfs covers it as well as a bind mount does.
    if inside && !harmless {
        return Err(invalid(
            &format!("{field}.destination"),
            &format!("{target:?} cannot be mounted because it is inside /proc"),
        ));
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

    fn spec(mounts: &str) -> Spec {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"mounts":{mounts},
               "linux":{{"namespaces":[{{"type":"mount"}}],"maskedPaths":["/proc/kcore","/proc/kcore"]}}}}"#
        );
        Spec::parse(text.as_bytes()).unwrap()
    }

    fn plan(mounts: &str) -> Result<Plan, Error> {
        Plan::new(&spec(mounts), Path::new("/bundle"), false)
    }

    #[test]
    fn sources_are_relative_to_the_bundle() {
        let plan = plan(r#"[{"destination":"/a","source":"data","options":["rbind"]}]"#).unwrap();
        assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
        assert!(
            matches!(&plan.mounts[0].what, What::Bind { source, recursive: true, .. } if source == Path::new("/bundle/data"))
        );
    }

    #[test]
    fn a_destination_cannot_climb() {
        assert_eq!(clean(Path::new("../../etc/./x/../y")), Path::new("/etc/y"));
    }

    #[test]
    fn a_bound_dev_is_left_alone() {
        assert!(
            plan(r#"[{"destination":"/dev","source":"/dev","options":["bind"]}]"#)
                .unwrap()
                .devices
                .is_empty()
        );
        assert!(!plan("[]").unwrap().devices.is_empty());
    }

    #[test]
    fn a_read_only_dev_takes_its_nodes_first() {
        let plan =
            plan(r#"[{"destination":"/dev","type":"tmpfs","options":["ro","nosuid"]}]"#).unwrap();
        assert_eq!(plan.mounts[0].options.attr.set, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(plan.late_readonly, [Path::new("/dev")]);
    }

    #[test]
    fn procfs_is_not_covered() {
        assert!(
            plan(r#"[{"destination":"/proc/self/attr","source":"/x","options":["bind"]}]"#)
                .is_err()
        );
        assert!(
            plan(r#"[{"destination":"/proc/cpuinfo","source":"/x","options":["bind"]}]"#).is_ok()
        );
        assert!(plan(r#"[{"destination":"/proc/../proc/1","type":"tmpfs"}]"#).is_err());
    }

    #[test]
    fn paths_are_masked_once() {
        assert_eq!(plan("[]").unwrap().masked.len(), 1);
    }

    #[test]
    fn cgroups_wait_unless_something_needs_them() {
        let cgroup = r#"{"destination":"/sys/fs/cgroup","type":"cgroup"}"#;
        let last = |mounts: &str, change: fn(&mut Spec)| {
            let mut spec = spec(mounts);
            let kind = NamespaceType::Cgroup;
            spec.linux.namespaces.push(crate::spec::Namespace {
                kind,
                path: "".into(),
            });
            change(&mut spec);
            Plan::new(&spec, Path::new("/b"), false)
                .unwrap()
                .cgroups_last
        };
        assert!(last(&format!("[{cgroup}]"), |_| ()));
        assert!(!last("[]", |_| ()));
        assert!(!last(&format!("[{cgroup}]"), |spec| spec
            .linux
            .namespaces
            .truncate(1)));
        assert!(!last(&format!("[{cgroup}]"), |spec| {
            spec.linux.readonly_paths = vec!["/sys/fs/cgroup/../cgroup/cpu".into()];
        }));
        let below = r#"{"destination":"/sys/fs/cgroup/x","type":"tmpfs"}"#;
        assert!(!last(&format!("[{cgroup},{below}]"), |_| ()));
    }

    #[test]
    fn mounts_need_a_mount_namespace() {
        let mut spec = spec(r#"[{"destination":"/a","type":"tmpfs"}]"#);
        spec.linux.namespaces.clear();
        assert!(Plan::new(&spec, Path::new("/b"), false).is_err());
    }
}
