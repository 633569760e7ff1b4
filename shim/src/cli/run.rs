//! `teu run` and `teu create`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::bundle::{self, Pull};
use super::detach::Keys;
use super::flags::ENV_FILE_BYTES_MAX;
use super::handle::Connection;
use super::launch;
use super::plan::{Caller, Plan, plan};
use super::rm::{collect, remove_held};
use super::session::Session;
use crate::Error;
use crate::container::folder::sweep;
use crate::container::record::{Network, Stdin};
use crate::container::{ContainerId, Folder, Lock, Name, Place};
use crate::error::At as _;
use crate::network::cni::Plugins;
use crate::network::files;
use crate::supervisor::machine::Answer;
use crate::supervisor::protocol::Request;
use crate::{siblings, volume};

/// Names drawn before giving up: with 2,304 of them and a thousand containers, one in six is free.
const NAME_TRIES: usize = 100;

/// Most full log files that are kept.
const LOG_FILES_MAX: i64 = 1000;

/// `teu run`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave it running and print its id
    #[arg(short, long)]
    detach: bool,
    /// Leave its terminal by these keys; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    #[command(flatten)]
    pub(super) create: CreateArguments,
}

/// What a container is made from.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArguments {
    /// Pass standard input on
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Remove the container once it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// Give it a name [default: one is drawn]
    #[arg(long)]
    pub(super) name: Option<Name>,
    /// Set a variable; without =VALUE, pass the caller's on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Set the variables of a file, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Mount a path of the host, a named volume, or a new one
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:ro,...]")]
    pub(super) volume: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(super) tmpfs: Vec<String>,
    /// Run in this folder
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
    /// Replace the image's entrypoint; "" takes it away
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,
    /// Name the machine [default: the id's first digits]
    #[arg(long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Mount the image read-only
    #[arg(long)]
    pub(super) read_only: bool,
    /// Use this network; bridge needs the CNI plugins
    #[arg(long, visible_alias = "net", value_name = "MODE", default_value = "bridge", value_parser = ["bridge", "host", "none"])]
    pub(super) network: String,
    /// Lead a port of the host into the container
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/PROTO]")]
    pub(super) publish: Vec<String>,
    /// Limit memory, such as 64m
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Limit processor time, such as 1.5
    #[arg(long, value_name = "N")]
    pub(super) cpus: Option<String>,
    /// Limit the number of processes; -1 for none
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) pids_limit: Option<i64>,
    /// Put its cgroup below this one [default: at the top, as teu-ID]
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_parent: Option<String>,
    /// Ask it to stop by this signal [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    pub(super) stop_signal: Option<String>,
    /// Give it so many seconds to stop before it is killed [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(super) stop_timeout: Option<u64>,
    /// Pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Pull::Missing)]
    pub(super) pull: Pull,
    /// What to do with output while the log cannot grow: let the program wait, or drop and count
    #[arg(long, value_name = "POLICY", default_value = "block", value_parser = ["block", "drop"])]
    pub(super) log_full: String,
    /// Begin another log file when this one has so many bytes, such as 10m [default: never]
    #[arg(long, value_name = "BYTES")]
    pub(super) log_size: Option<String>,
    /// Keep so many full log files
    #[arg(long, value_name = "N", default_value_t = 1, requires = "log_size", value_parser = clap::value_parser!(u32).range(1..=LOG_FILES_MAX))]
    pub(super) log_files: u32,
    /// Execute this OCI runtime instead of teu-runtime
    #[arg(long, value_name = "PROGRAM")]
    pub(super) runtime: Option<PathBuf>,
    /// The image
    pub(super) image: String,
    /// The command in the container, and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<String>,
}

/// Makes a container, starts it, and stays with it unless detached.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let create = &arguments.create;
    if create.tty
        && create.interactive
        && !arguments.detach
        && !rustix::termios::isatty(rustix::stdio::stdin())
    {
        return Err(Error::Invalid(
            "standard input is not a terminal: leave --tty away".into(),
        ));
    }
    let stdin = match (create.interactive, arguments.detach) {
        (false, _) => Stdin::Closed,
        (true, false) => Stdin::Once,
        (true, true) => Stdin::Open,
    };
    let folder = make(place, create, stdin)?;
    let name = folder.id.short().to_owned();
    if arguments.detach {
        let connection = Connection::open(&folder, &name)?;
        start(&connection)?;
        super::say(folder.id.as_str());
        return Ok(0);
    }
    let session = Session::open(&folder, name, create.tty, create.interactive)?;
    start(session.connection())?;
    session.run(&arguments.detach_keys)
}

/// Makes a container and leaves it waiting.
pub(super) fn create(place: &Place, arguments: &CreateArguments) -> Result<u8, Error> {
    let stdin = if arguments.interactive {
        Stdin::Open
    } else {
        Stdin::Closed
    };
    let folder = make(place, arguments, stdin)?;
    super::say(folder.id.as_str());
    Ok(0)
}

