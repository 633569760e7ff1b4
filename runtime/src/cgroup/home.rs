//! How a container's init comes into its cgroups.

use rustix::process::Pid;

use super::dir::Dir;
use super::{Doors, Error, Group, Paths, Plan, systemd};

/// The cgroups of a container that is being made.
#[derive(Debug)]
pub(crate) enum Home {
    /// They are there: init is born in them, or walks in.
    Made(Group),
    /// systemd makes them around an init that is there, for an owner.
    Asked(systemd::Start, Option<u32>),
}

impl Home {
    /// Sets the limits, before anyone is there: while device rules are written,
    /// version 1 may deny every device. systemd sets them with the rest.
    pub(crate) fn limit(&self, plan: &Plan) -> Result<(), Error> {
        match self {
            Self::Made(group) => group.apply(plan),
            Self::Asked(..) => Ok(()),
        }
    }

    /// The cgroup2 for a new process, and the way into the hierarchies of
    /// version 1; neither where systemd moves it.
    pub(crate) fn ways_in(&self) -> Result<(Option<Dir>, Doors), Error> {
        match self {
            Self::Made(group) => Ok((group.birthplace(&[])?, group.doors(&[])?)),
            Self::Asked(..) => Ok((None, Doors::default())),
        }
    }

    /// Takes init in, which waits: into `birthplace` where it was to be born
    /// and was not, or with systemd into all.
    pub(crate) fn take_in(
        self,
        init: Pid,
        birthplace: Option<&Dir>,
        paths: &Paths,
        plan: &Plan,
    ) -> Result<(), Error> {
        match (self, birthplace) {
            (Self::Made(group), Some(birthplace)) => group.settle(birthplace, init, plan),
            (Self::Made(_), None) => Ok(()),
            (asked @ Self::Asked(..), _) => asked.adopt(init, paths, plan),
        }
    }

    /// Takes in a process that was born elsewhere, into all.
    pub(crate) fn adopt(self, pid: Pid, paths: &Paths, plan: &Plan) -> Result<(), Error> {
        match self {
            Self::Made(group) => group.adopt(pid, plan),
            Self::Asked(start, owner) => {
                let group = start.enter(pid, paths, plan)?;
                owner.map_or(Ok(()), |uid| group.hand_over(uid))
            }
        }
    }
}
