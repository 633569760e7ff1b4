//! `exec`: a further process in a running container.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use crate::cgroup::{self, Group, SubCgroup, systemd};
use crate::container::agent::{self, Filtered};
use crate::container::bring_up::hand_out;
use crate::container::create::SECCOMP;
use crate::container::delete::init_of;
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::init::child::Console;
use crate::init::exec::Plan as ExecPlan;
use crate::init::launch::{self, Launched};
use crate::init::protocol::{FromInit, ToInit};
use crate::log::Log;
use crate::process::apply::Filter;
use crate::process::execution::Common;
use crate::spec::{NamespaceType, Process};
use crate::state::{Locked, Root, State, StateDir};
use crate::sys::{self, SharedPage};
use crate::{namespace, proc, process, trace};

/// Largest filter that is read back, in bytes: the kernel takes 4096
/// instructions of 8 bytes (`BPF_MAXINSNS`), and 16 more for the flags
/// and the checksum.
const SECCOMP_BYTES_MAX: u64 = 8 * 4096 + 16;

/// What the caller wants.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// All containers.
    pub root: &'a Root,
    /// The container.
    pub id: &'a ContainerId,
    /// The process, checked.
    pub process: Process,
    /// Where its terminal goes.
    pub console: Console,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// `--cgroup`.
    pub cgroups: Vec<String>,
    /// `--ignore-paused`.
    pub ignore_paused: bool,
    /// Where warnings go.
    pub log: &'a Log,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Started {
    /// It, a child of this process.
    pub child: Launched,
    /// Master side of its terminal, where the runtime stays in the foreground.
    pub master: Option<OwnedFd>,
}

/// Starts the process.
pub(crate) fn exec(request: Request<'_>) -> Result<Started, Error> {
    let dir = request.root.open(request.id)?;
    let state = dir.load()?;
    let init = running_init(&state, request.ignore_paused)?;
    trace::step("find the container");
    let plan = process::Plan::new(&request.process, common(&state))?;
    plan.warnings
        .iter()
        .for_each(|warning| request.log.warn(warning));
    let oom_score_adj = plan.oom_score_adj;
    let (join, joins_user) = namespaces(&state)?;
    let filter = load_filter(&dir)?;
    super::create::tell_flags(filter.as_ref(), request.log);
    // The new process is seen in the container from its first moment, with all
    // that is open here.
    drop(dir);
    let page = filter.as_ref().map(|_| SharedPage::map(None)).transpose();
    let page = page.map_err(Error::at("map", "shared page"))?;
    let group = Group::open(&state.cgroups)?;
    let below = SubCgroup::parse(&request.cgroups, state.cgroups.is_v2())?;
    let child_page = page.as_ref().map(SharedPage::share);
    let preserve_fds = request.preserve_fds;
    let plan = ExecPlan {
        process: plan,
        filter,
        join,
        joins_user,
        keyring: process::keyring::name(&state.id).filter(|_| !state.callers_keyring),
        preserve_fds,
        debug: request.log.debugs(),
        console: request.console,
        doors: group.doors(&below)?,
    };
    let birthplace = group.birthplace(&below)?;
    let child = launch(plan, init, child_page, birthplace.as_ref().map(AsFd::as_fd))?;
    let pid = child.pid.as_raw_nonzero().get();
    let begun = (|| {
        place(&child, &state, &group, birthplace, below.is_empty())?;
        if let Some(value) = oom_score_adj {
            proc::write_child(pid, "oom_score_adj", &value.to_string())
                .map_err(Error::on("set oom_score_adj to", value))?;
        }
        hand_out(request.pidfd_socket.as_deref(), &child.pidfd)?;
        child
            .socket
            .send(ToInit::Go)
            .map_err(Error::at("talk to", "process"))?;
        if let (Some(agent), Some(page)) = (&state.agent, &page) {
            let (pidfd, socket) = (&child.pidfd, &child.socket);
            let process = Filtered {
                pid,
                pidfd,
                page,
                socket,
            };
            agent::introduce(agent, &process, &state, "running")?;
        }
        let master = until_started(&child, page.as_ref(), &state, request.log)?;
        trace::step("see the process become its program");
        if let Some(path) = &request.pid_file {
            crate::file::write_pid(path, pid)?;
        }
        Ok(master)
    })();
    match begun {
        Ok(master) => Ok(Started { child, master }),
        Err(error) => {
            let _ = sys::pidfd_signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = super::create::reap(&child);
            Err(error)
        }
    }
}

