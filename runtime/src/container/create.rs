//! `create`, and the first half of `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::cgroup::{self, Group, Home, Layout, systemd};
use crate::container::bring_up::{self, Aid, Orders};
use crate::container::foreground::caller_size;
use crate::container::service::{Service, notify};
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::cgroup_view::View;
use crate::init::child::{Console, Start};
use crate::init::launch::{self, Extras, Launched};
use crate::init::{self, Wishes, gate};
use crate::log::Log;
use crate::process::apply::Filter;
use crate::spec::resources::Resources;
use crate::spec::seccomp::Seccomp;
use crate::spec::{NamespaceType, Spec, invalid};
use crate::state::{Locked, Phase, Root, State};
use crate::sys::{self, SharedPage};
use crate::{hook, netlink, resctrl, seccomp, trace};

/// File with the compiled filter, in the state directory.
pub(crate) const SECCOMP: &str = "seccomp";

/// File with the page for failures under the filter, in the state directory.
pub(crate) const FAILURE: &str = "failure";

/// What the caller wants.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// All containers.
    pub root: &'a Root,
    /// The new one.
    pub id: &'a ContainerId,
    /// Absolute path.
    pub bundle: PathBuf,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// Whether the runtime starts the program itself (`run`).
    pub run: bool,
    /// Whether the runtime does not stay (`create`, `run --detach`).
    pub detached: bool,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// What a service manager hands on to the container.
    pub service: Service,
    /// The rest.
    pub wishes: Wishes,
    /// Where warnings go.
    pub log: &'a Log,
}

impl Request<'_> {
    /// Whether something comes before init's program: someone is told of it, or
    /// its readiness will be listened for.
    fn announces(&self) -> bool {
        self.pid_file.is_some() || self.pidfd_socket.is_some() || self.service.notify.is_some()
    }
}

/// A container whose init waits for its start.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its directory, locked.
    pub locked: Locked,
    /// Its state, as saved.
    pub state: State,
    /// Its init.
    pub init: Launched,
    /// Master side of its terminal, where the runtime stays in the foreground.
    pub master: Option<OwnedFd>,
    /// Where a failure under the filter appears.
    pub page: Option<SharedPage>,
    /// Whether init waits to be told to start. A word that it does not read
    /// would take the place of its own last one (`unix(7)`: ECONNRESET).
    pub waits: bool,
}

/// Everything decided before the first side effect.
pub(crate) struct Prepared {
    /// The configuration.
    pub spec: Spec,
    /// What init does.
    pub init: init::Plan,
    /// Where the cgroups will be.
    pub paths: cgroup::Paths,
    /// What is written to them.
    pub cgroups: cgroup::Plan,
    /// The unit that systemd is to be asked for, where it is.
    pub systemd: Option<systemd::Start>,
    /// Cache and memory bandwidth, where the configuration asks for them.
    pub resctrl: Option<resctrl::Plan>,
    /// Where the terminal goes.
    pub console: Console,
    /// Network devices to be moved.
    pub net_devices: Vec<netlink::Wish>,
}

/// Creates the container; on failure nothing of it is left.
pub(crate) fn create(request: &Request<'_>) -> Result<Created, Error> {
    let prepared = prepare(request)?;
    trace::step("plan the container");
    let (process, rootfs) = (&prepared.init.process, &prepared.init.rootfs);
    for warning in process.warnings.iter().chain(&rootfs.warnings) {
        request.log.warn(warning);
    }
    let rootfs = prepared.init.rootfs.rootfs.clone();
    let mut state = State::intent(
        request.id,
        &prepared.spec,
        &request.bundle,
        &rootfs,
        prepared.paths.clone(),
    );
    state.callers_keyring = request.wishes.no_new_keyring;
    state.resctrl = prepared.resctrl.as_ref().map(|plan| plan.group.clone());
    state.unit = prepared.systemd.as_ref().map(|start| start.unit().clone());
    let mut locked = request.root.create(request.id)?;
    let made = locked
        .save(&state)
        .and_then(|()| match request.service.notify {
            Some(_) => notify::make_folder(&locked),
            None => Ok(()),
        })
        .and_then(|()| make(request, prepared, &mut locked, &mut state));
    match made {
        Ok((init, master, page)) => Ok(Created {
            locked,
            state,
            init,
            master,
            page,
            waits: request.announces(),
        }),
        Err(error) => {
            // The reason is worth more than what the cleaning may say.
            if !error.is_of_others() {
                let _ = cgroup::destroy(state.unit.as_ref(), &state.cgroups);
            }
            let _ = state.resctrl.as_ref().map(resctrl::Group::remove);
            let _ = locked.remove();
            Err(error)
        }
    }
}

