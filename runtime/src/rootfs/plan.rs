//! What will be mounted, made, covered and protected: pure values.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::device::{self, Node};
use super::op::{self, MountOp, What, clean};
use super::options::root_propagation;
use crate::error::Error;
use crate::process::label as security;
use crate::spec::{NamespaceType, Spec, invalid};

/// Everything that init does to its file system, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The root directory on the host, absolute.
    pub rootfs: PathBuf,
    /// Whether there is a mount table of our own to work in. If not, mounts
    /// are made in the caller's, who takes them away when it wants to.
    pub own_mounts: bool,
    /// Whether the root is left as it is: nothing is mounted, nothing made.
    pub untouched: bool,
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
    /// Whether the root becomes read-only.
    pub readonly: bool,
    /// Whether to use a moved mount and chroot(2) instead of pivot_root(2).
    pub no_pivot: bool,
    /// SELinux context of new file systems, or empty.
    pub mount_label: String,
    /// Words about what was asked for and is left out.
    pub warnings: Vec<String>,
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
        let covers = !spec.linux.masked_paths.is_empty() || !spec.linux.readonly_paths.is_empty();
        if !own_mounts && covers {
            return Err(invalid(
                "linux.maskedPaths, linux.readonlyPaths",
                "unable to restrict sys entries without a private MNT namespace",
            ));
        }
        let (propagation, final_propagation) = propagation(&spec.linux.rootfs_propagation)?;
        let mut plan = Plan {
            rootfs: bundle.join(&root.path),
            own_mounts,
            untouched: !own_mounts && spec.mounts.is_empty() && !root.readonly,
            bind_devices: spec.linux.namespace(NamespaceType::User).is_some(),
            propagation,
            final_propagation,
            masked: unique(&spec.linux.masked_paths),
            readonly_paths: unique(&spec.linux.readonly_paths),
            readonly: root.readonly,
            no_pivot,
            ..Plan::default()
        };
        plan.label(&spec.linux.mount_label, security::selinux);
        for (index, mount) in spec.mounts.iter().enumerate() {
            let field = format!("mounts[{index}]");
            let op = op::plan(mount, bundle, &plan.rootfs, &field, &mut plan.warnings)?;
            plan.mounts.push(op);
        }
        let dev_is_bound = plan
            .mounts
            .iter()
            .any(|op| op.target == Path::new("/dev") && matches!(op.what, What::Bind { .. }));
        plan.cgroups_last = own_mounts && cgroups_last(spec, &plan.mounts);
        if !plan.untouched && !dev_is_bound {
            plan.devices = device::nodes(&spec.linux.devices)?;
            plan.symlinks = SYMLINKS.to_vec();
        }
        Ok(plan)
    }
}

impl Plan {
    /// Gives new file systems a context, where SELinux is there to heed it: without
    /// it the kernel knows no such option, and nothing that could be confined.
    fn label(&mut self, label: &str, selinux: fn() -> bool) {
        if label.is_empty() {
            return;
        }
        if selinux() {
            label.clone_into(&mut self.mount_label);
        } else {
            self.warnings
                .push("linux.mountLabel is left out: SELinux is disabled or not supported".into());
        }
    }
}

impl MountOp {
    /// Whether the mount becomes read-only only when all others are made: a
    /// /dev that takes its nodes first, and a tmpfs, in which others may need
    /// a mount point.
    pub(crate) fn late_readonly(&self) -> bool {
        self.options.flags.read_only()
            && match &self.what {
                What::Filesystem { kind, .. } => {
                    kind == "tmpfs" || self.target == Path::new("/dev")
                }
                _ => false,
            }
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
    let mut seen = HashSet::with_capacity(paths.len());
    let first = paths.iter().filter(|path| seen.insert(path.as_path()));
    first.cloned().collect()
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
        let late = |mount: &str| plan(&format!("[{mount}]")).unwrap().mounts[0].late_readonly();
        assert!(late(
            r#"{"destination":"/dev","type":"tmpfs","options":["ro","nosuid"]}"#
        ));
        assert!(late(
            r#"{"destination":"/a","type":"tmpfs","options":["ro"]}"#
        ));
        assert!(!late(r#"{"destination":"/a","type":"tmpfs"}"#));
        assert!(!late(
            r#"{"destination":"/sys","type":"sysfs","options":["ro"]}"#
        ));
    }

    #[test]
    fn a_context_needs_selinux() {
        let mut plan = plan("[]").unwrap();
        plan.label("system_u:object_r:x:s0", || false);
        assert!(plan.mount_label.is_empty() && plan.warnings[0].contains("SELinux"));
        plan.label("system_u:object_r:x:s0", || true);
        assert_eq!(plan.mount_label, "system_u:object_r:x:s0");
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
    fn without_a_mount_namespace_nothing_can_be_covered() {
        let mut spec = spec(r#"[{"destination":"/a","type":"tmpfs"}]"#);
        spec.linux.namespaces.clear();
        let error = Plan::new(&spec, Path::new("/b"), false).unwrap_err();
        assert!(error.to_string().contains("private MNT namespace"));
        spec.linux.masked_paths.clear();
        let plan = Plan::new(&spec, Path::new("/b"), false).unwrap();
        assert!(!plan.own_mounts && !plan.untouched && !plan.devices.is_empty());
        spec.mounts.clear();
        let plan = Plan::new(&spec, Path::new("/b"), false).unwrap();
        assert!(plan.untouched && plan.devices.is_empty());
    }
}
