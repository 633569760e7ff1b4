//! What init does, from `clone3(2)` to `execve(2)`. Everything was decided
//! before; nothing here reads configuration.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::Mode;

use super::cgroup_view::View;
use super::protocol::{InitEnd, RuntimeEnd, ToInit};
use super::{Failure, Plan, Step, gate, sysctl};
use crate::cgroup::Doors;
use crate::hook::{self, Place};
use crate::process::apply::{self, Prepared};
use crate::process::execution::affinity;
use crate::process::keyring;
use crate::process::terminal::{self, Terminal};
use crate::rootfs::op::MountOp;
use crate::rootfs::source::Sources;
use crate::rootfs::{self, RootDir};
use crate::sys::{self, SharedPage};
use crate::trace::{self, Who};
use crate::{namespace, protect};

/// Where the master side of the terminal goes.
#[derive(Debug)]
pub(crate) enum Console {
    /// To the runtime, which copies in the foreground.
    Runtime,
    /// To whoever listens on the socket of `--console-socket`, connected.
    Socket(OwnedFd),
}

/// Who says when the program may begin.
#[derive(Debug)]
pub(crate) enum Start {
    /// The runtime that made us (`run`), when it has done what comes before.
    Runtime,
    /// Nobody: nothing comes before, and each word costs two switches of tasks.
    Nobody,
    /// A later `start`, at the gate.
    Gate(OwnedFd),
}

/// What init inherits from the runtime beside its plan.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Its end of the talk.
    pub socket: InitEnd,
    /// Who says when to begin.
    pub start: Start,
    /// Where the terminal goes.
    pub console: Console,
    /// Namespaces to join that no helper has joined already.
    pub join: Vec<namespace::Opened>,
    /// For a failure under the filter.
    pub page: Option<SharedPage>,
    /// How cgroups look from inside.
    pub cgroups: View,
    /// How to join those of version 1.
    pub doors: Doors,
    /// Where bind mounts come from.
    pub sources: Sources,
}

impl Inherited {
    /// Descriptors that must stay open in the child.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = vec![self.socket.0.as_raw_fd()];
        all.extend(self.join.iter().map(|(_, _, fd)| fd.as_raw_fd()));
        all.extend(self.doors.descriptors());
        all.extend(self.sources.namespaces.descriptors());
        if let Start::Gate(gate) = &self.start {
            all.push(gate.as_raw_fd());
        }
        if let Console::Socket(socket) = &self.console {
            all.push(socket.as_raw_fd());
        }
        all
    }
}

/// Runs init, whose signals have their defaults; leaves only by execve or _exit.
pub(crate) fn main(plan: Plan, inherited: Inherited) -> ! {
    let preserved = plan.preserve_fds;
    if let Err(error) = sys::close_all_but(3 + preserved, &inherited.descriptors()) {
        inherited
            .socket
            .failed(&Step::Other.on("close inherited descriptors")(error));
        sys::exit(1);
    }
    trace::tell(&inherited.socket.0, Who::Init);
    let mut init = Init {
        inherited,
        helper: None,
        joined: false,
        unshare_cgroup: plan.namespaces.unshare_cgroup,
        debug: plan.debug,
        rootless: plan.rootless,
    };
    let (connection, failure) = match init.prepare(plan) {
        Ok(ready) => init.begin(ready),
        Err(failure) => (None, failure),
    };
    connection
        .as_ref()
        .unwrap_or(&init.inherited.socket)
        .failed(&failure);
    sys::exit(1);
}

struct Init {
    inherited: Inherited,
    /// Who looks up bind sources for us, once we have asked.
    helper: Option<RuntimeEnd>,
    /// Whether the cgroups are joined and their namespace is entered.
    joined: bool,
    unshare_cgroup: bool,
    /// Whether the runtime wants to hear what is done.
    debug: bool,
    /// Whether the runtime can only reach a process that is not protected.
    rootless: bool,
}

