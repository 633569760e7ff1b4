//! What all commands that talk to registries take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use teu_store::registry::{Credentials, Files, Limits, Options, TrustOptions};

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
    /// Mirrors, insecure and blocked registries [default: podman's files below /etc/containers and ~/.config/containers]
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
    /// Folder with HOST/hosts.toml [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,
    /// How often a request that failed for the moment is made again
    #[arg(long, value_name = "N", default_value_t = 5)]
    retry_times: u32,
    /// Wait before the first repetition, doubled with each further one
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    retry_delay: Duration,
    /// How long a registry may be silent in the middle of an answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    stall_limit: Duration,
    /// Bytes a second below which an answer counts as stalled
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    min_rate: u64,
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
            files: Files {
                registries_conf: self.registries_conf,
                hosts_dir: self.hosts_dir,
            },
            limits: Limits {
                attempts: self.retry_times.saturating_add(1),
                first_delay: self.retry_delay,
                stall: self.stall_limit,
                rate_min: self.min_rate,
            },
            foreign_layers: false,
        }
    }
}

pub(crate) fn credentials(text: &str) -> Result<Credentials, String> {
    Credentials::from_pair(text).ok_or_else(|| "want USER:PASSWORD".to_owned())
}

/// A time as people write it: `500ms`, `10s`, `2m`; a number alone is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time: want a number with ms, s or m behind it");
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
    .and_then(|time| {
        if time.is_zero() {
            Err(format!("{text:?} is no time at all"))
        } else {
            Ok(time)
        }
    })
}

/// What commands that fetch layers take, too.
#[derive(Debug, Args)]
pub(crate) struct ForeignArgs {
    /// Fetch layers that are not stored with their image from the addresses it names
    #[arg(long)]
    allow_foreign_layers: bool,
}

impl ForeignArgs {
    pub(crate) fn with(&self, options: Options) -> Options {
        Options {
            foreign_layers: self.allow_foreign_layers,
            ..options
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("7", 7000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)));
        }
        for bad in ["", "ms", "1h", "-1s", "0", "1.5s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
