//! The command line: runc's commands and flags.

mod act;
mod args;
mod checkpoint;
mod duration;
mod events;
mod help;
mod query;
mod run;
pub(crate) mod suggest;
mod table;
mod template;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;
use crate::id::ContainerId;
use crate::log::{Format, Log};
use crate::protect;
use crate::state::Root;
use crate::trace;
use args::Args;
use table::{COMMANDS, CommandSpec, GLOBAL};

/// Exit code of `exec` where the process itself did not run; other commands
/// exit with 1.
const EXEC_FAILED: u8 = 255;

/// Exit code where help is wanted on what there is not, as runc has it.
const NO_TOPIC: u8 = 3;

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    globals: Args,
    wish: Wish,
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The log that the error belongs in.
    pub log: Log,
    /// Why.
    pub error: Error,
    /// The exit code.
    pub code: u8,
}

/// What the caller wants.
#[derive(Debug)]
enum Wish {
    /// To read about a command, or about all.
    Help(Option<&'static CommandSpec>),
    /// The version.
    Version,
    /// A command.
    Command(&'static CommandSpec, Args),
    /// Something that cannot be understood: the command as far as it is known,
    /// and what is wrong.
    Misuse(Option<&'static CommandSpec>, Error),
}

/// Where containers are kept unless `--root` says otherwise.
const ROOT_DEFAULT: &str = "/run/teu-runtime";

/// Reads the arguments after the program's name. What is wrong with them is
/// said by [`Invocation::run`], where the log is known.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Invocation {
    let mut parser = lexopt::Parser::from_args(args);
    let mut globals = Args::default();
    let wish = match args::parse_until_value(&mut parser, GLOBAL, &mut globals) {
        Err(error) => Wish::Misuse(None, error),
        Ok(_) if globals.flag("version") => Wish::Version,
        Ok(None) => Wish::Help(None),
        Ok(Some(name)) if globals.flag("help") => help_on(Some(&name)),
        Ok(Some(name)) if name == "help" || name == "h" => {
            let topic = parser
                .value()
                .ok()
                .and_then(|topic| topic.into_string().ok());
            help_on(topic.as_deref())
        }
        Ok(Some(name)) => match command(&name) {
            None => help_on(Some(&name)),
            Some(spec) => match args::parse_command(&mut parser, spec) {
                Ok(args) if args.flag("help") => Wish::Help(Some(spec)),
                Ok(args) => Wish::Command(spec, args),
                Err(error) => Wish::Misuse(Some(spec), error),
            },
        },
    };
    Invocation { globals, wish }
}

fn command(name: &str) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|command| command.name == name)
}

fn help_on(topic: Option<&str>) -> Wish {
    match topic {
        None => Wish::Help(None),
        Some(topic) => match command(topic) {
            Some(spec) => Wish::Help(Some(spec)),
            None => Wish::Misuse(None, Error::Usage(unknown(topic))),
        },
    }
}

/// What is wrong with a command that does not exist: runc's words, and what
/// was probably meant.
fn unknown(name: &str) -> String {
    let names = COMMANDS.iter().map(|command| command.name);
    let meant = suggest::closest(name, names)
        .map_or_else(String::new, |meant| format!(", did you mean {meant:?}?"));
    format!("No help topic for '{name}'{meant}")
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// All containers.
    pub root: Root,
    /// Whether the caller named their place.
    pub root_is_given: bool,
    /// Where news goes.
    pub log: &'a Log,
    /// How many descriptors from 3 on the container's process is given.
    pub preserve_fds: u32,
    /// `--rootless`, where it is not `auto`.
    pub rootless: Option<bool>,
    /// `--systemd-cgroup`: new containers get their cgroups from systemd.
    pub systemd_cgroup: bool,
    /// `--criu`: what checkpoints and restores.
    pub criu: &'a str,
}

impl Invocation {
    /// Carries the command out; its exit code.
    pub(crate) fn run(self) -> Result<u8, Box<Failed>> {
        let code = self.failure_code();
        let command = self.command();
        // Descriptors are settled before the log takes one.
        let preserve_fds = self.settle();
        let failed = |log, error| Box::new(Failed { log, error, code });
        let log = match self.log() {
            Ok(log) => log,
            Err(error) => return Err(failed(Log::default(), error)),
        };
        let done = preserve_fds
            .and_then(|preserve_fds| self.trace().map(|()| preserve_fds))
            .and_then(|preserve_fds| self.dispatch(&log, preserve_fds));
        match &done {
            Ok(_) => trace::step("end"),
            Err(error) => trace::step_of(|| format!("fail: {}", error.chain())),
        }
        trace::write();
        done.map_err(|error| failed(log, error.see_help(command)))
    }

    /// Begins the timeline of `--trace`.
    fn trace(&self) -> Result<(), Error> {
        let (Some(path), Wish::Command(spec, args)) = (self.globals.value("trace"), &self.wish)
        else {
            return Ok(());
        };
        let id = args.words.first().map_or("", String::as_str);
        trace::begin(path, &format!("{} {id}", spec.name))
    }

    /// Protects the binary and keeps descriptors from programs, where a
    /// container's process is going to be made.
    fn settle(&self) -> Result<u32, Error> {
        match &self.wish {
            Wish::Command(spec, args)
                if matches!(spec.name, "create" | "run" | "exec" | "restore") =>
            {
                // As with runc, sockets are for who is started as a service.
                run::settle(args, spec.name != "exec")
            }
            _ => Ok(0),
        }
    }