/// What was prepared below the new root: mounts still to be made or sealed,
/// the terminal, and our pid where hooks are told.
type Settled<'a> = (rootfs::apply::Late<'a>, Option<Terminal>, Option<i32>);

/// What is left when everything is set up.
struct Ready {
    prepared: Prepared,
    filter: Option<apply::Filter>,
    hooks: super::Hooks,
    pid: Option<i32>,
}

impl rootfs::apply::Caller for Init {
    fn mount_cgroups(&mut self, target: OwnedFd, op: &MountOp) -> Result<(), Failure> {
        self.enter_cgroups()?;
        self.inherited.cgroups.mount(target, op)
    }
}

impl rootfs::source::Helper for Init {
    fn take(&mut self, index: usize) -> std::io::Result<OwnedFd> {
        let helper = match self.helper.take() {
            Some(helper) => helper,
            None => self.inherited.socket.helper()?,
        };
        super::source::ask(self.helper.insert(helper), index)
    }
}

impl Init {
    fn debug(&self, text: &str) {
        if self.debug {
            self.inherited.socket.debug(text);
        }
    }

    fn prepare(&mut self, plan: Plan) -> Result<Ready, Failure> {
        self.inherited.socket.expect(ToInit::Go)?;
        trace::step("be let begin");
        if self.debug {
            introduce(&self.inherited.socket);
        }
        if plan.namespaces.clone_flags & libc::CLONE_NEWUSER != 0 {
            protect::hide().map_err(Step::Talk.on("PR_SET_DUMPABLE"))?;
        }
        rustix::process::setsid().map_err(Step::Session.on(""))?;
        trace::across_clocks(|| namespace::join(&self.inherited.join))?;
        if plan.namespaces.unshare_time {
            self.enter_time_namespace(!plan.namespaces.time_offsets.is_empty())?;
        }
        trace::step("enter the namespaces");
        rustix::process::umask(Mode::empty());
        let root = rootfs::apply::open(&plan.rootfs)?;
        trace::step("open the root file system");
        if plan.namespaces.root_mapped {
            become_root()?;
        }
        if plan.namespaces.unshare_ipc {
            namespace::unshare_ipc()?;
        }
        if plan.namespaces.clone_flags & libc::CLONE_NEWNET != 0 {
            sys::raise_loopback().map_err(Step::Other.on("switch on the loopback device"))?;
        }
        let outside = self.settle(&plan, &root);
        let (mut late, terminal, pid) =
            outside.inspect_err(|_| rootfs::apply::abandon(&plan.rootfs))?;
        let cwd = apply::open_cwd(&root, &plan.process.cwd)?;
        rootfs::apply::seal(&plan.rootfs, &root, &mut late)?;
        trace::step("mask paths and switch to the root");
        self.debug("init: the root is switched");
        let cwd = apply::enter(cwd, &plan.process.cwd)?;
        drop(root);
        if let Some(name) = &plan.keyring {
            keyring::make(name, plan.process.key_label.as_ref())?;
        }
        if let Some(terminal) = terminal {
            terminal.become_streams()?;
        }
        self.enter_cgroups()?;
        for (op, target) in late.cgroups {
            self.inherited.cgroups.mount(target, op)?;
            trace::step_of(|| format!("mount the cgroups on {:?}", op.target));
        }
        affinity::reset();
        let prepared = apply::prepare(plan.process, plan.filter.is_some(), cwd)?;
        trace::step("take on ids and privileges, find the program");
        // runc's words for this moment, which scripts look for.
        self.debug("init: closing the pipe to signal completion");
        Ok(Ready {
            prepared,
            filter: plan.filter,
            hooks: plan.hooks,
            pid,
        })
    }

