//! `teu`: one file a verb, all of them thin. What they do happens in the shim,
//! or in the programs that they execute.

mod attach;
mod bundle;
mod detach;
mod exec;
mod flags;
mod handle;
mod input;
mod inspect;
mod kill;
mod launch;
mod logs;
mod own_terminal;
mod pass;
mod plan;
mod ps;
mod request;
mod rm;
mod run;
mod session;
mod start;
mod stop;
mod user;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Error;
use crate::container::Place;
use crate::error::warn;
use crate::runtime::{STATUS_OWN_ERROR, status_of};

/// Builds images and runs containers, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "teu",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Folder of images, containers and volumes [default: /var/lib/teu; $XDG_DATA_HOME/teu for others than root]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Folder of what a reboot ends [default: /run/teu; $XDG_RUNTIME_DIR/teu for others than root]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a new container
    Run(run::Arguments),
    /// Create a container without starting its program
    Create(run::CreateArguments),
    /// Start a created container, or one that has ended
    Start(start::Arguments),
    /// List containers
    Ps(ps::Arguments),
    /// Show the output of a container
    Logs(logs::Arguments),
    /// Run another command in a running container
    Exec(exec::Arguments),
    /// Connect to the input and output of a running container
    Attach(attach::Arguments),
    /// Ask containers to stop; kill those that do not in time
    Stop(stop::Arguments),
    /// Send containers a signal
    Kill(kill::Arguments),
    /// Wait until containers have ended; print their exit statuses
    Wait(wait::Arguments),
    /// Remove containers with everything that is theirs
    Rm(rm::Arguments),
    /// Show all that is known of containers or images, as JSON
    Inspect(inspect::Arguments),
    #[command(flatten)]
    Pass(pass::Pass),
}

/// Parses, does, prints an error on one line, and says how it went: the
/// container's status, 125 to 127 as docker's, or 1.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|err| {
        // clap knows where its text goes; an error of usage is an error of ours.
        let code = if err.use_stderr() {
            i32::from(STATUS_OWN_ERROR)
        } else {
            0
        };
        let _: std::io::Result<()> = err.print();
        std::process::exit(code)
    });
    let own_error = match arguments.command {
        Command::Run(_) | Command::Create(_) | Command::Start(_) | Command::Exec(_) => {
            STATUS_OWN_ERROR
        }
        _ => 1,
    };
    let place = Place::new(arguments.root.as_deref(), arguments.state.as_deref());
    match place.and_then(|place| dispatch(&place, arguments.command)) {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            warn("teu", &err);
            ExitCode::from(match &err {
                Error::Runtime { message } if own_error == STATUS_OWN_ERROR => status_of(message),
                _ => own_error,
            })
        }
    }
}

fn dispatch(place: &Place, command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(arguments) => run::run(place, &arguments),
        Command::Create(arguments) => run::create(place, &arguments),
        Command::Start(arguments) => start::run(place, &arguments),
        Command::Ps(arguments) => ps::run(place, &arguments),
        Command::Logs(arguments) => logs::run(place, &arguments),
        Command::Exec(arguments) => exec::run(place, &arguments),
        Command::Attach(arguments) => attach::run(place, &arguments),
        Command::Stop(arguments) => stop::run(place, &arguments),
        Command::Kill(arguments) => kill::run(place, &arguments),
        Command::Wait(arguments) => wait::run(place, &arguments),
        Command::Rm(arguments) => rm::run(place, &arguments),
        Command::Inspect(arguments) => inspect::run(place, &arguments),
        Command::Pass(pass) => pass::run(place, &pass),
    }
}

/// Does `action` for each container, prints what went wrong and goes on; prints
/// the name of each that it was done for. 1 if it failed for any.
fn for_each(names: &[String], mut action: impl FnMut(&str) -> Result<(), Error>) -> u8 {
    let mut status = 0;
    for name in names {
        match action(name) {
            Ok(()) => say(name),
            Err(err) => {
                warn("teu", &err);
                status = 1;
            }
        }
    }
    status
}

/// A line on standard output. That nobody reads it is no error.
fn say(line: &str) {
    use std::io::Write as _;
    let _: std::io::Result<()> = writeln!(std::io::stdout(), "{line}");
}

/// What was asked for, on standard output. That nobody reads it is no error;
/// that it has no room is one, since what arrives would look complete.
fn show(text: &str) -> Result<(), Error> {
    use crate::error::At as _;
    use std::io::{ErrorKind, Write as _};
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => {
            Err(err).call("write to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_container() {
        let arguments =
            Arguments::try_parse_from(["teu", "run", "--rm", "image", "ls", "-l", "--rm"]).unwrap();
        let Command::Run(run) = arguments.command else {
            panic!("not run")
        };
        assert_eq!(run.create.command, ["ls", "-l", "--rm"]);
        let arguments =
            Arguments::try_parse_from(["teu", "build", "--help", "-t", "x", "."]).unwrap();
        assert!(matches!(arguments.command, Command::Pass(_)));
    }
}
