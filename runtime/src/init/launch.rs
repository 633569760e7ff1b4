//! Making init, and processes of `exec`, from the runtime's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::cgroup_view::View;
use super::child::{self, Console, Inherited, Start};
use super::exec;
use super::protocol::{self, FromInit, InitEnd, RuntimeEnd};
use super::{Failure, Plan};
use crate::cgroup::Doors;
use crate::error::Error;
use crate::rootfs::source::Sources;
use crate::sys::{self, Forked, SharedPage};
use crate::trace::{self, Who};
use crate::{namespace, protect};

/// A child that waits for our first word.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its pid here.
    pub pid: Pid,
    /// The same, safe against reuse.
    pub pidfd: OwnedFd,
    /// Our end of the talk.
    pub socket: RuntimeEnd,
    /// Whether it was born in the cgroup2 that was asked for.
    pub in_cgroup: bool,
}

/// What init gets beside its plan.
#[derive(Debug)]
pub(crate) struct Extras {
    /// Who says when to begin.
    pub start: Start,
    /// Where the terminal goes.
    pub console: Console,
    /// For a failure under the filter.
    pub page: Option<SharedPage>,
    /// How cgroups look from inside.
    pub cgroups: View,
    /// How init joins those of version 1.
    pub doors: Doors,
    /// Where bind mounts come from.
    pub sources: Sources,
}

/// Makes init in its namespaces, on a host with cgroup2 alone in `cgroup`.
pub(crate) fn init(
    plan: Plan,
    extras: Extras,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Launched, Error> {
    debug_assert!(sys::single_threaded(), "clone3 copies one thread only");
    let join = namespace::open(&plan.namespaces.join)?;
    let (ours, theirs) = protocol::pair().map_err(Error::at("create", "socket pair"))?;
    let flags = plan.namespaces.clone_flags;
    let Extras {
        start,
        console,
        page,
        cgroups,
        doors,
        sources,
    } = extras;
    let inherit = |socket, join| Inherited {
        socket,
        start,
        console,
        join,
        page,
        cgroups,
        doors,
        sources,
    };
    if !plan.namespaces.helper {
        let (forked, in_cgroup) = clone_into(flags, cgroup).map_err(Error::at("clone", "init"))?;
        return match forked {
            Forked::Child => {
                sys::reset_signals();
                child::main(plan, inherit(theirs, join))
            }
            Forked::Parent(pid, pidfd) => Ok(Launched {
                pid,
                pidfd,
                socket: ours,
                in_cgroup,
            }),
        };
    }
    match sys::clone3(0, None).map_err(Error::at("clone", "helper"))? {
        Forked::Child => {
            drop(ours);
            let inherited = inherit(theirs, join);
            trace::tell(&inherited.socket.0, Who::Helper);
            clone_joined(plan, inherited)
        }
        Forked::Parent(_, helper) => {
            drop(theirs);
            drop(join);
            adopt(ours, &helper)
        }
    }
}

/// What the helper does: it joins the namespaces and makes init in them. Whoever
/// is in a joined pid namespace already sees init from its first moment, so what
/// it must not hold is closed before there is one.
fn clone_joined(plan: Plan, mut inherited: Inherited) -> ! {
    // What it joins may have another /proc; init has these from here.
    sys::reset_signals();
    let kept = inherited.descriptors();
    let cloned = sys::close_all_but(3 + plan.preserve_fds, &kept)
        .map_err(super::Step::Other.on("close inherited descriptors"))
        .and_then(|()| trace::across_clocks(|| namespace::join(&inherited.join)))
        .and_then(|()| {
            trace::step("join namespaces for init");
            // Not into the cgroup: in another user namespace it is not ours to enter.
            sys::clone3(plan.namespaces.clone_flags | libc::CLONE_PARENT, None)
                .map_err(super::Step::Other.on("clone init"))
        });
    match cloned {
        Ok(Forked::Child) => {
            inherited.join.clear();
            child::main(plan, inherited)
        }
        Ok(Forked::Parent(pid, _)) => report(&inherited.socket, pid),
        Err(failure) => fail(&inherited.socket, &failure),
    }
}

/// `clone3(2)` into a cgroup2, or beside it where that cannot be: one that has
/// children with controllers (EBUSY), or that is not ours to enter. Whether the
/// child is in it.
fn clone_into(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> std::io::Result<(Forked, bool)> {
    if flags & libc::CLONE_NEWUSER == 0 || rustix::process::geteuid().is_root() {
        return clone_placed(flags, cgroup);
    }
    // The child hides itself when it is mapped.
    protect::show()?;
    let forked = clone_placed(flags, cgroup);
    if !matches!(forked, Ok((Forked::Child, _))) {
        protect::hide()?;
    }
    forked
}

fn clone_placed(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> std::io::Result<(Forked, bool)> {
    match sys::clone3(flags, cgroup) {
        Err(error)
            if cgroup.is_some()
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EACCES | libc::EOPNOTSUPP)
                ) =>
        {
            Ok((sys::clone3(flags, None)?, false))
        }
        forked => Ok((forked?, cgroup.is_some())),
    }
}

/// The helper's last words.
fn report(socket: &InitEnd, pid: Pid) -> ! {
    let sent = socket.pid(pid.as_raw_nonzero().get());
    sys::exit(i32::from(sent.is_err()));
}

fn fail(socket: &InitEnd, failure: &Failure) -> ! {
    socket.failed(failure);
    sys::exit(1);
}

/// Takes over the process that a helper made as our child.
fn adopt(socket: RuntimeEnd, helper: &OwnedFd) -> Result<Launched, Error> {
    let first = socket.receive().map_err(Error::at("talk to", "helper"))?;
    let wait = || waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED);
    rustix::io::retry_on_intr(wait).map_err(Error::at("wait for", "helper"))?;
    let gone = || Error::State("the helper that joins namespaces ended without a word".into());
    match first {
        FromInit::Pid(pid) => {
            let pid = Pid::from_raw(pid).ok_or_else(gone)?;
            // Our unreaped child: the number cannot mean another process.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .map_err(Error::at("open", "pidfd of init"))?;
            Ok(Launched {
                pid,
                pidfd,
                socket,
                in_cgroup: false,
            })
        }
        FromInit::Failed(failure) => Err(Error::Init(failure)),
        _ => Err(gone()),
    }
}

