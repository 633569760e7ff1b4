//! Idmapped mounts (`mount_setattr(2)`, Linux 5.12): made by the runtime, who
//! has the privileges over the source's file system that init in a user
//! namespace has not.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::mount::clone_host;
use super::options::Recursive;
use super::plan::{Maps, Plan, What};
use crate::error::Error;
use crate::proc;
use crate::spec::{Linux, NamespaceType, invalid};
use crate::sys::{self, Forked, MountAttr};

/// Detached idmapped copies of the sources that ask for it, by their place in
/// the plan.
pub(crate) fn sources(plan: &Plan, linux: &Linux) -> Result<Vec<(usize, OwnedFd)>, Error> {
    // Mounts often share their maps: one namespace a map is enough.
    let mut known: Vec<(Maps, OwnedFd)> = Vec::new();
    let mut sources = Vec::new();
    for (index, op) in plan.mounts.iter().enumerate() {
        let What::Bind {
            source,
            recursive,
            maps,
        } = &op.what
        else {
            continue;
        };
        if maps.is_none() && op.options.idmap.is_none() {
            continue;
        }
        let maps = maps.clone().map_or_else(|| implied(linux, index), Ok)?;
        if !known.iter().any(|(other, _)| *other == maps) {
            let namespace = user_namespace(&maps, linux)?;
            known.push((maps.clone(), namespace));
        }
        let namespace = known
            .iter()
            .find(|(other, _)| *other == maps)
            .map(|(_, fd)| fd.as_fd());
        let tree = clone_host(source, *recursive).map_err(Error::on("clone mount", source))?;
        let deep = op.options.idmap == Some(Recursive::Yes);
        sys::mount_setattr(tree.as_fd(), MountAttr::default(), deep, namespace)
            .map_err(Error::on("map the ids of", source))?;
        sources.push((index, tree));
    }
    Ok(sources)
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
