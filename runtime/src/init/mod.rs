//! The first process of a container: what the runtime prepares for it, what
//! it does itself, and how the two talk.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

pub(crate) mod cgroup_view;
pub(crate) mod child;
pub(crate) mod exec;
pub(crate) mod failure;
pub(crate) mod gate;
pub(crate) mod launch;
pub(crate) mod protocol;
pub(crate) mod source;
pub(crate) mod sysctl;

pub(crate) use failure::{Failure, Step};

use crate::error::Error;
use crate::id::ContainerId;
use crate::process::apply::Filter;
use crate::process::execution::Common;
use crate::spec::{Hook, Linux, NamespaceType, Spec, invalid};
use crate::{hook, namespace, process, rootfs};

/// Everything that init will do, decided before `clone3(2)`.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces.
    pub namespaces: namespace::Plan,
    /// File system.
    pub rootfs: rootfs::Plan,
    /// Program.
    pub process: process::Plan,
    /// Kernel parameters: file below /proc/sys, and value.
    pub sysctl: Vec<(String, String)>,
    /// Host name, or empty.
    pub hostname: String,
    /// NIS domain name, or empty.
    pub domainname: String,
    /// Name of a new session keyring, unless the caller wants none.
    pub keyring: Option<CString>,
    /// How many descriptors after the standard ones the program inherits.
    pub preserve_fds: u32,
    /// The filter to load last.
    pub filter: Option<Filter>,
    /// Hooks of init's own moments.
    pub hooks: Hooks,
    /// Whether init tells the runtime what it does (`--debug`).
    pub debug: bool,
    /// Whether an ordinary user makes the container: then the kernel hides a
    /// protected init from its own maker.
    pub rootless: bool,
}

/// Hooks that concern init, with what they are told.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Whether the runtime itself has hooks before the root is switched.
    pub runtime_has_any: bool,
    /// In the container's namespaces, before the root is switched.
    pub create_container: Vec<Hook>,
    /// In the container, before the program.
    pub start_container: Vec<Hook>,
    /// For the state they read.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Absolute path.
    pub bundle: PathBuf,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What the caller of `create` or `run` asked for beside the bundle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--preserve-fds`, with those of socket activation.
    pub preserve_fds: u32,
    /// Those of socket activation.
    pub listen_fds: u32,
    /// `--rootless`; without it, whether the caller is not root.
    pub rootless: Option<bool>,
    /// `--debug`.
    pub debug: bool,
}

impl Plan {
    /// Plans from a checked specification. `bundle` is absolute.
    pub(crate) fn new(
        spec: &Spec,
        id: &ContainerId,
        bundle: &Path,
        wishes: &Wishes,
    ) -> Result<Plan, Error> {
        let uts = spec.linux.namespace(NamespaceType::Uts).is_some();
        if !uts && !spec.hostname.is_empty() {
            return Err(invalid(
                "hostname",
                "needs a uts namespace in linux.namespaces",
            ));
        }
        if !uts && !spec.domainname.is_empty() {
            return Err(invalid(
                "domainname",
                "needs a uts namespace in linux.namespaces",
            ));
        }
        let keyring = process::keyring::name(id.as_str()).filter(|_| !wishes.no_new_keyring);
        Ok(Plan {
            namespaces: namespace::Plan::new(&spec.linux)?,
            rootfs: rootfs::Plan::new(spec, bundle, wishes.no_pivot)?,
            process: process::Plan::new(spec.process()?, common(&spec.linux))?
                .listening(wishes.listen_fds),
            sysctl: sysctl::plan(&spec.linux)?,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            keyring,
            preserve_fds: wishes.preserve_fds,
            filter: None,
            hooks: Hooks {
                runtime_has_any: !spec.hooks.prestart.is_empty()
                    || !spec.hooks.create_runtime.is_empty(),
                create_container: spec.hooks.create_container.clone(),
                start_container: spec.hooks.start_container.clone(),
                oci_version: spec.oci_version.clone(),
                id: id.to_string(),
                bundle: bundle.to_owned(),
                annotations: spec.annotations.clone(),
            },
            debug: wishes.debug,
            rootless: !rustix::process::geteuid().is_root(),
        })
    }
}

/// What later processes of the container will share with the first.
fn common(linux: &Linux) -> Common<'_> {
    Common {
        personality: linux.personality.as_ref(),
        memory_policy: linux.memory_policy.as_ref(),
    }
}

impl Hooks {
    /// Whether any hook runs before the root is switched.
    pub(crate) fn before_switch(&self) -> bool {
        self.runtime_has_any || !self.create_container.is_empty()
    }

    /// The state that hooks of init are given.
    fn state(&self, status: &'static str, pid: Option<i32>) -> hook::State<'_> {
        hook::State {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}
