//! `mounts add` and `mounts remove`: mounts of a container that is there
//! already, as crun has them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::Deserialize;

use crate::container::delete::init_of;
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::child::become_root;
use crate::init::protocol::{self, FromInit, InitEnd};
use crate::init::{Failure, Step};
use crate::log::Log;
use crate::rootfs::idmap::Namespaces;
use crate::rootfs::mount::source_failure;
use crate::rootfs::op::{self, MountOp, What};
use crate::rootfs::{RootDir, later, source};
use crate::spec::{Linux, Mount};
use crate::state::{Root, State};
use crate::sys::{self, Forked};

/// Largest file with mounts, in bytes; see the limit of `config.json`.
const MOUNTS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Mount them.
    Add,
    /// Take them off; of a mount only its destination counts.
    Remove,
}

/// A file with mounts: the list, or an object that has it as `config.json` has.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Bare(Vec<Mount>),
    Inside { mounts: Vec<Mount> },
}

/// Changes the mounts of a container as a file says.
pub(crate) fn change(
    root: &Root,
    id: &ContainerId,
    change: Change,
    file: &str,
    log: &Log,
) -> Result<(), Error> {
    let locked = root.open(id)?.lock()?;
    let state = locked.dir().load()?;
    let stopped = || Error::State("container not running".into());
    let init = init_of(&state)?.ok_or_else(stopped)?;
    let (ops, warnings) = read(file, &state)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    let trees = match change {
        Change::Add => sources(&ops).map_err(Error::Mounts)?,
        Change::Remove => Vec::new(),
    };
    let (join, joins_user) = super::exec::namespaces(&state)?;
    // Nothing that is mounted here asks for it.
    let join = join.difference(ThreadNameSpaceType::PROCESS_ID);
    let (ours, theirs) = protocol::pair().map_err(Error::at("create", "socket pair"))?;
    match sys::clone3(0, None).map_err(Error::at("clone", "process"))? {
        Forked::Child => {
            let place = Place {
                join,
                joins_user,
                init,
            };
            let done = place.enter(&theirs, &trees).and_then(|root| match change {
                Change::Add => later::add(&root, &ops, trees),
                Change::Remove => later::remove(&root, &ops),
            });
            finish(&theirs, done)
        }
        Forked::Parent(_, pidfd) => {
            drop(theirs);
            let said = ours.receive().map_err(Error::at("talk to", "process"));
            let wait = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            rustix::io::retry_on_intr(wait).map_err(Error::at("wait for", "process"))?;
            match said? {
                FromInit::Ready => Ok(()),
                FromInit::Failed(failure) => Err(Error::Mounts(failure)),
                _ => Err(Error::State(
                    "the process that mounts ended without a word".into(),
                )),
            }
        }
    }
}

fn finish(socket: &InitEnd, done: Result<(), Failure>) -> ! {
    match done.and_then(|()| socket.ready()) {
        Ok(()) => sys::exit(0),
        Err(failure) => {
            socket.failed(&failure);
            sys::exit(1)
        }
    }
}

/// The mounts that a file lists, and words about what is left out of them.
fn read(path: &str, state: &State) -> Result<(Vec<MountOp>, Vec<String>), Error> {
    let file = File::open(path).map_err(Error::on("open", path))?;
    let text = crate::file::read_open(file, MOUNTS_BYTES_MAX).map_err(Error::on("read", path))?;
    let listed = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })?;
    let (Listed::Bare(mounts) | Listed::Inside { mounts }) = listed;
    let mut warnings = Vec::new();
    let plan = |(index, mount): (usize, &Mount)| {
        let field = format!("mounts[{index}]");
        op::plan(mount, &state.bundle, &state.rootfs, &field, &mut warnings)
    };
    let ops = mounts
        .iter()
        .enumerate()
        .map(plan)
        .collect::<Result<_, _>>()?;
    Ok((ops, warnings))
}

/// Detached copies of the bind sources: as the host sees them, and mapped with
/// the host's privileges.
fn sources(ops: &[MountOp]) -> Result<Vec<OwnedFd>, Failure> {
    let mapped = Namespaces::make(ops, &Linux::default())
        .map_err(|error| Step::Mount.says(error.chain()))?;
    let mut trees = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        match &op.what {
            What::Bind { source: from, .. } => {
                let taken = source::take(index, op, &mapped);
                trees.push(taken.map_err(|error| source_failure(from, &op.target, error))?);
            }
            What::Cgroup => return Err(later::refused(op)),
            What::Filesystem { kind, .. } if kind == "proc" => return Err(later::refused(op)),
            What::Filesystem { .. } | What::Remount => (),
        }
    }
    Ok(trees)
}

/// Where a container is.
struct Place {
    join: ThreadNameSpaceType,
    joins_user: bool,
    init: OwnedFd,
}

impl Place {
    /// Enters the container's namespaces; its root.
    fn enter(&self, socket: &InitEnd, trees: &[OwnedFd]) -> Result<RootDir, Failure> {
        let mut keep = vec![socket.0.as_raw_fd(), self.init.as_raw_fd()];
        keep.extend(trees.iter().map(AsRawFd::as_raw_fd));
        sys::close_all_but(3, &keep).map_err(Step::Other.on("close inherited descriptors"))?;
        move_into_thread_name_spaces(self.init.as_fd(), self.join)
            .map_err(Step::Join.on("namespaces of the container"))?;
        if self.joins_user {
            become_root()?;
        }
        rustix::process::umask(Mode::empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(Path::new("/"), flags, Mode::empty());
        Ok(RootDir(root.map_err(Step::Rootfs.on("\"/\""))?))
    }
}