/// Has the supervisor start the program. Where it cannot, everything is over
/// when the connection ends.
pub(super) fn start(connection: &Connection) -> Result<(), Error> {
    match connection.ask(Request::Start)? {
        Answer::Refused(message) => {
            connection.wait_for_end();
            Err(Error::Runtime { message })
        }
        Answer::Done | Answer::Ended(_) => Ok(()),
    }
}

/// The record, the bundle, the shim: in this order, each on disk before the next.
fn make(place: &Place, arguments: &CreateArguments, stdin: Stdin) -> Result<Folder, Error> {
    let (mut plan, folder, lock) = reserve(place, arguments, stdin)?;
    if let Err(err) = furnish(place, &folder, &mut plan, arguments.pull) {
        // Nothing ran: the container would be of no use to anyone.
        remove_held(place, &folder, lock)?;
        return Err(err);
    }
    match launch::launch(place, &folder, lock) {
        Ok(()) => Ok(folder),
        Err(launch::Failure { error, supervised }) => {
            if !supervised && let Some(lock) = Lock::take(&folder.lock())? {
                remove_held(place, &folder, lock)?;
            }
            Err(error)
        }
    }
}

fn reserve(
    place: &Place,
    arguments: &CreateArguments,
    stdin: Stdin,
) -> Result<(Plan, Folder, Lock), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let cwd = std::env::current_dir().at("find", Path::new("."))?;
    let lookup = |name: &str| std::env::var(name).ok();
    let runtime = match &arguments.runtime {
        Some(given) => executable(given)?,
        None => siblings::find("teu-runtime")?,
    };
    let env_files = arguments
        .env_file
        .iter()
        .map(|path| read_env_file(path))
        .collect::<Result<_, _>>()?;
    let caller = Caller {
        cwd: &cwd,
        lookup: &lookup,
        hostname: hostname()?,
        env_files,
        runtime: runtime.clone(),
    };
    if arguments.network == "bridge" {
        Plugins::find()?; // before anything is made or pulled
    }
    sweep(place)?;
    collect(place)?; // one of them may have the name
    for _ in 0..NAME_TRIES {
        let name = arguments.name.clone().map_or_else(Name::generate, Ok)?;
        let mut plan = plan(place, ContainerId::random()?, name, arguments, &caller)?;
        plan.record.stdin = stdin;
        plan.record.runtime.clone_from(&runtime);
        match Folder::create(place, &plan.record) {
            Err(Error::NameTaken { .. }) if arguments.name.is_none() => {}
            result => return result.map(|(folder, lock)| (plan, folder, lock)),
        }
    }
    Err(Error::Invalid(
        "no free name was found; give one with --name".into(),
    ))
}

/// A runtime that the user named: a path, or a program in PATH.
fn executable(given: &Path) -> Result<PathBuf, Error> {
    if given.components().count() > 1 {
        return std::path::absolute(given).at("resolve", given);
    }
    siblings::find(&given.to_string_lossy()).map_err(|_| Error::Missing {
        program: format!("the runtime {given:?}"),
        hint: "it is not in PATH; give the path of an OCI runtime".to_owned(),
    })
}

/// The host's name. `proc_sys_kernel(5)`
fn hostname() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/hostname");
    let name = std::fs::read_to_string(path).at("read", path)?;
    Ok(name.trim_end().to_owned())
}

fn read_env_file(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let file = std::fs::File::open(path).at("open", path)?;
    file.take(ENV_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .at("read", path)?;
    Ok(text)
}

/// What is read of config.json: the command line, once the image had its say.
#[derive(serde::Deserialize)]
struct Config {
    process: Process,
}

#[derive(serde::Deserialize)]
struct Process {
    args: Vec<String>,
}

/// The bundle and everything that it mounts.
fn furnish(place: &Place, folder: &Folder, plan: &mut Plan, pull: Pull) -> Result<(), Error> {
    if plan.record.network != Network::Host {
        files::write(folder, &plan.record.hostname)?;
    }
    let store = bundle::Store::find(place)?;
    let image = plan.record.image.clone();
    let mut made = store.create_pulling(&folder.id, &folder.path, &image, &plan.request(), pull)?;
    if plan.add_image_volumes(place, &made.volumes)? {
        store.release(&folder.id)?;
        store.forget(&folder.path)?;
        made = store.create(&folder.id, &folder.path, &image, &plan.request())?;
    }
    plan.record.bundle = Some(made);
    let config: Option<Config> = folder.read_json("config.json")?;
    if let Some(config) = config {
        plan.record.command = config.process.args;
    }
    folder.write_record(&plan.record)?; // volumes are named here before they exist
    for entry in &plan.record.volumes {
        volume::ensure(place, &entry.name)?;
    }
    for path in plan.host_folders.iter().filter(|path| !path.exists()) {
        std::fs::create_dir_all(path).at("create folder", path)?;
    }
    Ok(())
}
