//! Verbs of the other programs, executed as `git` executes its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use crate::container::Place;
use crate::{Error, siblings};

/// Whose verbs they are, and what a line of help says of each; the programs say the rest.
const VERBS: [(&str, &str, &str); 29] = [
    ("teu-build", "build", "Build an image from a Dockerfile"),
    ("teu-store", "images", "List images"),
    ("teu-store", "pull", "Fetch an image from a registry"),
    ("teu-store", "push", "Send an image to a registry"),
    ("teu-store", "login", "Keep credentials for a registry"),
    ("teu-store", "logout", "Forget credentials for a registry"),
    ("teu-store", "search", "List the repositories of a registry"),
    ("teu-store", "list-tags", "List the tags of a repository"),
    ("teu-store", "referrers", "List what refers to an image"),
    ("teu-store", "verify-signature", "Check who signed an image"),
    (
        "teu-store",
        "copy",
        "Copy an image from any place to any other",
    ),
    ("teu-store", "tag", "Give an image another name"),
    ("teu-store", "untag", "Take names of images away"),
    ("teu-store", "rmi", "Remove images"),
    ("teu-store", "history", "Show how an image came to be"),
    ("teu-store", "diff", "Show how two images differ"),
    (
        "teu-store",
        "layers",
        "Show which images share which layers",
    ),
    (
        "teu-store",
        "config",
        "Make an image that runs in another way",
    ),
    (
        "teu-store",
        "index",
        "Join images of several platforms under one name",
    ),
    ("teu-store", "import", "Read images from a file"),
    ("teu-store", "export", "Write images to a file"),
    ("teu-store", "unpack", "Copy an image into a bundle"),
    ("teu-store", "repack", "Make an image of an unpacked bundle"),
    ("teu-store", "mount", "Show an image as a directory"),
    ("teu-store", "umount", "Take such a directory away"),
    ("teu-store", "verify", "Check all images byte by byte"),
    ("teu-store", "df", "Show what takes room"),
    (
        "teu-store",
        "prune",
        "Remove images by age, or until little room is taken",
    ),
    (
        "teu-store",
        "gc",
        "Remove what no image and no container needs",
    ),
];

/// A verb of another program, and its arguments, which that program reads.
#[derive(Debug)]
pub(super) struct Pass {
    program: &'static str,
    verb: &'static str,
    arguments: Vec<OsString>,
}

impl clap::Subcommand for Pass {
    fn augment_subcommands(teu: clap::Command) -> clap::Command {
        teu.subcommands(VERBS.map(|(program, verb, about)| {
            let rest = Arg::new("arguments")
                .value_name("ARGUMENT")
                .help(format!("What {program} {verb} --help says"))
                .action(ArgAction::Append)
                .value_parser(value_parser!(OsString))
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true);
            clap::Command::new(verb)
                .about(about)
                .disable_help_flag(true)
                .arg(rest)
        }))
    }

    fn augment_subcommands_for_update(teu: clap::Command) -> clap::Command {
        Self::augment_subcommands(teu)
    }

    fn has_subcommand(name: &str) -> bool {
        VERBS.iter().any(|(_, verb, _)| *verb == name)
    }
}

impl clap::FromArgMatches for Pass {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let found = matches.subcommand().and_then(|(name, matches)| {
            let (program, verb, _) = VERBS.iter().find(|(_, verb, _)| *verb == name)?;
            let arguments = matches.get_many("arguments").unwrap_or_default();
            Some(Pass {
                program,
                verb,
                arguments: arguments.cloned().collect(),
            })
        });
        found.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Becomes the other program.
pub(super) fn run(place: &Place, pass: &Pass) -> Result<u8, Error> {
    become_program(place, pass.program, pass.verb, &pass.arguments)
}

/// Executes a sibling in place of this process, on our store.
pub(super) fn become_program<A: AsRef<OsStr>>(
    place: &Place,
    program: &str,
    verb: &str,
    arguments: &[A],
) -> Result<u8, Error> {
    let path = siblings::find(program)?;
    let mut command = Command::new(&path);
    command
        .arg("--root")
        .arg(place.store())
        .arg(verb)
        .args(arguments);
    let source = command.exec(); // returns only where it fails
    Err(Error::File {
        action: "execute",
        path,
        source,
    })
}
