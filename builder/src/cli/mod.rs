//! The command line.

mod build;
mod cache;
mod language;

use crate::build::Request;
use crate::call::{Call, Form};
use crate::isolation::Entered;
use crate::output::BadOutput;
use crate::progress::Style;
use build::BuildArguments;
pub use cache::{CacheCommand, CacheError};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use teu_store::{Backend, Store};

/// The flags that may stand before a command.
const GLOBAL_FLAGS: [&str; 2] = ["--root", "--backend"];

/// Builds an image from a Dockerfile, without a daemon.
#[derive(Debug, Parser)]
#[command(name = "teu-build", version)]
pub struct Cli {
    /// The store that base images come from and the result goes to.
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Back-end for layers, instead of the one that works best here.
    #[arg(long, value_enum, global = true)]
    backend: Option<BackendName>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Builds an image; `build` may be left out.
    Build(Box<BuildArguments>),
    /// Prints the steps of a build, without doing them.
    Plan {
        #[command(flatten)]
        build: Box<BuildArguments>,
        /// JSON for programs, or a graph for dot(1).
        #[arg(long, value_enum, default_value_t = PlanFormat::Json)]
        format: PlanFormat,
    },
    /// Says why a step of the last build ran.
    Why {
        /// Its number, its place such as "build 2/5", or the beginning of the instruction.
        step: String,
        /// The context that was built.
        #[arg(value_name = "CONTEXT", default_value = ".")]
        context: PathBuf,
    },
    /// Says which isolation steps have here, and which setting stands in the way of a better one.
    Doctor {
        /// Text for people, or JSON for programs.
        #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
        format: ReportFormat,
        /// The OCI runtime that is to be executed [default: teu-runtime beside this program].
        #[arg(long, value_name = "PROGRAM")]
        runtime: Option<PathBuf>,
    },
    #[command(flatten)]
    Cache(CacheCommand),
}

/// How the doctor's report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Lines for people.
    Text,
    /// One object for programs.
    Json,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// All of it.
    Json,
    /// What needs what, in the language of Graphviz.
    Dot,
}

/// The words that stand for a command, after flags for all of them.
const COMMANDS: [&str; 12] = [
    "build",
    "plan",
    "why",
    "df",
    "prune",
    "mounts",
    "doctor",
    "help",
    "-h",
    "--help",
    "-V",
    "--version",
];

/// The store's back-ends by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendName {
    /// Layers as EROFS views of their tars.
    Erofs,
    /// Layers as directories.
    Directory,
}

/// A command line that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// `--tag`.
    #[error("name the image {name:?}")]
    Tag {
        /// The name.
        name: String,
        /// Why it is none.
        source: teu_store::reference::BadReference,
    },
    /// `--secret`.
    #[error("--secret {0:?} is not id=NAME[,src=FILE] or id=NAME,env=VARIABLE")]
    Secret(String),
    /// Another flag.
    #[error("{flag} {text:?}: {why}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        text: String,
        /// What is wrong about it.
        why: String,
    },
    /// `--root`.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
    /// `--annotation`.
    #[error(transparent)]
    Output(#[from] BadOutput),
    /// A question that is answered before there is a store.
    #[error("the doctor does not build")]
    Doctor,
}

/// What to do, ready to be done.
#[derive(Debug)]
pub enum Task {
    /// Build.
    Build(Box<BuildTask>),
    /// Print the plan of a build.
    Plan(Box<BuildTask>, PlanFormat),
    /// Say why a step of the last build ran.
    Why {
        /// The store with the cache.
        store: Store,
        /// Which step.
        step: String,
        /// The context that was built.
        context: PathBuf,
    },
    /// Do something with the cache.
    Cache {
        /// The store with the cache.
        store: Store,
        /// What.
        command: CacheCommand,
    },
}

/// A build and how it is reported.
#[derive(Debug)]
pub struct BuildTask {
    /// The build.
    pub request: Request,
    /// How progress is shown.
    pub style: Style,
    /// Where the id goes besides standard output.
    pub iidfile: Option<PathBuf>,
    /// Where digests and names go as JSON.
    pub metadata_file: Option<PathBuf>,
    /// Say of each step that ran what had changed.
    pub explain: bool,
    /// Answer this instead.
    pub call: Option<(Call, Form)>,
}