/// Decides everything, without a side effect.
pub(crate) fn prepare(request: &Request<'_>) -> Result<Prepared, Error> {
    let mut spec = Spec::load(&request.bundle)?;
    trace::step("read and check config.json");
    let folder = request.root.place(request.id);
    request.service.hand_on(&mut spec, &folder);
    let mut init = init::Plan::new(&spec, request.id, &request.bundle, &request.wishes)?;
    if let Some(profile) = &spec.linux.seccomp {
        init.filter = compile(profile)?;
        tell_flags(init.filter.as_ref(), request.log);
    }
    let mut resources = spec.linux.resources.clone().unwrap_or_default();
    let (systemd, paths) = place(request, &spec, &mut resources)?;
    let cgroups = cgroup::Plan::new(&resources, &paths)?;
    let resctrl = match &spec.linux.intel_rdt {
        Some(rdt) => Some(resctrl::Plan::new(
            rdt,
            request.id.as_str(),
            resctrl::root().as_deref(),
        )?),
        None => None,
    };
    let console = console(request, init.process.terminal.is_some())?;
    let rootless = !rustix::process::geteuid().is_root();
    let net_devices = netlink::plan(&spec.linux, rootless)?;
    if init.process.terminal == Some(None) && !request.detached {
        init.process.terminal = Some(caller_size());
    }
    if !init.rootfs.rootfs.is_dir() {
        return Err(invalid(
            "root.path",
            &format!("{:?} is not a directory", init.rootfs.rootfs),
        ));
    }
    Ok(Prepared {
        spec,
        init,
        paths,
        cgroups,
        resctrl,
        systemd,
        console,
        net_devices,
    })
}

/// Where the cgroups will be, and who is to be asked for them.
fn place(
    request: &Request<'_>,
    spec: &Spec,
    resources: &mut Resources,
) -> Result<(Option<systemd::Start>, cgroup::Paths), Error> {
    let layout = Layout::discover()?;
    let (path, id) = (spec.linux.cgroups_path.as_str(), request.id.as_str());
    if !request.systemd_cgroup {
        return Ok((None, layout.place(Some(path), id)?));
    }
    let wish = systemd::Wish {
        path,
        id,
        user: request
            .wishes
            .rootless
            .map_or_else(cgroup::is_unprivileged, Ok)?,
        annotations: &spec.annotations,
    };
    let (start, paths) = systemd::Start::plan(&wish, resources, &layout)?;
    Ok((Some(start), paths))
}

/// Compiles a profile; an empty one is none.
fn compile(profile: &Seccomp) -> Result<Option<Filter>, Error> {
    let Some(program) = seccomp::compile(profile)? else {
        return Ok(None);
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    Ok(Some(Filter {
        program: program.filter,
        flags: u64::from(program.flags) | if program.notifies { listener } else { 0 },
    }))
}

/// Says which flags the filter has: in runc's words, which scripts look for.
pub(crate) fn tell_flags(filter: Option<&Filter>, log: &Log) {
    if let Some(filter) = filter {
        log.debug(|| format!("seccomp filter flags: {}", filter.flags));
    }
}

/// Where the terminal goes: to the caller's socket when nobody stays.
pub(crate) fn console(request: &Request<'_>, terminal: bool) -> Result<Console, Error> {
    match (&request.console_socket, terminal, request.detached) {
        (Some(path), true, true) => Ok(Console::Socket(connect(path)?)),
        (None, _, false) | (None, false, true) => Ok(Console::Runtime),
        (None, true, true) => Err(Error::Usage(
            "cannot allocate tty if the runtime will detach without setting console socket: give --console-socket".into(),
        )),
        (Some(_), ..) => Err(Error::Usage(
            "cannot use console socket if the runtime will not detach or allocate tty".into(),
        )),
    }
}

/// Connects to a socket of the caller.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, Error> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(Error::at("create", "socket"))?;
    let address = SocketAddrUnix::new(path).map_err(Error::on("connect to", path))?;
    rustix::net::connect(&socket, &address).map_err(Error::on("connect to", path))?;
    Ok(socket)
}

