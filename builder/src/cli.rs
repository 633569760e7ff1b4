//! The command line.

use crate::build::Request;
use crate::environment::Environment;
use crate::epoch::{BadEpoch, Epoch};
use crate::execute::{SecretSource, Settings};
use crate::plan::Options;
use crate::progress::Style;
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use teu_store::image::Platform;
use teu_store::{Backend, Reference, Store};

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
    Build(BuildArguments),
    /// Prints the steps of a build as JSON, without doing them.
    Plan(BuildArguments),
}

#[derive(Debug, clap::Args)]
struct BuildArguments {
    /// The directory that COPY and ADD read.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    context: PathBuf,
    /// A name for the image; repeatable.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The Dockerfile, - for standard input [default: CONTEXT/Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A value for an ARG; without =VALUE the variable of this name in our environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Builds this stage instead of the last.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Runs every step, whatever earlier builds made.
    #[arg(long)]
    no_cache: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto)]
    progress: ProgressStyle,
    /// Shows nothing but the image's id.
    #[arg(short, long)]
    quiet: bool,
    /// Writes the image's id into a file.
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// A secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]; repeatable.
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// The cgroup below which steps run [default: the top].
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// The OCI runtime that executes RUN steps [default: teu-runtime beside this program].
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgressStyle {
    /// tty on a terminal, else plain.
    Auto,
    /// Numbered lines.
    Plain,
    /// Moving lines.
    Tty,
    /// Nothing.
    Quiet,
}

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
    /// `--root`.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
    /// The environment.
    #[error(transparent)]
    Epoch(#[from] BadEpoch),
}

/// What to do, ready to be done.
#[derive(Debug)]
pub struct Task {
    /// The build.
    pub request: Request,
    /// Only print the plan.
    pub plan_only: bool,
    /// How progress is shown.
    pub style: Style,
    /// Where the id goes besides standard output.
    pub iidfile: Option<PathBuf>,
}

impl Cli {
    /// Reads a command line; exits with usage or help where it asks for that.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(with_command(arguments.into_iter().collect()))
    }

    /// Checks the arguments and opens the store.
    ///
    /// # Errors
    /// Whatever [`CliError`] lists.
    pub fn task(self) -> Result<Task, CliError> {
        let root = self.root.unwrap_or_else(default_root);
        let (arguments, plan_only) = match self.command {
            Command::Plan(arguments) => (arguments, true),
            Command::Build(arguments) => (arguments, false),
        };
        let style = arguments.style();
        let iidfile = arguments.iidfile.clone();
        let mut store = Store::open(root).map_err(|error| CliError::Store(Box::new(error)))?;
        match self.backend {
            Some(BackendName::Erofs) => store.force_backend(Backend::Erofs),
            Some(BackendName::Directory) => store.force_backend(Backend::Directory),
            None => {}
        }
        Ok(Task {
            request: arguments.request(store)?,
            plan_only,
            style,
            iidfile,
        })
    }
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
    let next = arguments.get(at).and_then(|argument| argument.to_str());
    if !matches!(
        next,
        Some("build" | "plan" | "help" | "-h" | "--help" | "-V" | "--version")
    ) {
        arguments.insert(at.min(arguments.len()), "build".into());
    }
    arguments
}

impl BuildArguments {
    fn style(&self) -> Style {
        let terminal = std::io::stderr().is_terminal();
        match self.progress {
            _ if self.quiet => Style::Quiet,
            ProgressStyle::Quiet => Style::Quiet,
            ProgressStyle::Tty => Style::Terminal,
            ProgressStyle::Auto if terminal => Style::Terminal,
            ProgressStyle::Auto | ProgressStyle::Plain => Style::Plain,
        }
    }