/// Puts the process where it was not born: into the cgroup2 `birthplace`, or
/// with `anywhere` into that of init where this one takes none any more, and
/// into the container's resctrl group.
fn place(
    child: &Launched,
    state: &State,
    group: &Group,
    birthplace: Option<cgroup::Dir>,
    anywhere: bool,
) -> Result<(), Error> {
    if let Some(birthplace) = birthplace.filter(|_| !child.in_cgroup) {
        let init = Pid::from_raw(state.pid).filter(|_| anywhere);
        let joined = group.join(&birthplace, child.pid, init);
        let unit = state.unit.as_ref();
        let joined = systemd::or_attach(joined, unit, group, &birthplace, child.pid);
        if let Err(error) = joined
            && !(error.is_denied() && anywhere && group.is_vacant(&birthplace))
        {
            return Err(error.into());
        }
    }
    match &state.resctrl {
        Some(group) => Ok(group.join(child.pid.as_raw_nonzero().get())?),
        None => Ok(()),
    }
}

/// What the process shares with all of the container.
fn common(state: &State) -> Common<'_> {
    Common {
        personality: state.personality.as_ref(),
        memory_policy: state.memory_policy.as_ref(),
    }
}

/// Makes the process, on the CPUs that it is to have before it is in its cgroup.
fn launch(
    plan: ExecPlan,
    init: OwnedFd,
    page: Option<SharedPage>,
    birthplace: Option<BorrowedFd<'_>>,
) -> Result<Launched, Error> {
    let launched = match plan.process.execution.affinity.initial.clone() {
        Some(cpus) => cpus.during(|| launch::exec(plan, init, page, birthplace))?,
        None => launch::exec(plan, init, page, birthplace),
    }?;
    trace::step_of(|| format!("clone the process, pid {}", launched.pid));
    Ok(launched)
}

fn running_init(state: &State, ignore_paused: bool) -> Result<OwnedFd, Error> {
    match Status::of(state)? {
        Status::Stopped | Status::Creating => {
            return Err(Error::State(
                "cannot exec in a stopped container: container not running".into(),
            ));
        }
        Status::Paused if !ignore_paused => {
            return Err(Error::State(
                "cannot exec in a paused container (use --ignore-paused to override)".into(),
            ));
        }
        Status::Paused | Status::Created | Status::Running => (),
    }
    init_of(state)?.ok_or_else(|| {
        Error::State("cannot exec in a stopped container: container not running".into())
    })
}

/// The namespaces to join, and whether a user namespace is among them. One
/// that is our own already cannot be joined again (EINVAL, `setns(2)`).
pub(super) fn namespaces(state: &State) -> Result<(ThreadNameSpaceType, bool), Error> {
    let mut flags = 0;
    for &kind in &state.namespaces {
        if kind == NamespaceType::User {
            let name = namespace::proc_name(kind);
            let of = |who: String| {
                std::fs::read_link(format!("/proc/{who}/ns/{name}"))
                    .map_err(Error::on("read namespace of", who))
            };
            if of("self".into())? == of(state.pid.to_string())? {
                continue;
            }
        }
        flags |= namespace::flag(kind);
    }
    let joins_user = flags & libc::CLONE_NEWUSER != 0;
    Ok((
        ThreadNameSpaceType::from_bits_retain(flags as u32),
        joins_user,
    ))
}

