//! `pull`, `push`: between the store and registries.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use teu_store::image::Platform;
use teu_store::progress::Progress;
use teu_store::transfer::{self, PushOptions};
use teu_store::{Reference, Store};

use super::Outcome;
use super::registry::{ForeignArgs, RegistryArgs};

/// Whether progress is shown.
#[derive(Debug, Args)]
pub(crate) struct ProgressArgs {
    /// Print the result only
    #[arg(short, long)]
    quiet: bool,
}

impl ProgressArgs {
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(crate) fn progress(&self) -> Progress {
        if self.quiet {
            Progress::quiet()
        } else {
            Progress::to_stderr()
        }
    }
}

/// Fetch an image from a registry
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Name of the image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    name: Reference,
    /// Which image of several, as OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    foreign: ForeignArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Pull {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let platform = self.platform.unwrap_or_else(Platform::host);
        let options = self.foreign.with(self.registry.options());
        let progress = self.progress.progress();
        let pulled = transfer::pull(store, &self.name, &platform, &options, &progress)
            .map_err(|source| Failed::new("pull", &self.name, source))?;
        print_result(&self.name, &pulled.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
}

/// Send an image to a registry
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Name or id of an image of the store
    image: String,
    /// Where to [default: what the name says]
    destination: Option<Reference>,
    /// Send layers that are kept as plain tars as they are, so that no digest changes
    #[arg(long)]
    preserve_digests: bool,
    /// How layers that are kept as plain tars are packed; zstd packs several times faster and smaller, and is read by
    /// docker from version 23 on
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "gzip",
        conflicts_with = "preserve_digests"
    )]
    compression: Compression,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Push {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let destination = match self.destination {
            Some(destination) => destination,
            None => self
                .image
                .parse()
                .map_err(|error| format!("{error}; give a destination as second argument"))?,
        };
        let options = PushOptions {
            registry: self.registry.options(),
            preserve_digests: self.preserve_digests,
            zstd: self.compression == Compression::Zstd,
        };
        let progress = self.progress.progress();
        let pushed = transfer::push(store, &self.image, &destination, &options, &progress)
            .map_err(|source| Failed::new("push", &destination, source))?;
        print_result(&destination, &pushed.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The line on standard output: a name that means exactly this image.
pub(crate) fn print_result(name: &Reference, digest: &teu_store::Digest) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    match name.digest() {
        Some(_) => writeln!(out, "{name}"),
        None => writeln!(out, "{name}@{digest}"),
    }
}

/// A command that failed on an image.
#[derive(Debug, thiserror::Error)]
#[error("{action} {name}")]
pub(crate) struct Failed {
    action: &'static str,
    name: String,
    source: transfer::Error,
}

impl Failed {
    pub(crate) fn new(
        action: &'static str,
        name: impl std::fmt::Display,
        source: transfer::Error,
    ) -> Self {
        Self {
            action,
            name: name.to_string(),
            source,
        }
    }
}