impl Cli {
    /// Reads a command line; exits with usage or help where it asks for that.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(with_command(arguments.into_iter().collect()))
    }

    /// The doctor's question, if that was asked: how to print the answer, and about which store and runtime.
    pub fn asks_doctor(&self) -> Option<(ReportFormat, PathBuf, PathBuf)> {
        let Command::Doctor { format, runtime } = &self.command else {
            return None;
        };
        let runtime = runtime.clone().unwrap_or_else(|| sibling("teu-runtime"));
        Some((*format, self.store_path(), runtime))
    }

    /// Settles what depends on who the user is, before that changes; the store's folder.
    pub fn settle(&mut self) -> &Path {
        let root = self.store_path();
        self.root.insert(root)
    }

    /// The runtime that builds use.
    pub fn runtime(&self) -> PathBuf {
        let given = match &self.command {
            Command::Build(build) | Command::Plan { build, .. } => build.runtime.clone(),
            Command::Doctor { runtime, .. } => runtime.clone(),
            Command::Why { .. } | Command::Cache(_) => None,
        };
        given.unwrap_or_else(|| sibling("teu-runtime"))
    }

    /// Whether the command has steps to keep apart from the host.
    pub fn needs_isolation(&self) -> bool {
        matches!(self.command, Command::Build(_) | Command::Plan { .. })
    }

    fn store_path(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(default_root)
    }

    /// Checks the arguments and opens the store.
    ///
    /// # Errors
    /// Whatever [`CliError`] lists.
    pub fn task(self, isolation: Entered) -> Result<Task, CliError> {
        let root = self.store_path();
        let mut store = Store::open(root).map_err(|error| CliError::Store(Box::new(error)))?;
        match self.backend {
            Some(BackendName::Erofs) => store.force_backend(Backend::Erofs),
            Some(BackendName::Directory) => store.force_backend(Backend::Directory),
            None => {}
        }
        Ok(match self.command {
            Command::Plan { build, format } => {
                Task::Plan(Box::new(build_task(*build, store, isolation)?), format)
            }
            Command::Build(arguments) => {
                Task::Build(Box::new(build_task(*arguments, store, isolation)?))
            }
            Command::Doctor { .. } => return Err(CliError::Doctor),
            Command::Cache(command) => Task::Cache { store, command },
            Command::Why { step, context } => Task::Why {
                store,
                step,
                context,
            },
        })
    }
}

fn build_task(
    arguments: BuildArguments,
    store: Store,
    isolation: Entered,
) -> Result<BuildTask, CliError> {
    Ok(BuildTask {
        style: arguments.style(),
        iidfile: arguments.iidfile.clone(),
        metadata_file: arguments.metadata_file.clone(),
        explain: arguments.explain,
        call: arguments.language.call()?,
        request: arguments.request(store, isolation)?,
    })
}

/// Inserts `build` where no command stands: what follows the flags that any command has.
fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(text) = arguments
        .get(at)
        .and_then(|argument| argument.to_str())
        .filter(|text| GLOBAL_FLAGS.iter().any(|flag| text.starts_with(flag)))
    {
        at += if text.contains('=') { 1 } else { 2 };
    }
    let is_command = |argument: Option<&OsString>| {
        argument
            .and_then(|argument| argument.to_str())
            .is_some_and(|text| COMMANDS.contains(&text))
    };
    let after = arguments.get(at + 1).filter(|next| !next.is_empty());
    if arguments.get(at).is_some_and(|first| first == "build")
        && after.is_some_and(|next| is_command(Some(next)) && next != "build")
    {
        // `teu build why`: the command of a command.
        arguments.remove(at);
    } else if !is_command(arguments.get(at)) {
        arguments.insert(at.min(arguments.len()), "build".into());
    }
    arguments
}

/// /var/lib/teu/store, or below the user's own data directory.
fn default_root() -> PathBuf {
    let home = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let data = match (
        rustix::process::geteuid().is_root(),
        home("XDG_DATA_HOME"),
        home("HOME"),
    ) {
        (true, ..) | (false, None, None) => PathBuf::from("/var/lib"),
        (false, Some(data), _) => data,
        (false, None, Some(home)) => home.join(".local/share"),
    };
    data.join("teu/store")
}

/// A program of the same installation: beside this one, else wherever PATH has it.
fn sibling(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own
        .and_then(|path| Some(path.parent()?.join(name)))
        .filter(|path| path.exists());
    beside.unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let parse = |line: &str| {
            Cli::try_parse_from(with_command(
                line.split_whitespace().map(OsString::from).collect(),
            ))
        };
        let cli = parse(
            "teu-build -t a -t b:1 --build-arg X=1 --target s --no-cache --progress plain dir",
        )
        .unwrap();
        assert!(
            matches!(cli.command, Command::Build(build) if build.tags.len() == 2 && build.context == "dir")
        );
        assert!(matches!(
            parse("teu-build --root r plan -f - .").unwrap().command,
            Command::Plan { .. }
        ));
        assert!(matches!(
            parse("teu-build --root r build -t x ctx").unwrap().command,
            Command::Build(_)
        ));
        assert!(
            matches!(parse("teu-build --root=r ctx").unwrap().command, Command::Build(build) if build.context == "ctx")
        );
        assert!(matches!(
            parse("teu-build").unwrap().command,
            Command::Build(_)
        ));
        assert!(matches!(
            parse("teu-build --root r build why 2").unwrap().command,
            Command::Why { .. }
        ));
        assert!(parse("teu-build --nope").is_err());
    }
}