/// Waits until the process has become its program.
fn until_started(
    child: &Launched,
    page: Option<&SharedPage>,
    state: &State,
    log: &Log,
) -> Result<Option<OwnedFd>, Error> {
    let mut master = None;
    loop {
        match child
            .socket
            .hear(log)
            .map_err(Error::at("talk to", "process"))?
        {
            FromInit::Terminal(descriptor) => master = Some(descriptor),
            FromInit::Failed(failure) => return Err(Error::Exec(failure)),
            FromInit::Gone => break,
            other => {
                return Err(Error::State(format!(
                    "unexpected message of the process: {other:?}"
                )));
            }
        }
    }
    match page.and_then(|page| crate::init::Failure::decode(&page.load())) {
        Some(failure) => Err(Error::Exec(failure)),
        None if state.tiny_memory => {
            refuse_starved(state, child.pid.as_raw_nonzero().get()).map(|()| master)
        }
        None => Ok(master),
    }
}

/// Its end closes the socket of a process as its program does. Where hardly any
/// memory is allowed the two are told apart.
fn refuse_starved(state: &State, pid: i32) -> Result<(), Error> {
    let stat = proc::stat(pid).map_err(Error::on("read the state of pid", pid))?;
    if stat.is_none_or(|stat| stat.executed) {
        return Ok(());
    }
    Err(Error::ExecKilled {
        starved: cgroup::kills(&state.cgroups) > 0,
    })
}

/// Keeps the compiled filter for later processes of the container.
pub(crate) fn save_filter(locked: &Locked, filter: &Filter) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(locked.dir(), SECCOMP, flags, Mode::from_raw_mode(0o600))
        .map_err(Error::on("create", SECCOMP))?;
    File::from(file)
        .write_all(&encode_filter(filter))
        .map_err(Error::on("write", SECCOMP))
}

/// Checksum, flags and instructions, each 8 bytes.
fn encode_filter(filter: &Filter) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(&filter.flags.to_ne_bytes());
    for instruction in &filter.program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    let check = crate::file::checksum(&bytes[8..]);
    bytes[..8].copy_from_slice(&check.to_ne_bytes());
    bytes
}

/// Reads back what [`save_filter`] wrote; `None` where there is no filter.
fn load_filter(dir: &StateDir) -> Result<Option<Filter>, Error> {
    let file = match rustix::fs::openat(
        dir,
        SECCOMP,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        result => result.map_err(Error::on("open", SECCOMP))?,
    };
    let bytes = crate::file::read_open(File::from(file), SECCOMP_BYTES_MAX)
        .map_err(Error::on("read", SECCOMP))?;
    let filter = decode_filter(&bytes);
    filter
        .map(Some)
        .ok_or_else(|| Error::State("the container's seccomp file is damaged".into()))
}

fn decode_filter(bytes: &[u8]) -> Option<Filter> {
    // A filter with one bit turned could allow what it was to refuse.
    let (check, bytes) = bytes.split_first_chunk::<8>()?;
    if u64::from_ne_bytes(*check) != crate::file::checksum(bytes) {
        return None;
    }
    let (flags, rest) = bytes.split_first_chunk::<8>()?;
    let (instructions, rest) = rest.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() {
        return None;
    }
    let instruction = |bytes: &[u8; 8]| libc::sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    Some(Filter {
        flags: u64::from_ne_bytes(*flags),
        program: instructions.iter().map(instruction).collect(),
    })
}

/// Reads a process from a file (`--process`), `-` being standard input.
pub(crate) fn read_process(path: &str) -> Result<Process, Error> {
    /// Largest process file, in bytes; see the limit of `config.json`.
    const PROCESS_BYTES_MAX: u64 = 16 * 1024 * 1024;
    let source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(Error::on("open", path))?),
    };
    let text =
        crate::file::read_open(source, PROCESS_BYTES_MAX).map_err(Error::on("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_filter_is_refused() {
        let allow = libc::sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let filter = Filter {
            program: vec![allow],
            flags: 2,
        };
        let whole = encode_filter(&filter);
        let read = decode_filter(&whole).unwrap();
        assert_eq!((read.flags, read.program.len()), (2, 1));
        for length in 0..whole.len() {
            assert!(decode_filter(&whole[..length]).is_none());
        }
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_filter(&flipped).is_none(), "bit {bit}");
        }
    }
}
