//! Bringing a container to life, up to the point where its program waits to be
//! started; and taking down what that left on the host.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Stdio, id as own_pid};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::log::{Form, Limits, Log, Settings};
use super::pump::Pump;
use super::rootfs::{self, HostMounts};
use super::terminal::{Console, set_nonblocking};
use super::{Container, complain, oom, socket};
use crate::container::record::{Bundle, Network, Stdin};
use crate::container::status::{Process, State, boot_id};
use crate::container::{Folder, Record};
use crate::error::At as _;
use crate::network::{self, netns, ports};
use crate::runtime::Stdio3;
use crate::{Error, clock, volume};

/// Name of the socket on which the runtime hands a terminal over; it exists only meanwhile.
const CONSOLE: &str = "console";
/// Permissions of a log, in a folder that is closed to others.
const LOG_MODE: u32 = 0o600;
/// The kernel's own reach for OOM scores; a shim is worth as much as the host's other daemons.
const SHIM_OOM_SCORE: &str = "-998";
/// What containers get: the kernel's default.
const DEFAULT_OOM_SCORE: &str = "0";

/// What to undo when setting up fails halfway.
#[derive(Debug, Default)]
pub struct Undo {
    /// Set once the private mount namespace was entered.
    pub host: Option<HostMounts>,
}

/// A container whose program waits to be started.
#[derive(Debug)]
pub struct Made {
    /// Its first process.
    pub init: Pid,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// Its output and input.
    pub pump: Pump,
    /// Its terminal.
    pub terminal: Option<OwnedFd>,
    /// Counts OOM kills in its cgroup.
    pub oom_counter: Option<PathBuf>,
    /// Who runs, as state.json says.
    pub state: State,
    /// The socket that clients attach to.
    pub attach: OwnedFd,
    /// The socket for requests.
    pub control: OwnedFd,
    /// The way back to the host's mounts.
    pub host: HostMounts,
    /// The ports of the host that it has, see [`ports::take`].
    pub ports: Vec<OwnedFd>,
}

/// Creates the container. On failure, [`tear_down`] is to be called with what `undo` got.
///
/// # Errors
/// What was attempted and why it failed, in the order of things: network,
/// mounts, volumes, runtime.
pub fn create(container: &Container, undo: &mut Undo) -> Result<Made, Error> {
    let Container {
        folder,
        record,
        runtime,
        ..
    } = container;
    let bundle = record
        .bundle
        .as_ref()
        .ok_or_else(|| Error::Invalid("the container has no bundle".into()))?;
    let shim = Process::of(i32::try_from(own_pid()).unwrap_or(0));
    let shim = shim.ok_or_else(|| Error::Invalid("/proc does not show this process".into()))?;
    let mut state = State {
        boot: boot_id(),
        shim,
        init: None,
        created: None,
        starting: false,
        started: None,
    };
    folder.write_json("state.json", &state)?;
    let log = open_log(folder, record)?;

    let ports = match &record.network {
        Network::Bridge { ports } => ports::take(ports)?,
        Network::Host | Network::None => Vec::new(),
    };
    furnish(container, bundle, undo)?;
    let streams = Streams::new(record.terminal, record.stdin)?;
    set_oom_score(DEFAULT_OOM_SCORE); // inherited by the runtime and what it starts
    let created = streams
        .with_console(|console, stdio| runtime.create(&folder.id, &folder.path, console, stdio));
    set_oom_score(SHIM_OOM_SCORE);
    let (pid, ends) = created?;

    let init = Pid::from_raw(pid).ok_or_else(|| Error::Invalid(format!("{pid} is not a pid")))?;
    let pidfd = pidfd_open(init, PidfdFlags::empty()).call("pidfd_open")?;
    state.init = Process::of(pid);
    state.created = Some(clock::now());
    folder.write_json("state.json", &state)?;
    let (attach, control) = (listener("attach", folder)?, listener("ctl", folder)?);
    let host = undo
        .host
        .take()
        .ok_or_else(|| Error::Invalid("no private mounts".into()))?;
    let pump = Pump::new(
        ends.output,
        ends.input,
        record.stdin == Stdin::Once && !record.terminal,
        log,
    );
    let oom_counter = oom::counter_of(pid);
    Ok(Made {
        init,
        pidfd,
        pump,
        terminal: ends.terminal,
        oom_counter,
        state,
        attach,
        control,
        host,
        ports,
    })
}