type Made = (Launched, Option<OwnedFd>, Option<SharedPage>);

fn make(
    request: &Request<'_>,
    prepared: Prepared,
    locked: &mut Locked,
    state: &mut State,
) -> Result<Made, Error> {
    let Prepared {
        spec,
        mut init,
        cgroups,
        paths,
        systemd,
        resctrl,
        console,
        net_devices,
    } = prepared;
    trace::step("record the intent");
    let resctrl = resctrl.as_ref();
    let home = make_groups(request, &spec, &cgroups, resctrl, systemd, locked, state)?;
    trace::step("make the cgroups");
    warn_of_strays(&spec, state, request.log);
    let page = shared_page(&init, locked, request.run)?;
    if let Some(filter) = &init.filter {
        super::exec::save_filter(locked, filter)?;
    }
    let child_page = page.as_ref().map(SharedPage::share);
    let start = if !request.run {
        Start::Gate(gate::make(locked.dir()).map_err(Error::at("make", "start gate"))?)
    } else if request.announces() {
        Start::Runtime
    } else {
        Start::Nobody
    };
    let own_cgroup = spec.linux.namespace(NamespaceType::Cgroup).is_some();
    let view = View::new(&visible(&state.cgroups, &paths)?, own_cgroup);
    let orders = Orders {
        maps: init.namespaces.maps.take(),
        time_offsets: init.namespaces.time_offsets.clone(),
        oom_score_adj: init.process.oom_score_adj,
        net_devices,
        network: spec.linux.namespace(NamespaceType::Network).cloned(),
    };
    home.limit(&cgroups)?;
    trace::step("set the limits");
    let (birthplace, doors) = home.ways_in()?;
    let (sources, store) = bring_up::sources(&init, &spec)?;
    let extras = Extras {
        start,
        console,
        page: child_page,
        cgroups: view,
        doors,
        sources,
    };
    let launched = launch::init(init, extras, birthplace.as_ref().map(AsFd::as_fd))?;
    trace::step_of(|| format!("clone init, pid {}", launched.pid));
    let stranger = birthplace.filter(|_| !launched.in_cgroup);
    let join = || Ok(home.take_in(launched.pid, stranger.as_ref(), &paths, &cgroups)?);
    let (log, mut aid) = (request.log, Aid::default());
    let brought_up = bring_up::introduce(&launched, locked, state, &orders, &mut aid, log, join)
        .and_then(|()| bring_up::hand_out(request.pidfd_socket.as_deref(), &launched.pidfd))
        .and_then(|()| bring_up::converse(&launched, &spec, state, store.as_ref(), &mut aid, log))
        .and_then(|master| finish(request, locked, state).map(|()| master));
    let brought_up = brought_up.map_err(|error| {
        // Counted before the kill, and gone with the cgroup.
        let short_of_memory = cgroup::kills(&state.cgroups) > 0;
        let _ = sys::pidfd_signal(launched.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(&launched);
        if short_of_memory {
            Error::OutOfMemory(Box::new(error))
        } else {
            error
        }
    });
    aid.end(brought_up.is_ok());
    brought_up.map(|master| (launched, master, page))
}

/// Makes the resctrl group and the cgroups that the state names, gives those to
/// their owner, and corrects the state where one could not be had. What systemd
/// is to make, it makes later, around init.
pub(crate) fn make_groups(
    request: &Request<'_>,
    spec: &Spec,
    cgroups: &cgroup::Plan,
    resctrl: Option<&resctrl::Plan>,
    start: Option<systemd::Start>,
    locked: &mut Locked,
    state: &mut State,
) -> Result<Home, Error> {
    let owner = cgroup::owner(spec);
    let home = match start {
        Some(start) => Home::Asked(start, owner),
        None => {
            let unnamed = spec.linux.cgroups_path.is_empty();
            let rootless = request.wishes.rootless.unwrap_or(state.owner != 0);
            let make = |tolerant| Group::create(&state.cgroups, cgroups, tolerant);
            let group = make(rootless && unnamed).or_else(|err| {
                // Root may be that of a user namespace, which is asked only now: it costs.
                let denied = matches!(err, cgroup::Error::Create { .. });
                let may_lack = unnamed && request.wishes.rootless.is_none() && denied;
                if may_lack && cgroup::is_unprivileged()? {
                    return make(true);
                }
                Err(err)
            });
            let group = group.inspect_err(|_| {
                // What it made it has removed; what else stands there is
                // someone else's.
                state.cgroups = cgroup::Paths::default();
            })?;
            let made = group.paths(&state.cgroups);
            if made != state.cgroups {
                state.cgroups = made;
                locked.save(state)?;
            }
            if let Some(uid) = owner {
                group.hand_over(uid)?;
            }
            Home::Made(group)
        }
    };
    if let Some(plan) = resctrl {
        plan.make()?;
        plan.configure()?;
    }
    Ok(home)
}

/// Without a cgroup, and without a pid namespace that ends with init, nothing
/// knows all processes of the container. In runc's words, which scripts look for.
fn warn_of_strays(spec: &Spec, state: &State, log: &Log) {
    let pids = spec.linux.namespace(NamespaceType::Pid);
    let private = pids.is_some_and(|namespace| namespace.path.as_os_str().is_empty());
    if !private && state.cgroups.directories().is_empty() {
        log.warn(
            "Creating a rootless container with no cgroup and no private pid namespace. \
             Such configuration is strongly discouraged (as it is impossible to properly kill \
             all container's processes)",
        );
    }
}

/// The cgroups that the container is in, `made` being those of its own. Where an
/// ordinary user was to get one of the `planned` and could not, it stays in ours.
fn visible(made: &cgroup::Paths, planned: &cgroup::Paths) -> Result<cgroup::Paths, Error> {
    if made == planned {
        return Ok(made.clone());
    }
    Ok(made.clone().or(Layout::discover()?.own()?))
}

/// A page for the failure of an execve under a filter. After `create` it must
/// outlive this process, so it is a file.
fn shared_page(init: &init::Plan, locked: &Locked, run: bool) -> Result<Option<SharedPage>, Error> {
    if init.filter.is_none() {
        return Ok(None);
    }
    if run {
        return SharedPage::map(None)
            .map(Some)
            .map_err(Error::at("map", "shared page"));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(locked.dir(), FAILURE, flags, Mode::from_raw_mode(0o600))
        .map_err(Error::on("create", FAILURE))?;
    rustix::fs::ftruncate(&file, SharedPage::BYTES as u64).map_err(Error::on("extend", FAILURE))?;
    SharedPage::map(Some(file.as_fd()))
        .map(Some)
        .map_err(Error::on("map", FAILURE))
}

/// Waits for the end of init, a child of this process.
pub(crate) fn reap(init: &Launched) -> Result<WaitIdStatus, Error> {
    let wait = || waitid(WaitId::PidFd(init.pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait).map_err(Error::at("wait for", "init"))?;
    status.ok_or_else(|| Error::State("init has no status".into()))
}

/// Runs the hooks that stand between the container's namespaces and its program.
/// Those of `prestart` are told `created`: the specification has them called
/// after `start` was asked for (config.md, "Prestart"), and crun says so too.
pub(crate) fn run_runtime_hooks(hooks: &crate::spec::Hooks, state: &State) -> Result<(), Error> {
    run_hooks("prestart", &hooks.prestart, state, "created")?;
    run_hooks("createRuntime", &hooks.create_runtime, state, "creating")
}

/// Runs hooks of the runtime's own moments.
pub(crate) fn run_hooks(
    kind: &'static str,
    hooks: &[crate::spec::Hook],
    state: &State,
    status: &'static str,
) -> Result<(), Error> {
    let told = hook::State {
        oci_version: &state.oci_version,
        id: &state.id,
        status,
        pid: (status != "stopped").then_some(state.pid),
        bundle: &state.bundle,
        annotations: &state.annotations,
    };
    hook::run_all(hooks, &told, hook::Place::Bundle).map_err(|(index, source)| Error::Hook {
        kind,
        index,
        source,
    })
}

/// Tells the caller and the state that the container is created.
fn finish(request: &Request<'_>, locked: &mut Locked, state: &mut State) -> Result<(), Error> {
    if let Some(path) = &request.pid_file {
        crate::file::write_pid(path, state.pid)?;
    }
    if !request.run {
        state.phase = Phase::Created;
        locked.reached(Phase::Created)?;
        trace::step("record that the container is created");
    }
    Ok(())
}
