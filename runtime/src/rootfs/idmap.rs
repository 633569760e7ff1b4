//! Idmapped mounts (`mount_setattr(2)`, Linux 5.12): the user namespaces whose
//! maps they take. They are made before init is, which may not map the ids of
//! the host from inside a user namespace.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::op::{Maps, MountOp, What};
use super::options::Recursive;
use crate::error::Error;
use crate::proc;
use crate::spec::{Linux, NamespaceType, invalid};
use crate::sys::{self, Forked};

/// A user namespace for every mount that maps ids.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// One for each map that occurs.
    made: Vec<(Maps, OwnedFd)>,
    /// Place of a mount in the plan, and of its namespace above; sorted.
    of: Vec<(usize, usize)>,
}

impl Namespaces {
    /// Makes those that the mounts of a container need.
    pub(crate) fn make(mounts: &[MountOp], linux: &Linux) -> Result<Namespaces, Error> {
        let mut all = Namespaces::default();
        for (index, op) in mounts.iter().enumerate() {
            let What::Bind { maps, .. } = &op.what else {
                continue;
            };
            if !op.maps_ids() {
                continue;
            }
            if !rustix::process::geteuid().is_root() {
                let reason = "id-mapped mounts are not supported for rootless containers";
                return Err(invalid(&format!("mounts[{index}]"), reason));
            }
            let maps = maps.clone().map_or_else(|| implied(linux, index), Ok)?;
            let known = all.made.iter().position(|(other, _)| *other == maps);
            let place = match known {
                Some(place) => place,
                None => {
                    let namespace = user_namespace(&maps, linux)?;
                    all.made.push((maps, namespace));
                    all.made.len() - 1
                }
            };
            all.of.push((index, place));
        }
        Ok(all)
    }

    /// The namespace of one mount.
    pub(crate) fn of(&self, index: usize) -> Option<BorrowedFd<'_>> {
        let found = self.of.binary_search_by_key(&index, |(mount, _)| *mount);
        let (_, place) = self.of[found.ok()?];
        Some(self.made[place].1.as_fd())
    }

    /// Descriptors that a child must keep.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.made.iter().map(|(_, fd)| fd.as_raw_fd())
    }
}

/// Whether the mounts below are mapped too.
pub(crate) fn deep(op: &MountOp) -> bool {
    op.options.idmap == Some(Recursive::Yes)
}

/// Without maps of its own a mount gets those of the container.
fn implied(linux: &Linux, index: usize) -> Result<Maps, Error> {
    if linux.namespace(NamespaceType::User).is_none() {
        let field = format!("mounts[{index}].options");
        return Err(invalid(
            &field,
            "idmap needs uidMappings and gidMappings, or a user namespace",
        ));
    }
    Ok(Maps {
        uids: linux.uid_mappings.clone(),
        gids: linux.gid_mappings.clone(),
    })
}

/// A user namespace with these maps: that of a child which lives as long as it
/// takes to open it. Empty maps mean the one that the container joins.
fn user_namespace(maps: &Maps, linux: &Linux) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    if maps.uids.is_empty()
        && let Some(joined) = linux.namespace(NamespaceType::User)
    {
        return rustix::fs::open(&joined.path, flags, Mode::empty())
            .map_err(Error::on("open namespace", &joined.path));
    }
    let fail = || Error::at::<std::io::Error>("make", "user namespace for an idmapped mount");
    let (ours, theirs) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail()(errno.into()))?;
    match sys::clone3(libc::CLONE_NEWUSER, None).map_err(fail())? {
        Forked::Child => {
            drop(theirs);
            let mut end = [0];
            let _ = std::fs::File::from(ours).read(&mut end);
            sys::exit(0);
        }
        Forked::Parent(pid, pidfd) => {
            let pid = pid.as_raw_nonzero().get();
            let opened = proc::write_child(pid, "uid_map", &crate::namespace::map_text(&maps.uids))
                .and_then(|()| {
                    proc::write_child(pid, "gid_map", &crate::namespace::map_text(&maps.gids))
                })
                .and_then(|()| {
                    Ok(rustix::fs::open(
                        format!("/proc/{pid}/ns/user"),
                        flags,
                        Mode::empty(),
                    )?)
                });
            let _ = std::fs::File::from(theirs).write(&[0]);
            let wait = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            rustix::io::retry_on_intr(wait).map_err(|errno| fail()(errno.into()))?;
            opened.map_err(fail())
        }
    }
}
