//! `copy`: from any place of images to any other.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args};
use teu_store::Store;
use teu_store::copy::{self, CopyOptions, Location};
use teu_store::image::Platform;
use teu_store::registry::{Credentials, Options, TrustOptions};

use super::Outcome;
use super::registry::{ForeignArgs, RegistryArgs, credentials};
use super::transfer::{Failed, ProgressArgs};

/// The docker daemon's socket.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Copy an image from any place to any other, without storing it in between
///
/// Places are docker://NAME (a registry), oci:PATH[:REF], oci-archive:PATH[:REF], docker-archive:PATH[:NAME],
/// docker-daemon:NAME, and store:NAME or a name alone. What was copied is printed as its digest.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Where from
    #[arg(value_name = "SOURCE")]
    from: Location,
    /// Where to
    #[arg(value_name = "DESTINATION")]
    to: Location,
    /// Copy the images for all platforms, and their index
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// Which image of several, as OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Change no byte of any document or layer
    #[arg(long)]
    preserve_digests: bool,
    /// The docker daemon, as unix:///PATH [default: $DOCKER_HOST, then /var/run/docker.sock]
    #[arg(long, value_name = "ADDRESS")]
    daemon_host: Option<String>,
    #[command(flatten)]
    foreign: ForeignArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    sides: Sides,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// What is said of one of two registries; what is not said is as for both.
#[derive(Debug, Args)]
struct Sides {
    /// --creds for the source alone
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    src_creds: Option<Credentials>,
    /// --creds for the destination alone
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    dest_creds: Option<Credentials>,
    /// --authfile for the source alone
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// --authfile for the destination alone
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// --plain-http for the source alone
    #[arg(long)]
    src_plain_http: bool,
    /// --plain-http for the destination alone
    #[arg(long)]
    dest_plain_http: bool,
    /// --tls-verify for the source alone
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    src_tls_verify: Option<bool>,
    /// --tls-verify for the destination alone
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    dest_tls_verify: Option<bool>,
    /// --cert-dir for the source alone
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
    /// --cert-dir for the destination alone
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
}

impl Copy {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let both = self.foreign.with(self.registry.options());
        let sides = self.sides;
        let one = |creds: Option<Credentials>, authfile, plain, verify: Option<bool>, cert_dir| {
            let unverified = verify.map_or(both.trust.unverified, |verify| !verify);
            Options {
                plain_http: both.plain_http || plain,
                trust: TrustOptions {
                    unverified,
                    cert_dir: Option::or(cert_dir, both.trust.cert_dir.clone()),
                },
                credentials: creds.or_else(|| both.credentials.clone()),
                authfile: Option::or(authfile, both.authfile.clone()),
                ..both.clone()
            }
        };
        let options = CopyOptions {
            from: one(
                sides.src_creds,
                sides.src_authfile,
                sides.src_plain_http,
                sides.src_tls_verify,
                sides.src_cert_dir,
            ),
            to: one(
                sides.dest_creds,
                sides.dest_authfile,
                sides.dest_plain_http,
                sides.dest_tls_verify,
                sides.dest_cert_dir,
            ),
            all: self.all,
            platform: self.platform.unwrap_or_else(Platform::host),
            preserve_digests: self.preserve_digests,
            docker_socket: docker_socket(self.daemon_host)?,
        };
        let progress = self.progress.progress();
        let digest =
            copy::copy(store, &self.from, &self.to, &options, &progress).map_err(|source| {
                Failed::new("copy", format!("{} to {}", self.from, self.to), source)
            })?;
        writeln!(std::io::stdout(), "{digest}")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The socket that an address names; only sockets of this machine are spoken to.
pub(crate) fn docker_socket(address: Option<String>) -> Result<PathBuf, String> {
    let address = address.or_else(|| {
        std::env::var("DOCKER_HOST")
            .ok()
            .filter(|address| !address.is_empty())
    });
    match address {
        None => Ok(DOCKER_SOCKET.into()),
        Some(address) => match address.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => Err(format!(
                "{address:?} is not an address of a docker daemon on this machine: want unix:///PATH"
            )),
        },
    }
}
