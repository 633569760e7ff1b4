//! Verbs of the other programs, executed as `git` executes its own.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::Subcommand;

use crate::container::Place;
use crate::{Error, siblings};

/// What is passed on as it is.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Rest {
    /// What the program says with --help
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<std::ffi::OsString>,
}

/// A verb of another program.
#[derive(Debug, Subcommand)]
pub(super) enum Pass {
    /// Build an image from a Dockerfile
    Build(Rest),
    /// List images
    Images(Rest),
    /// Fetch an image from a registry
    Pull(Rest),
    /// Send an image to a registry
    Push(Rest),
    /// Give an image another name
    Tag(Rest),
    /// Remove images
    Rmi(Rest),
    /// Read an image or a file system from a file
    Import(Rest),
    /// Write an image to a file
    Export(Rest),
    /// Take names of images away
    Untag(Rest),
    /// Show how an image came to be
    History(Rest),
    /// Show which files of two images differ
    Diff(Rest),
    /// Show what takes room in the store
    Df(Rest),
    /// Remove images that no container uses, by age and size
    Prune(Rest),
    /// Check everything in the store, and repair it
    Verify(Rest),
    /// Remove what no image and no container needs
    Gc(Rest),
}

/// Becomes the other program.
pub(super) fn run(place: &Place, pass: Pass) -> Result<u8, Error> {
    let (program, verb, rest) = match pass {
        Pass::Build(rest) => ("teu-build", "build", rest),
        Pass::Images(rest) => ("teu-store", "images", rest),
        Pass::Pull(rest) => ("teu-store", "pull", rest),
        Pass::Push(rest) => ("teu-store", "push", rest),
        Pass::Tag(rest) => ("teu-store", "tag", rest),
        Pass::Rmi(rest) => ("teu-store", "rmi", rest),
        Pass::Import(rest) => ("teu-store", "import", rest),
        Pass::Export(rest) => ("teu-store", "export", rest),
        Pass::Untag(rest) => ("teu-store", "untag", rest),
        Pass::History(rest) => ("teu-store", "history", rest),
        Pass::Diff(rest) => ("teu-store", "diff", rest),
        Pass::Df(rest) => ("teu-store", "df", rest),
        Pass::Prune(rest) => ("teu-store", "prune", rest),
        Pass::Verify(rest) => ("teu-store", "verify", rest),
        Pass::Gc(rest) => ("teu-store", "gc", rest),
    };
    become_program(place, program, verb, &rest.arguments)
}

/// Executes a sibling in place of this process, on our store.
pub(super) fn become_program<A: AsRef<std::ffi::OsStr>>(
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