    /// What is done below the new root while the old one is still there:
    /// mounts, hooks, terminal, names, kernel parameters.
    fn settle<'a>(&mut self, plan: &'a Plan, root: &RootDir) -> Result<Settled<'a>, Failure> {
        let sources = std::mem::take(&mut self.inherited.sources);
        let late = rootfs::apply::build(&plan.rootfs, root, &sources, self)?;
        // Whoever looked up sources for us ends with the connection.
        self.helper = None;
        drop(sources);
        self.debug("init: the root file system is mounted");
        let pid = if plan.hooks.before_switch() || !plan.hooks.start_container.is_empty() {
            own_pid()
        } else {
            None
        };
        if plan.hooks.before_switch() {
            // Hooks may count on limits and cgroups.
            self.enter_cgroups()?;
            self.hooks_before_switch(&plan.hooks, pid, root)?;
        }
        let terminal = match plan.process.terminal {
            Some(size) => Some(self.terminal(root, size, plan.process.uid)?),
            None => None,
        };
        name_host(plan)?;
        sysctl::apply(&plan.sysctl)?;
        trace::step("name the host and set its parameters");
        Ok((late, terminal, pid))
    }

    /// Waits for the start and becomes the program. Returns the connection
    /// over which the failure is to be reported, and the failure.
    fn begin(&self, ready: Ready) -> (Option<InitEnd>, Failure) {
        let Inherited { socket, start, .. } = &self.inherited;
        let reachable = match start {
            Start::Gate(_) => become_reachable(self.rootless),
            Start::Runtime | Start::Nobody => Ok(()),
        };
        let told = reachable.and_then(|()| socket.ready());
        let waited = told.and_then(|()| match start {
            Start::Runtime => socket.expect(ToInit::Start).map(|()| None),
            Start::Nobody => Ok(None),
            Start::Gate(listener) => knocked(listener).map(Some),
        });
        let connection = match waited {
            Ok(connection) => connection,
            Err(failure) => return (None, failure),
        };
        let state = ready.hooks.state("created", ready.pid);
        let hooks = &ready.hooks.start_container;
        let page = self.inherited.page.as_ref();
        let mut filter = ready.filter.as_ref();
        // Hooks run under the filter. Each loads it for itself, so that it need
        // not allow what starting them takes; but a filter that asks an agent
        // has one listener, and is loaded once, for all.
        if !hooks.is_empty()
            && filter.is_some_and(apply::Filter::notifies)
            && let Err(failure) = ready.prepared.filter(filter.take(), page)
        {
            return (connection, failure);
        }
        let place = Place::Inside(&ready.prepared, filter);
        if let Err((index, error)) = hook::run_all(hooks, &state, place) {
            return (connection, hook_failure("startContainer", index, &error));
        }
        if !hooks.is_empty() {
            trace::step("run the startContainer hooks");
        }
        let failure = ready.prepared.execute(filter, page);
        (connection, failure)
    }

    /// Joins the cgroups that we were not born in, then leaves the namespace:
    /// it shows as root what we are in at this moment.
    fn enter_cgroups(&mut self) -> Result<(), Failure> {
        if self.joined {
            return Ok(());
        }
        enter(std::mem::take(&mut self.inherited.doors))?;
        trace::step("join the cgroups");
        self.joined = true;
        if self.unshare_cgroup {
            namespace::unshare_cgroup()?;
        }
        Ok(())
    }

    fn enter_time_namespace(&self, with_offsets: bool) -> Result<(), Failure> {
        namespace::unshare_time()?;
        if with_offsets {
            if self.rootless {
                protect::show().map_err(Step::Talk.on("PR_SET_DUMPABLE"))?;
            }
            self.inherited.socket.unshared()?;
            self.inherited.socket.expect(ToInit::Offset)?;
            protect::hide().map_err(Step::Talk.on("PR_SET_DUMPABLE"))?;
        }
        Ok(())
    }

    fn hooks_before_switch(
        &self,
        hooks: &super::Hooks,
        pid: Option<i32>,
        root: &RootDir,
    ) -> Result<(), Failure> {
        if hooks.runtime_has_any {
            self.inherited.socket.mounted()?;
            self.inherited.socket.expect(ToInit::Hooked)?;
        }
        // They find the container's files by relative names, as with runc.
        rustix::process::fchdir(root).map_err(Step::Rootfs.on("as working directory of hooks"))?;
        hook::run_all(
            &hooks.create_container,
            &hooks.state("creating", pid),
            Place::Here,
        )
        .map_err(|(index, error)| hook_failure("createContainer", index, &error))?;
        trace::step("run the hooks before the root is switched");
        Ok(())
    }

    fn terminal(
        &self,
        root: &RootDir,
        size: Option<crate::spec::ConsoleSize>,
        uid: u32,
    ) -> Result<Terminal, Failure> {
        let terminal = terminal::open(root, size, uid)?;
        terminal.bind_console(root)?;
        hand_over(&self.inherited.console, &self.inherited.socket, &terminal)?;
        Ok(terminal)
    }
}