    fn request(self, store: Store) -> Result<Request, CliError> {
        let build_args = build_args(&self.build_args, |name| std::env::var(name).ok());
        let epoch = build_args
            .iter()
            .rfind(|(name, _)| name == "SOURCE_DATE_EPOCH")
            .map(|(_, value)| value.clone());
        let epoch = epoch.or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok());
        let names = self
            .tags
            .iter()
            .map(|name| tag(name))
            .collect::<Result<_, _>>()?;
        let dockerfile = match &self.file {
            Some(path) if path == Path::new("-") => None,
            Some(path) => Some(path.clone()),
            None => Some(default_file(&self.context)),
        };
        Ok(Request {
            store,
            context: self.context,
            dockerfile,
            names,
            options: Options {
                build_args,
                target: self.target,
                platform: Platform::host(),
            },
            settings: Settings {
                runtime: self.runtime.unwrap_or_else(|| sibling("teu-runtime")),
                cgroup_parent: self.cgroup_parent.unwrap_or_default(),
                secrets: self
                    .secrets
                    .iter()
                    .map(|text| secret(text))
                    .collect::<Result<_, _>>()?,
                no_cache: self.no_cache,
            },
            epoch: Epoch::parse(epoch.as_deref())?,
            puller: sibling("teu-store"),
        })
    }
}

/// `Dockerfile`, or `Containerfile` where only that one is.
fn default_file(context: &Path) -> PathBuf {
    let (usual, other) = (context.join("Dockerfile"), context.join("Containerfile"));
    if !usual.exists() && other.exists() {
        other
    } else {
        usual
    }
}

fn tag(name: &str) -> Result<Reference, CliError> {
    name.parse().map_err(|source| CliError::Tag {
        name: name.to_owned(),
        source,
    })
}

/// `NAME=VALUE`, or `NAME` for the value that our own environment has, if any. The last of a name counts.
fn build_args(texts: &[String], own: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut given = Environment::default();
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) => given.set(name, value),
            None => {
                if let Some(value) = own(text) {
                    given.set(text, &value);
                }
            }
        }
    }
    given
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `id=NAME`, `src=FILE`, `env=VARIABLE`, `type=`; without source the variable of that name, else the file.
fn secret(text: &str) -> Result<(String, SecretSource), CliError> {
    let bad = || CliError::Secret(text.to_owned());
    let (mut id, mut file, mut variable) = (None, None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(bad)? {
            ("id", value) => id = Some(value.to_owned()),
            ("src" | "source", value) => file = Some(PathBuf::from(value)),
            ("env", value) => variable = Some(value.to_owned()),
            ("type", "file" | "env") => {}
            _ => return Err(bad()),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(bad)?;
    let source = match (file, variable) {
        (Some(_), Some(_)) => return Err(bad()),
        (Some(file), None) => SecretSource::File(file),
        (None, Some(variable)) => SecretSource::Env(variable),
        (None, None) if std::env::var_os(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok((id, source))
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
            matches!(cli.command, Command::Build(build) if build.tags.len() == 2 && build.context == Path::new("dir"))
        );
        assert!(matches!(
            parse("teu-build --root r plan -f - .").unwrap().command,
            Command::Plan(_)
        ));
        assert!(matches!(
            parse("teu-build --root r build -t x ctx").unwrap().command,
            Command::Build(_)
        ));
        assert!(
            matches!(parse("teu-build --root=r ctx").unwrap().command, Command::Build(build) if build.context == Path::new("ctx"))
        );
        assert!(matches!(
            parse("teu-build").unwrap().command,
            Command::Build(_)
        ));
        assert!(parse("teu-build --nope").is_err());
    }

    #[test]
    fn values_from_the_command_line_and_the_environment() {
        let own = |name: &str| (name == "HERE").then(|| "h".to_owned());
        let texts: Vec<String> = ["A=1", "HERE", "GONE", "A=2=3"].map(str::to_owned).to_vec();
        assert_eq!(
            build_args(&texts, own),
            [
                ("A".to_owned(), "2=3".to_owned()),
                ("HERE".to_owned(), "h".to_owned())
            ]
        );
        assert!(matches!(secret("id=a,src=/f"), Ok((id, SecretSource::File(_))) if id == "a"));
        assert!(matches!(secret("id=a,env=E"), Ok((_, SecretSource::Env(name))) if name == "E"));
        for bad in ["", "src=x", "id=", "id=a,src=x,env=y", "id=a,what=x"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }
}
