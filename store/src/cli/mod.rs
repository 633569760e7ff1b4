//! The command line: what is global, and one variant a command. A group of commands is a file.

mod bundle;
mod care;
mod copy;
mod edit;
mod exchange;
pub(crate) mod format;
mod images;
mod inspect;
mod login;
mod mounts;
mod names;
mod quantity;
mod registry;
mod remote;
mod report;
mod transfer;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use teu_store::{Backend, Store};

/// What a command returns: an exit code, or an error whose chain `main` prints on one line.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Keep container images: move them, look at them, turn them into directories.
#[derive(Debug, Parser)]
#[command(
    name = "teu-store",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Folder of the store [default: /var/lib/teu/store, or $XDG_DATA_HOME/teu/store for others than root]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Back-end for layers, instead of the one that works best here
    #[arg(long, global = true, value_enum)]
    backend: Option<BackendName>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendName {
    /// Layers as EROFS views of their tars
    Erofs,
    /// Layers as directories
    Directory,
}

#[derive(Debug, Subcommand)]
enum Command {
    Images(images::Images),
    Tag(names::Tag),
    Untag(names::Untag),
    Rmi(names::Rmi),
    Inspect(Box<inspect::Inspect>),
    History(report::History),
    Diff(report::Diff),
    Layers(report::Layers),
    Df(report::Df),
    Config(Box<edit::Config>),
    Index(edit::Index),
    Bundle(bundle::Bundle),
    Unpack(bundle::Unpack),
    Repack(bundle::Repack),
    Mount(mounts::Mount),
    Umount(mounts::Umount),
    Verify(care::Verify),
    Gc(care::Gc),
    Prune(care::Prune),
    Pull(transfer::Pull),
    Push(transfer::Push),
    Copy(Box<copy::Copy>),
    Login(Box<login::Login>),
    Logout(login::Logout),
    ListTags(Box<remote::ListTags>),
    Search(Box<remote::Search>),
    Referrers(Box<remote::Referrers>),
    Attach(Box<remote::Attach>),
    VerifySignature(Box<remote::VerifySignature>),
    Import(exchange::Import),
    Export(exchange::Export),
}

impl Cli {
    /// Runs the command; those that need the store open it.
    pub(crate) fn run(self) -> Outcome {
        let store = || open_store(self.root, self.backend);
        match self.command {
            Command::Images(command) => command.run(&store()?),
            Command::Tag(command) => command.run(&store()?),
            Command::Untag(command) => command.run(&store()?),
            Command::Rmi(command) => command.run(&store()?),
            Command::Inspect(command) => command.run(&store()?),
            Command::History(command) => command.run(&store()?),
            Command::Diff(command) => command.run(&store()?),
            Command::Layers(command) => command.run(&store()?),
            Command::Df(command) => command.run(&store()?),
            Command::Config(command) => command.run(&store()?),
            Command::Index(command) => command.run(&store()?),
            Command::Bundle(command) => command.run(&store()?),
            Command::Unpack(command) => command.run(&store()?),
            Command::Repack(command) => command.run(&store()?),
            Command::Mount(command) => command.run(&store()?),
            Command::Umount(command) => command.run(&store()?),
            Command::Verify(command) => command.run(&store()?),
            Command::Gc(command) => command.run(&store()?),
            Command::Prune(command) => command.run(&store()?),
            Command::Pull(command) => command.run(&store()?),
            Command::Push(command) => command.run(&store()?),
            Command::Copy(command) => command.run(&store()?),
            Command::Login(command) => command.run(),
            Command::Logout(command) => command.run(),
            Command::ListTags(command) => command.run(),
            Command::Search(command) => command.run(),
            Command::Referrers(command) => command.run(),
            Command::Attach(command) => command.run(),
            Command::VerifySignature(command) => command.run(),
            Command::Import(command) => command.run(&store()?),
            Command::Export(command) => command.run(&store()?),
        }
    }
}

fn open_store(
    root: Option<PathBuf>,
    backend: Option<BackendName>,
) -> Result<Store, Box<dyn Error>> {
    let mut store = Store::open(root.map_or_else(default_root, Ok)?)?;
    match backend {
        Some(BackendName::Erofs) => store.force_backend(Backend::Erofs),
        Some(BackendName::Directory) => store.force_backend(Backend::Directory),
        None => {}
    }
    Ok(store)
}

fn default_root() -> Result<PathBuf, Box<dyn Error>> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/teu/store".into());
    }
    let data = match std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("neither --root nor HOME is set")?)
            .join(".local/share"),
    };
    Ok(data.join("teu/store"))
}

/// A number of bytes for people, in decimal units as docker prints them.
pub(crate) fn people_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// An error and its causes on one line: what: why: errno. Words of a registry or an archive may be in it: control
/// characters are shown as such and never reach the terminal.
pub(crate) fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    let visible = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(visible).collect()
}