    /// The command, as far as it is known.
    fn command(&self) -> Option<&'static str> {
        match &self.wish {
            Wish::Command(spec, _) | Wish::Misuse(Some(spec), _) => Some(spec.name),
            Wish::Help(_) | Wish::Version | Wish::Misuse(None, _) => None,
        }
    }

    /// The exit code of a failure, as runc has it.
    fn failure_code(&self) -> u8 {
        match &self.wish {
            Wish::Command(spec, _) if spec.name == "exec" => EXEC_FAILED,
            Wish::Misuse(None, Error::Usage(text)) if text.starts_with("No help") => NO_TOPIC,
            _ => 1,
        }
    }

    fn log(&self) -> Result<Log, Error> {
        let format = match self.globals.value("log-format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                return Err(Error::Usage(format!(
                    "invalid log-format: {other:?} (text or json)"
                )));
            }
        };
        Log::open(
            self.globals.value("log"),
            format,
            self.globals.flag("debug"),
        )
    }

    fn dispatch(self, log: &Log, preserve_fds: u32) -> Result<u8, Error> {
        let (spec, args) = match self.wish {
            Wish::Help(spec) => return help::print(spec).map(|()| 0),
            Wish::Version => return help::version().map(|()| 0),
            Wish::Misuse(None, error) => return Err(error),
            Wish::Misuse(Some(spec), error) => {
                help::misused(spec)?;
                return Err(error);
            }
            Wish::Command(spec, ref args) => (spec, args),
        };
        log.debug(|| format!("command {}", spec.name));
        if matches!(spec.name, "create" | "run" | "exec") {
            protect::tell(log);
        }
        let context = Context {
            root: Root::new(self.root()),
            root_is_given: self.globals.value("root").is_some(),
            log,
            preserve_fds,
            rootless: rootless(self.globals.value("rootless"))?,
            systemd_cgroup: self.globals.flag("systemd-cgroup"),
            criu: self.globals.value("criu").unwrap_or("criu"),
        };
        self.execute(spec.name, &context, args)
    }

    fn execute(&self, name: &str, context: &Context<'_>, args: &Args) -> Result<u8, Error> {
        match name {
            "create" => run::create(context, args),
            "run" => run::run(context, args),
            "exec" => run::exec(context, args),
            "start" => act::start(context, args),
            "kill" => act::kill(context, args),
            "delete" => act::delete(context, args),
            "events" => events::events(context, args),
            "mounts" => act::mounts(context, args),
            "pause" => act::pause(context, args),
            "resume" => act::resume(context, args),
            "update" => update::update(context, args),
            "checkpoint" => checkpoint::checkpoint(context, args),
            "restore" => checkpoint::restore(context, args),
            "state" => query::state(context, args),
            "list" => query::list(context, args),
            "ps" => query::ps(context, args),
            "spec" => template::spec(args),
            "features" => query::features(),
            other => Err(Error::Usage(format!("unknown command {other:?}"))),
        }
    }

    fn root(&self) -> PathBuf {
        match self.globals.value("root") {
            Some(root) => absolute(root),
            None if is_hosts_root() => ROOT_DEFAULT.into(),
            None => match std::env::var_os("XDG_RUNTIME_DIR") {
                Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("teu-runtime"),
                _ => ROOT_DEFAULT.into(),
            },
        }
    }
}

/// Whether /run is the caller's own: not where a user namespace only makes an
/// ordinary user look like root, as rootless podman does. Who calls itself root
/// there (`USER`) has a /run of its own: a container in a container.
fn is_hosts_root() -> bool {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let elsewhere = named("XDG_RUNTIME_DIR").is_some();
    rustix::process::geteuid().is_root()
        && !(elsewhere
            && named("USER").is_none_or(|user| user != "root")
            && crate::cgroup::is_unprivileged().unwrap_or(false))
}

/// Reads `--rootless`, in the spellings of Go's booleans as runc does.
fn rootless(value: Option<&str>) -> Result<Option<bool>, Error> {
    match value {
        None | Some("" | "auto") => Ok(None),
        Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Ok(Some(true)),
        Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Ok(Some(false)),
        Some(other) => Err(Error::Usage(format!(
            "invalid value {other:?} for flag --rootless: true, false or auto"
        ))),
    }
}

/// A path of the caller, independent of the working directory.
pub(crate) fn absolute(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    std::path::absolute(&path).unwrap_or(path)
}

/// The container that the first argument names.
pub(crate) fn container_id(args: &Args) -> Result<ContainerId, Error> {
    args.words.first().map_or("", String::as_str).parse()
}

/// Puts the command and the container before an error.
pub(crate) fn named<T>(
    command: &'static str,
    id: &ContainerId,
    result: Result<T, Error>,
) -> Result<T, Error> {
    result.map_err(|source| Error::Command {
        command,
        id: id.to_string(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rootless_is_a_boolean_or_auto() {
        assert_eq!(rootless(None).unwrap(), None);
        assert_eq!(rootless(Some("auto")).unwrap(), None);
        assert_eq!(rootless(Some("true")).unwrap(), Some(true));
        assert_eq!(rootless(Some("0")).unwrap(), Some(false));
        let error = rootless(Some("maybe")).unwrap_err().to_string();
        assert!(error.contains("--rootless"), "{error}");
    }
}
