//! The command line: what is global, and one variant a command. A group of commands is a file.

mod bundle;
mod exchange;
mod images;
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
    Tag(images::Tag),
    Bundle(bundle::Bundle),
    Unpack(bundle::Unpack),
    Pull(transfer::Pull),
    Push(transfer::Push),
    Import(exchange::Import),
    Export(exchange::Export),
}

impl Cli {
    /// Opens the store and runs the command.
    pub(crate) fn run(self) -> Outcome {
        let root = self.root.map_or_else(default_root, Ok)?;
        let mut store = Store::open(root)?;
        match self.backend {
            Some(BackendName::Erofs) => store.force_backend(Backend::Erofs),
            Some(BackendName::Directory) => store.force_backend(Backend::Directory),
            None => {}
        }
        match self.command {
            Command::Images(command) => command.run(&store),
            Command::Tag(command) => command.run(&store),
            Command::Bundle(command) => command.run(&store),
            Command::Unpack(command) => command.run(&store),
            Command::Pull(command) => command.run(&store),
            Command::Push(command) => command.run(&store),
            Command::Import(command) => command.run(&store),
            Command::Export(command) => command.run(&store),
        }
    }
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

/// An error and its causes on one line: what: why: errno.
pub(crate) fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
