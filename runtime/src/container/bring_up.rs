//! From `clone3(2)` until init waits for its start: what the runtime does
//! beside it and on its behalf.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::container::create::{connect, reap, run_runtime_hooks};
use crate::error::Error;
use crate::init;
use crate::init::launch::Launched;
use crate::init::protocol::{self, FromInit, ToInit};
use crate::init::source::{Helper, Store};
use crate::log::Log;
use crate::rootfs::idmap::Namespaces;
use crate::rootfs::source::Sources;
use crate::spec::{Namespace, NamespaceType, Spec};
use crate::state::{Locked, State};
use crate::{namespace, netlink, proc, trace};

/// What the parent writes for its child.
#[derive(Debug)]
pub(super) struct Orders {
    /// Id maps.
    pub maps: Option<(String, String)>,
    /// Offsets of its clocks, or empty.
    pub time_offsets: String,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Network devices that it gets.
    pub net_devices: Vec<netlink::Wish>,
    /// Where it is to get them.
    pub network: Option<Namespace>,
}

impl Orders {
    /// Moves the network devices to where init is, or will be.
    fn move_devices(&self, pid: i32) -> Result<Option<netlink::Moved>, Error> {
        let Some(network) = self
            .network
            .as_ref()
            .filter(|_| !self.net_devices.is_empty())
        else {
            return Ok(None);
        };
        let path = match network.path.as_os_str().is_empty() {
            true => PathBuf::from(format!("/proc/{pid}/ns/net")),
            false => network.path.clone(),
        };
        netlink::hand_over(&self.net_devices, &path).map(Some)
    }
}

/// What was done for an init that is not created yet.
#[derive(Debug, Default)]
pub(super) struct Aid {
    /// Who looks up its bind sources.
    helper: Option<Helper>,
    /// Network devices that were moved to it.
    devices: Option<netlink::Moved>,
}

impl Aid {
    /// Init is created, or has ended: then what was moved comes back.
    pub(super) fn end(self, created: bool) {
        if let Some(helper) = self.helper {
            helper.join();
        }
        if let Some(devices) = self.devices.filter(|_| !created) {
            devices.give_back();
        }
    }
}

/// How init comes to its bind sources, and what its helper will need to know:
/// one is at hand where init is in a user namespace and we are the host's root.
pub(super) fn sources(init: &init::Plan, spec: &Spec) -> Result<(Sources, Option<Store>), Error> {
    let namespaces = Namespaces::make(&init.rootfs.mounts, &spec.linux)?;
    let root = rustix::process::geteuid().is_root();
    let helped = root && spec.linux.namespace(NamespaceType::User).is_some();
    if !helped {
        let sources = Sources { namespaces, helped };
        return Ok((sources, None));
    }
    let mounts = init.rootfs.mounts.clone();
    let sources = Sources {
        helped,
        ..Sources::default()
    };
    Ok((sources, Some(Store { mounts, namespaces })))
}

/// Names the child on disk, maps its ids, moves its network devices, moves it by `join` where it was not
/// born in its cgroup, and lets it begin.
pub(super) fn introduce(
    init: &Launched,
    locked: &mut Locked,
    state: &mut State,
    orders: &Orders,
    aid: &mut Aid,
    log: &Log,
    join: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let pid = init.pid.as_raw_nonzero().get();
    if let Some((uids, gids)) = &orders.maps {
        namespace::write_maps(pid, uids, gids)?;
    }
    if let Some(value) = orders.oom_score_adj {
        proc::write_child(pid, "oom_score_adj", &value.to_string())
            .map_err(Error::on("set oom_score_adj to", value))?;
    }
    state.pid = pid;
    let stat = proc::stat(pid).map_err(Error::on("read the state of pid", pid))?;
    state.start_ticks = stat
        .ok_or_else(|| Error::State("init ended before its first step".into()))?
        .start;
    locked.name_init(state.pid, state.start_ticks)?;
    join()?;
    if let Some(group) = &state.resctrl {
        group.join(pid)?;
    }
    aid.devices = orders.move_devices(pid)?;
    let talk = || Error::at("talk to", "init");
    init.socket.send(ToInit::Go).map_err(talk())?;
    trace::step("name init and let it begin");
    if orders.time_offsets.is_empty() {
        return Ok(());
    }
    match init.socket.hear(log).map_err(talk())? {
        FromInit::Unshared => {
            proc::write_child(pid, "timens_offsets", &orders.time_offsets).map_err(Error::on(
                "write time offsets",
                orders.time_offsets.trim_end(),
            ))?;
            init.socket.send(ToInit::Offset).map_err(talk())
        }
        FromInit::Failed(failure) => Err(Error::Init(failure)),
        _ => Err(died(init)),
    }
}

/// Sends whoever listens on `--pidfd-socket` the descriptor of a new process. At
/// once, as runc does: the listener has time while the process is prepared.
pub(super) fn hand_out(socket: Option<&Path>, pidfd: &OwnedFd) -> Result<(), Error> {
    let Some(path) = socket else {
        return Ok(());
    };
    protocol::send_with_fd(connect(path)?, path.as_os_str().as_encoded_bytes(), pidfd)
        .map_err(Error::on("send pidfd to", path))
}

/// Answers init until only its start is missing.
pub(super) fn converse(
    init: &Launched,
    spec: &Spec,
    state: &State,
    store: Option<&Store>,
    aid: &mut Aid,
    log: &Log,
) -> Result<Option<OwnedFd>, Error> {
    let mut master = None;
    loop {
        let talk = Error::at("talk to", "init");
        match init.socket.hear(log).map_err(talk)? {
            FromInit::WantsHelper => {
                let store = store.ok_or_else(|| died(init))?;
                aid.helper = Some(Helper::start(store, init)?);
            }
            FromInit::Mounted => {
                run_runtime_hooks(&spec.hooks, state)?;
                trace::step("run the prestart and createRuntime hooks");
                init.socket
                    .send(ToInit::Hooked)
                    .map_err(Error::at("talk to", "init"))?;
            }
            FromInit::Terminal(descriptor) => master = Some(descriptor),
            FromInit::Ready => {
                trace::step("hear that init is ready");
                return Ok(master);
            }
            FromInit::Failed(failure) => return Err(Error::Init(failure)),
            FromInit::Unshared | FromInit::Pid(_) | FromInit::Debug(_) | FromInit::Gone => {
                return Err(died(init));
            }
        }
    }
}

/// The error of an init that ended without a word: killed, by us or memory.
fn died(init: &Launched) -> Error {
    let how = match reap(init) {
        Ok(status) => match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => format!("it was killed by signal {signal} (out of memory?)"),
            (code, _) => format!("it exited with status {}", code.unwrap_or(-1)),
        },
        Err(error) => error.to_string(),
    };
    Error::State(format!("container init ended unexpectedly: {how}"))
}
