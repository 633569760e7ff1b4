//! The instructions as types. Values are still unexpanded: their variables are known
//! only when a plan is made.

use super::heredoc::Heredoc;
use super::{Span, Statement};

/// An unexpanded value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The characters, quotes and variables included.
    pub raw: String,
    /// Their place in the file.
    pub span: Span,
}

/// One instruction of a Dockerfile.
#[derive(Debug, Clone)]
pub enum Instruction {
    /// `FROM base [AS name]`: starts a stage.
    From(From),
    /// `RUN`: executes a command and keeps what it changed.
    Run(Run),
    /// `COPY`: files of the context, a stage or an image.
    Copy(Copy),
    /// `ADD`: as `COPY`, and unpacks local archives, downloads files, clones git repositories.
    Add(Add),
    /// `ARG name[=default]...`.
    Arg(Vec<Argument>),
    /// `ENV name=value...`.
    Env(Vec<Pair>),
    /// `LABEL name=value...`.
    Label(Vec<Pair>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `EXPOSE port[/protocol]...`.
    Expose(Vec<Text>),
    /// `VOLUME path...`.
    Volume(Vec<Text>),
    /// `USER name[:group]`.
    User(Text),
    /// `WORKDIR path`.
    Workdir(Text),
    /// `SHELL ["program", "argument"...]`.
    Shell(Vec<String>),
    /// `STOPSIGNAL signal`.
    StopSignal(Text),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `ONBUILD instruction`.
    Onbuild(Onbuild),
    /// `MAINTAINER name`, deprecated.
    Maintainer(Text),
}

/// `FROM`.
#[derive(Debug, Clone)]
pub struct From {
    /// An image, an earlier stage or `scratch`.
    pub base: Text,
    /// `--platform`.
    pub platform: Option<Text>,
    /// The stage's name, lower case.
    pub name: Option<Text>,
    /// `AS` and the name as they are written.
    pub written: Option<(Text, Text)>,
}

/// A command in exec form (a JSON array) or shell form (a line for the shell).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// The words as they go to `execve(2)`.
    Exec(Vec<String>),
    /// One line, which the stage's shell gets as its last argument.
    Shell(String),
}

/// `RUN`.
#[derive(Debug, Clone)]
pub struct Run {
    /// What to execute. With heredocs: the line that opens them.
    pub command: CommandLine,
    /// Documents opened on the line.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<Text>,
    /// `--security`.
    pub security: Option<Text>,
    /// `--device`.
    pub devices: Vec<Text>,
}

/// `--mount=key=value,...`, with known keys and unexpanded values.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Keys in lower case with their values; a key may stand alone (`ro`).
    pub fields: Vec<(String, Option<String>)>,
    /// The whole flag.
    pub span: Span,
}

/// What `COPY` and `ADD` share.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// What to copy, in order.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Text,
    /// `--chown`.
    pub chown: Option<Text>,
    /// `--chmod`.
    pub chmod: Option<Text>,
    /// `--link`: the layer does not depend on what is below.
    pub link: bool,
    /// `--exclude`, repeatable.
    pub exclude: Vec<Text>,
}

/// A source of `COPY` or `ADD`.
#[derive(Debug, Clone)]
pub enum Source {
    /// A path or pattern; for `ADD` also a URL.
    Path(Text),
    /// A document, which becomes a file of its name.
    Heredoc(Heredoc),
}

impl Source {
    /// The path, pattern or URL, if it is no document.
    pub fn path(&self) -> Option<&Text> {
        match self {
            Self::Path(text) => Some(text),
            Self::Heredoc(_) => None,
        }
    }
}

/// `COPY`.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Sources, destination, owner and mode.
    pub transfer: Transfer,
    /// `--from`: a stage, its number or an image.
    pub from: Option<Text>,
    /// `--parents`: keeps the sources' directories.
    pub parents: bool,
}

/// `ADD`.
#[derive(Debug, Clone)]
pub struct Add {
    /// Sources, destination, owner and mode.
    pub transfer: Transfer,
    /// `--checksum`, for URLs and git repositories.
    pub checksum: Option<Text>,
    /// `--keep-git-dir`, for git repositories.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`: by default local archives are unpacked and downloaded ones are not.
    pub unpack: Option<bool>,
}

/// `name[=default]` of `ARG`.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Its name.
    pub name: Text,
    /// Its default, which the command line may override.
    pub default: Option<Text>,
}

/// `name=value` of `ENV` and `LABEL`.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Before the `=`.
    pub name: Text,
    /// After it.
    pub value: Text,
    /// The old form, without `=`.
    pub legacy: bool,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone)]
pub struct Healthcheck {
    /// `None` for `HEALTHCHECK NONE`, which turns off the base image's.
    pub command: Option<CommandLine>,
    /// `--interval`.
    pub interval: Option<Text>,
    /// `--timeout`.
    pub timeout: Option<Text>,
    /// `--start-period`.
    pub start_period: Option<Text>,
    /// `--start-interval`.
    pub start_interval: Option<Text>,
    /// `--retries`.
    pub retries: Option<Text>,
}

/// `ONBUILD`: recorded in the image, executed by the stage that is based on it.
#[derive(Debug, Clone)]
pub struct Onbuild {
    /// The instruction as text with its heredocs, as images record it.
    pub text: String,
    /// The same, parsed: so a mistake shows now and not in someone else's build.
    pub statement: Box<Statement>,
}

/// The names of all instructions.
pub const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