fn open_log(folder: &Folder, record: &Record) -> Result<Log, Error> {
    Log::with(Settings {
        path: folder.log(),
        form: Form::Utc,
        limits: Limits {
            file_bytes: record.log_size,
            total_bytes: None,
            kept_files: record.log_files,
        },
        full: record.log_full,
        mode: LOG_MODE,
        sync: false,
    })
}

/// The host's side: network, mounts, volumes.
fn furnish(container: &Container, bundle: &Bundle, undo: &mut Undo) -> Result<(), Error> {
    let Container {
        place,
        folder,
        record,
        ..
    } = container;
    let network = match &record.network {
        Network::Bridge { ports } => Some(network::up(place, folder, record, ports)?),
        Network::Host | Network::None => None,
    };
    let file = netns::path(place, &folder.id);
    undo.host = Some(rootfs::enter_private(
        place,
        network
            .as_ref()
            .map(|namespace| (namespace, file.as_path())),
    )?);
    drop(network);
    let rootfs = rootfs::mount_at(folder, bundle)?;
    for entry in &record.volumes {
        volume::fill(place, entry, &rootfs)?;
    }
    Ok(())
}

/// Ends and removes what the runtime and the network plugins know of the
/// container. Goes on after each failure. Idempotent.
pub fn tear_down(container: &Container, host: Option<&HostMounts>) {
    complain(host.map_or(Ok(()), HostMounts::return_to));
    complain(container.runtime.delete(&container.folder.id));
    complain(network::down(&container.place, &container.folder));
}

fn listener(name: &str, folder: &Folder) -> Result<OwnedFd, Error> {
    socket::listen_at(name).at("listen on", &folder.path.join(name))
}

/// Best effort: lowering needs `CAP_SYS_RESOURCE`, which containers and users lack.
fn set_oom_score(score: &str) {
    let _: std::io::Result<()> = std::fs::write("/proc/self/oom_score_adj", score);
}

/// Both ends of the container's standard streams.
struct Streams {
    terminal: bool,
    input: Option<(OwnedFd, OwnedFd)>,
    output: Option<[(OwnedFd, OwnedFd); 2]>,
    /// Whether someone may type into the terminal.
    typed: bool,
}

/// Our ends.
struct Ends {
    output: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    fn new(terminal: bool, stdin: Stdin) -> Result<Self, Error> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).call("pipe2");
        let wants_input = stdin != Stdin::Closed;
        Ok(Self {
            terminal,
            input: if wants_input && !terminal {
                Some(pipe()?)
            } else {
                None
            },
            output: if terminal {
                None
            } else {
                Some([pipe()?, pipe()?])
            },
            typed: wants_input,
        })
    }

    /// Runs `create` with the container's ends, keeps ours.
    fn with_console(
        self,
        create: impl FnOnce(Option<&Path>, Stdio3) -> Result<i32, Error>,
    ) -> Result<(i32, Ends), Error> {
        let (input, stdin) = match self.input {
            Some((read, write)) => (Some(write), Stdio::from(read)),
            None => (None, Stdio::null()),
        };
        if let Some([(out, out_end), (err, err_end)]) = self.output {
            let stdio = Stdio3 {
                stdin,
                stdout: out_end.into(),
                stderr: err_end.into(),
            };
            let pid = create(None, stdio)?;
            for fd in [Some(&out), Some(&err), input.as_ref()]
                .into_iter()
                .flatten()
            {
                set_nonblocking(fd)?;
            }
            return Ok((
                pid,
                Ends {
                    output: [Some(out), Some(err)],
                    input,
                    terminal: None,
                },
            ));
        }
        debug_assert!(self.terminal, "pipes or a terminal");
        let stdio = Stdio3 {
            stdin,
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        let console = Console::listen(Path::new("."), CONSOLE)?;
        let pid = create(Some(&console.path()), stdio)?;
        let terminal = console.receive()?;
        let duplicate = || rustix::io::fcntl_dupfd_cloexec(&terminal, 3).call("dup");
        let input = if self.typed { Some(duplicate()?) } else { None };
        Ok((
            pid,
            Ends {
                output: [Some(duplicate()?), None],
                input,
                terminal: Some(terminal),
            },
        ))
    }
}
