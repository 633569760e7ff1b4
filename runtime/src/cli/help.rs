//! `--help` and `--version`.

use std::fmt::Write;

use super::query::out;
use super::table::{COMMANDS, CommandSpec, FlagSpec, GLOBAL};
use crate::called::program;
use crate::error::Error;
use crate::spec::OCI_VERSION;

/// This version.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of runc whose command line and behaviour this is.
const RUNC_VERSION: &str = "1.5.1";

/// Prints the help of a command, or of all.
pub(super) fn print(command: Option<&CommandSpec>) -> Result<(), Error> {
    out(&text(program(), command))
}

/// Prints what a command would have taken, before the error that says what
/// was wrong.
pub(super) fn misused(command: &CommandSpec) -> Result<(), Error> {
    out(&format!(
        "Incorrect Usage.\n\n{}",
        text(program(), Some(command))
    ))
}

/// Prints name and version: in the first two lines dockerd looks for the words
/// `version` and `commit:`.
pub(super) fn version() -> Result<(), Error> {
    out(&version_of(program()))
}

fn version_of(program: &str) -> String {
    let version = match program {
        "runc" => RUNC_VERSION,
        _ => OWN_VERSION,
    };
    format!("{program} version {version}\ncommit: teu-runtime {OWN_VERSION}\nspec: {OCI_VERSION}\n")
}

fn text(program: &str, command: Option<&CommandSpec>) -> String {
    let mut text = String::new();
    let _ = match command {
        Some(CommandSpec {
            name, help, usage, ..
        }) => writeln!(
            text,
            "NAME:\n   {program} {name} - {help}\n\nUSAGE:\n   {program} {name} {usage}\n"
        ),
        None => {
            let _ = writeln!(
                text,
                "NAME:\n   {program} - Open Container Initiative runtime\n\n\
                 USAGE:\n   {program} [global options] COMMAND [options] [arguments]\n\n\
                 VERSION:\n   {OWN_VERSION}, with the command line of runc {RUNC_VERSION}\n\n\
                 COMMANDS:"
            );
            for command in COMMANDS {
                let _ = writeln!(text, "   {:<10} {}", command.name, command.help);
            }
            writeln!(
                text,
                "   {:<10} show this help, or that of a command\n",
                "help, h"
            )
        }
    };
    text.push_str(match command {
        Some(_) => "OPTIONS:\n",
        None => "GLOBAL OPTIONS:\n",
    });
    let flags = command.map_or(GLOBAL, |command| command.flags);
    for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
        let _ = writeln!(text, "   {:<28} {}", names(flag), flag.help);
    }
    text
}

fn names(flag: &FlagSpec) -> String {
    let mut names = format!("--{}", flag.name);
    if let Some(short) = flag.short {
        let _ = write!(names, ", -{short}");
    }
    if let Some(value) = flag.value {
        let _ = write!(names, " {value}");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_program_in_its_second_line() {
        let all = text("runc", None);
        let second = all.lines().nth(1).unwrap();
        assert_eq!(second, "   runc - Open Container Initiative runtime");
        for command in COMMANDS {
            let help = text("teu-runtime", Some(command));
            let line = format!("   teu-runtime {} - ", command.name);
            assert!(help.lines().nth(1).unwrap().starts_with(&line), "{help}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_name() {
        assert!(version_of("runc").starts_with("runc version 1.5.1\ncommit: teu-runtime "));
        let own = version_of("teu-runtime");
        assert!(own.starts_with(&format!("teu-runtime version {OWN_VERSION}\n")));
        assert!(own.ends_with(&format!("\nspec: {OCI_VERSION}\n")));
    }
}
