//! `--help` and `--version`.

use std::fmt::Write;

use super::table::{COMMANDS, CommandSpec, FlagSpec, GLOBAL};
use crate::spec::OCI_VERSION;

/// Prints the help of a command, or of all.
pub(super) fn print(command: Option<&CommandSpec>) {
    super::query::out(&text(command));
}

/// Prints name and version; the words before the numbers are those that
/// dockerd looks for.
pub(super) fn version() {
    super::query::out(&format!(
        "teu-runtime version {}\nspec: {OCI_VERSION}\n",
        env!("CARGO_PKG_VERSION")
    ));
}

fn text(command: Option<&CommandSpec>) -> String {
    let mut text = String::new();
    let _ = match command {
        Some(command) => {
            let _ = writeln!(
                text,
                "NAME:\n   teu-runtime {} - {}\n",
                command.name, command.help
            );
            writeln!(
                text,
                "USAGE:\n   teu-runtime {} {}\n",
                command.name, command.usage
            )
        }
        None => {
            text.push_str("NAME:\n   teu-runtime - run containers from OCI bundles\n\n");
            text.push_str(
                "USAGE:\n   teu-runtime [global flags] COMMAND [flags] [arguments]\n\nCOMMANDS:\n",
            );
            for command in COMMANDS {
                let _ = writeln!(text, "   {:<10} {}", command.name, command.help);
            }
            writeln!(text)
        }
    };
    text.push_str(if command.is_some() {
        "FLAGS:\n"
    } else {
        "GLOBAL FLAGS:\n"
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
