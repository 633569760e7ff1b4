//! Where bind mounts come from.
//!
//! A source is looked up at the moment of its mount and in the mount namespace
//! of the container: it may lie in what was mounted just before it. Init does
//! that itself. What its user namespace does not let it do (a source that only
//! the host's root may reach, ids of the host that are mapped) the runtime's
//! [helper](crate::init::source) does for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::idmap::{self, Namespaces};
use super::mount::clone_host;
use super::op::{MountOp, What};
use crate::sys::{self, MountAttr};

/// Who looks up sources for an init that may not.
pub(crate) trait Helper {
    /// A detached copy of the source of the mount at this place in the plan.
    fn take(&mut self, index: usize) -> std::io::Result<OwnedFd>;
}

/// How init comes to its sources.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The maps of idmapped mounts; empty where a helper has them.
    pub namespaces: Namespaces,
    /// Whether a helper is there to be asked: init is in a user namespace, and
    /// the runtime has the host's privileges.
    pub helped: bool,
}

impl Sources {
    /// A detached copy of the source of a mount, mapped where it is to be.
    pub(crate) fn take(
        &self,
        index: usize,
        op: &MountOp,
        helper: &mut impl Helper,
    ) -> std::io::Result<OwnedFd> {
        if self.helped && op.maps_ids() {
            return helper.take(index);
        }
        match take(index, op, &self.namespaces) {
            Err(error) if self.helped && error.raw_os_error() == Some(libc::EACCES) => {
                helper.take(index)
            }
            result => result,
        }
    }
}

/// Copies the source of a mount with the privileges at hand. `open_tree(2)`.
pub(crate) fn take(
    index: usize,
    op: &MountOp,
    namespaces: &Namespaces,
) -> std::io::Result<OwnedFd> {
    let What::Bind {
        source, recursive, ..
    } = &op.what
    else {
        return Err(rustix::io::Errno::INVAL.into());
    };
    let tree = clone_host(Path::new(source), *recursive)?;
    if let Some(namespace) = namespaces.of(index) {
        let (nothing, deep) = (MountAttr::default(), idmap::deep(op));
        sys::mount_setattr(tree.as_fd(), nothing, deep, Some(namespace))?;
    }
    Ok(tree)
}
