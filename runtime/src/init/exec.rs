//! A process that `exec` adds to a container: it joins what init made.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;

use super::child::{Console, become_root, enter, hand_over, introduce};
use super::protocol::{InitEnd, ToInit};
use super::{Failure, Step};
use crate::cgroup::Doors;
use crate::process::apply::{self, Prepared};
use crate::process::{keyring, terminal};
use crate::rootfs::RootDir;
use crate::sys::{self, SharedPage};
use crate::trace::{self, Who};

/// Everything that a process added by `exec` needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The program.
    pub process: crate::process::Plan,
    /// The filter to load last.
    pub filter: Option<apply::Filter>,
    /// Namespaces of the container to join.
    pub join: ThreadNameSpaceType,
    /// Whether there is a user namespace among them.
    pub joins_user: bool,
    /// Name of the container's session keyring, unless its maker wanted none.
    pub keyring: Option<std::ffi::CString>,
    /// How many descriptors after the standard ones the program inherits.
    pub preserve_fds: u32,
    /// Whether the process tells the runtime what it does (`--debug`).
    pub debug: bool,
    /// Where the terminal goes.
    pub console: Console,
    /// How to join the cgroups of version 1.
    pub doors: Doors,
}

/// Runs a process of `exec`; leaves only by execve or _exit.
pub(crate) fn main(plan: Plan, socket: InitEnd, init: OwnedFd, page: Option<SharedPage>) -> ! {
    let mut keep = vec![socket.0.as_raw_fd(), init.as_raw_fd()];
    keep.extend(plan.doors.descriptors());
    if let Console::Socket(console) = &plan.console {
        keep.push(console.as_raw_fd());
    }
    let (filter, debug) = (plan.filter.clone(), plan.debug);
    let result = sys::close_all_but(3 + plan.preserve_fds, &keep)
        .map_err(Step::Other.on("close inherited descriptors"))
        .and_then(|()| {
            trace::tell(&socket.0, Who::Process);
            prepare(plan, &socket, init)
        });
    let failure = match result {
        Ok(prepared) => {
            if debug {
                // runc's words for this moment, which scripts look for.
                socket.debug("setns_init: about to exec");
            }
            prepared.execute(filter.as_ref(), page.as_ref())
        }
        Err(failure) => failure,
    };
    socket.failed(&failure);
    sys::exit(1);
}

fn prepare(plan: Plan, socket: &InitEnd, init: OwnedFd) -> Result<Prepared, Failure> {
    sys::reset_signals();
    socket.expect(ToInit::Go)?;
    trace::step("be let begin");
    if plan.debug {
        introduce(socket);
    }
    enter(plan.doors)?;
    trace::step("join the cgroups");
    plan.process.execution.affinity.settle()?;
    let join = || rustix::thread::move_into_thread_name_spaces(init.as_fd(), plan.join);
    trace::across_clocks(join).map_err(Step::Join.on("namespaces of the container"))?;
    drop(init);
    trace::step("enter the namespaces");
    rustix::process::setsid().map_err(Step::Session.on(""))?;
    if plan.joins_user {
        become_root()?;
    }
    if let Some(name) = &plan.keyring {
        keyring::join(name, plan.process.key_label.as_ref())?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        RootDir(rustix::fs::open("/", flags, Mode::empty()).map_err(Step::Rootfs.on("\"/\""))?);
    let cwd = apply::open_cwd(&root, &plan.process.cwd)?;
    if let Some(size) = plan.process.terminal {
        let terminal = terminal::open(&root, size, plan.process.uid)?;
        hand_over(&plan.console, socket, &terminal)?;
        terminal.become_streams()?;
    }
    let cwd = apply::enter(cwd, &plan.process.cwd)?;
    drop(root);
    let prepared = apply::prepare(plan.process, plan.filter.is_some(), cwd)?;
    trace::step("take on ids and privileges, find the program");
    Ok(prepared)
}