/// Makes a process in the namespaces of `init`. The pid namespace is joined
/// by ourselves, whose children it concerns and who make only this one;
/// where that is refused, by a helper that joins the user namespace first.
pub(crate) fn exec(
    mut plan: exec::Plan,
    init: OwnedFd,
    page: Option<SharedPage>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Launched, Error> {
    debug_assert!(sys::single_threaded(), "clone3 copies one thread only");
    let (ours, theirs) = protocol::pair().map_err(Error::at("create", "socket pair"))?;
    let pid_ns = ThreadNameSpaceType::PROCESS_ID;
    if plan.join.contains(pid_ns) {
        match move_into_thread_name_spaces(init.as_fd(), pid_ns) {
            Ok(()) => plan.join.remove(pid_ns),
            Err(Errno::PERM) if plan.joins_user => {
                return exec_helped(plan, init, page, (ours, theirs));
            }
            Err(errno) => return Err(Error::at("join", "pid namespace of the container")(errno)),
        }
    }
    let (forked, in_cgroup) = clone_into(0, cgroup).map_err(Error::at("clone", "process"))?;
    match forked {
        Forked::Child => exec::main(plan, theirs, init, page),
        Forked::Parent(pid, pidfd) => Ok(Launched {
            pid,
            pidfd,
            socket: ours,
            in_cgroup,
        }),
    }
}

fn exec_helped(
    mut plan: exec::Plan,
    init: OwnedFd,
    page: Option<SharedPage>,
    (ours, theirs): (RuntimeEnd, InitEnd),
) -> Result<Launched, Error> {
    let first = ThreadNameSpaceType::USER | ThreadNameSpaceType::PROCESS_ID;
    match sys::clone3(0, None).map_err(Error::at("clone", "helper"))? {
        Forked::Child => {
            drop(ours);
            trace::tell(&theirs.0, Who::Helper);
            let cloned = move_into_thread_name_spaces(init.as_fd(), first)
                .map_err(super::Step::Join.on("user and pid namespace of the container"))
                .and_then(|()| {
                    sys::clone3(libc::CLONE_PARENT, None)
                        .map_err(super::Step::Other.on("clone process"))
                });
            match cloned {
                Ok(Forked::Child) => {
                    plan.join.remove(first);
                    exec::main(plan, theirs, init, page)
                }
                Ok(Forked::Parent(pid, _)) => report(&theirs, pid),
                Err(failure) => fail(&theirs, &failure),
            }
        }
        Forked::Parent(_, helper) => {
            drop(theirs);
            adopt(ours, &helper)
        }
    }
}