/// Lets come what may come once the container is created: an `exec`, which must
/// reach the namespaces, and a signal, which must end us.
fn become_reachable(rootless: bool) -> Result<(), Failure> {
    if rootless {
        protect::show().map_err(Step::Gate.on("PR_SET_DUMPABLE"))?;
    }
    sys::end_on_signals().map_err(Step::Gate.on("signals"))
}

/// Waits at the gate. Whoever made us has stopped listening meanwhile.
fn knocked(listener: &OwnedFd) -> Result<InitEnd, Failure> {
    trace::fall_silent();
    let (connection, traced) = gate::wait(listener.as_fd()).map_err(Step::Gate.on("the gate"))?;
    if traced {
        trace::tell_from_now_on(&connection.0, Who::Init);
        trace::step("be let start");
    }
    Ok(connection)
}

/// Gives the master side away.
pub(super) fn hand_over(
    console: &Console,
    socket: &InitEnd,
    terminal: &Terminal,
) -> Result<(), Failure> {
    match console {
        Console::Runtime => {
            terminal.show_elsewhere()?;
            socket.terminal(&terminal.master)
        }
        Console::Socket(console) => {
            super::protocol::send_with_fd(console, b"/dev/ptmx", &terminal.master)
                .map_err(Step::Terminal.on("send it to the console socket"))
        }
    }
}

fn hook_failure(kind: &str, index: usize, error: &hook::Error) -> Failure {
    let hook = format!("{kind} hook #{index}");
    let place = format!("/hooks/{kind}/{index}");
    let failure = match error {
        hook::Error::Start { path, source } => Failure {
            errno: source.raw_os_error().unwrap_or(0),
            ..Step::Hook.refuses(hook, path)
        },
        error => Step::Hook.refuses(hook, error.to_string()),
    };
    failure.at(&place)
}

/// Takes the ids 0 of the user namespace, in whose name files are made.
pub(crate) fn become_root() -> Result<(), Failure> {
    use rustix::fs::{Gid, Uid};
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(Step::MapIds.on("group 0"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Step::MapIds.on("user 0"))
}

fn name_host(plan: &Plan) -> Result<(), Failure> {
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes())
            .map_err(Step::Hostname.on(format!("{:?}", plan.hostname)))?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes())
            .map_err(Step::Domainname.on(format!("{:?}", plan.domainname)))?;
    }
    Ok(())
}

/// Our pid as the host sees it, from the host's procfs.
fn own_pid() -> Option<i32> {
    let link = rustix::fs::readlink("/proc/self", Vec::new()).ok()?;
    link.to_str().ok()?.parse().ok()
}

/// The first words of a new process, those of runc that scripts look for.
pub(super) fn introduce(socket: &InitEnd) {
    let pid = rustix::process::getpid();
    socket.debug(&format!("nsexec[{pid}]: => nsexec container setup"));
    if let Some(mask) = affinity::shown() {
        socket.debug(&format!("nsexec[{pid}]: affinity: {mask}"));
    }
    socket.debug("child process in init()");
}

/// Joins the cgroups of version 1.
pub(super) fn enter(doors: Doors) -> Result<(), Failure> {
    doors
        .enter()
        .map_err(|(errno, path)| Step::Cgroup.on(path.display().to_string())(errno))
}
