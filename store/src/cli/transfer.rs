//! `pull`, `push`: between the store and registries.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args};
use teu_store::image::Platform;
use teu_store::progress::Progress;
use teu_store::registry::{Credentials, Options, TrustOptions};
use teu_store::transfer::{self, PushOptions};
use teu_store::{Reference, Store};

use super::Outcome;

/// How a registry is reached; the same for all commands that do.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Credentials, instead of those that `podman login`, `skopeo login` or `docker login` stored
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    creds: Option<Credentials>,
    /// File with stored credentials [default: $REGISTRY_AUTH_FILE, then podman's and docker's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Speak http without TLS (a registry on this machine is asked which of the two it speaks)
    #[arg(long)]
    plain_http: bool,
    /// Whether the registry's certificate must be good
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    tls_verify: bool,
    /// Folder with authorities (*.crt) and own certificates (*.cert, *.key), besides /etc/containers/certs.d/HOST and /etc/docker/certs.d/HOST
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Accept this host as token server, though it is of another site than the registry; may be repeated
    #[arg(long, value_name = "HOST")]
    allow_realm: Vec<String>,
}

impl RegistryArgs {
    pub(crate) fn options(self) -> Options {
        Options {
            plain_http: self.plain_http,
            trust: TrustOptions {
                unverified: !self.tls_verify,
                cert_dir: self.cert_dir,
            },
            credentials: self.creds,
            authfile: self.authfile,
            allowed_realms: self.allow_realm,
        }
    }
}

pub(crate) fn credentials(text: &str) -> Result<Credentials, String> {
    Credentials::from_pair(text).ok_or_else(|| "want USER:PASSWORD".to_owned())
}

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
    registry: RegistryArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Pull {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let platform = self.platform.unwrap_or_else(Platform::host);
        let options = self.registry.options();
        let progress = self.progress.progress();
        let pulled = transfer::pull(store, &self.name, &platform, &options, &progress)
            .map_err(|source| Failed::new("pull", &self.name, source))?;
        print_result(&self.name, &pulled.digest)?;
        Ok(ExitCode::SUCCESS)
    }
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
