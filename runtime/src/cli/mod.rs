//! The command line: runc's commands and flags.

mod act;
mod args;
mod checkpoint;
mod duration;
mod events;
mod help;
mod query;
mod run;
mod suggest;
mod table;
mod template;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;
use crate::id::ContainerId;
use crate::log::{Format, Log};
use crate::state::Root;
use crate::trace;
use args::Args;
use table::{COMMANDS, CommandSpec, GLOBAL};

/// Exit code of `exec` where the process itself did not run; other commands
/// exit with 1.
const EXEC_FAILED: u8 = 255;

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    globals: Args,
    command: Option<(&'static CommandSpec, Args)>,
    help: bool,
}

/// Where containers are kept unless `--root` says otherwise.
const ROOT_DEFAULT: &str = "/run/teu-runtime";

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut globals = Args::default();
    let name = args::parse_until_value(&mut parser, GLOBAL, &mut globals)?;
    let Some(name) = name else {
        return Ok(Invocation {
            help: globals.flag("help"),
            globals,
            command: None,
        });
    };
    if name == "help" {
        return Ok(Invocation {
            globals,
            command: None,
            help: true,
        });
    }
    let spec = COMMANDS.iter().find(|command| command.name == name);
    let spec = spec.ok_or_else(|| {
        Error::Usage(format!("unknown command {name:?} (see teu-runtime --help)"))
    })?;
    let args = args::parse_command(&mut parser, spec)?;
    Ok(Invocation {
        help: args.flag("help"),
        globals,
        command: Some((spec, args)),
    })
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// All containers.
    pub root: Root,
    /// Where news goes.
    pub log: &'a Log,
    /// How many descriptors from 3 on the container's process is given.
    pub preserve_fds: u32,
    /// `--rootless`, where it is not `auto`.
    pub rootless: Option<bool>,
    /// `--systemd-cgroup`: new containers get their cgroups from systemd.
    pub systemd_cgroup: bool,
}

impl Invocation {
    /// Carries the command out; the exit code, or the log that an error
    /// belongs in.
    pub(crate) fn run(&self) -> Result<u8, (Log, Error)> {
        // Descriptors are settled before the log takes one.
        let preserve_fds = self.settle();
        let log = self.log().map_err(|error| (Log::default(), error))?;
        let done = preserve_fds
            .and_then(|preserve_fds| self.trace().map(|()| preserve_fds))
            .and_then(|preserve_fds| self.dispatch(&log, preserve_fds));
        match &done {
            Ok(_) => trace::step("end"),
            Err(error) => trace::step_of(|| format!("fail: {}", error.chain())),
        }
        trace::write();
        let command = self.command.as_ref().map(|(spec, _)| spec.name);
        done.map_err(|error| (log, error.see_help(command)))
    }

    /// Begins the timeline of `--trace`.
    fn trace(&self) -> Result<(), Error> {
        let (Some(path), Some((spec, args))) = (self.globals.value("trace"), &self.command) else {
            return Ok(());
        };
        let id = args.words.first().map_or("", String::as_str);
        trace::begin(path, &format!("{} {id}", spec.name))
    }

    /// Protects the binary and closes what the caller left open, where a
    /// container's process is going to be made.
    fn settle(&self) -> Result<u32, Error> {
        match &self.command {
            Some((spec, args))
                if !self.help && matches!(spec.name, "create" | "run" | "exec" | "restore") =>
            {
                run::settle(args)
            }
            _ => Ok(0),
        }
    }

    /// The exit code of a failure.
    pub(crate) fn failure_code(&self) -> u8 {
        match &self.command {
            Some((spec, _)) if spec.name == "exec" => EXEC_FAILED,
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

    fn dispatch(&self, log: &Log, preserve_fds: u32) -> Result<u8, Error> {
        if self.help {
            help::print(self.command.as_ref().map(|(spec, _)| *spec));
            return Ok(0);
        }
        if self.globals.flag("version") {
            help::version();
            return Ok(0);
        }
        let Some((spec, args)) = &self.command else {
            help::print(None);
            return Ok(0);
        };
        log.debug(|| format!("command {}", spec.name));
        let context = Context {
            root: Root::new(self.root()),
            log,
            preserve_fds,
            rootless: rootless(self.globals.value("rootless"))?,
            systemd_cgroup: self.globals.flag("systemd-cgroup"),
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
            None if rustix::process::geteuid().is_root() => ROOT_DEFAULT.into(),
            None => std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
                || ROOT_DEFAULT.into(),
                |dir| PathBuf::from(dir).join("teu-runtime"),
            ),
        }
    }
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
