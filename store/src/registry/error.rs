//! What can go wrong between us and a registry, said so that the user can act on it.

use super::credentials::CredentialsError;
use super::realm::BadRealm;
use super::retry;
use super::trust::TrustError;
use std::io;
use std::time::Duration;

/// Everything that can go wrong with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request did not reach the registry, or its answer did not reach us.
    #[error("{action} at {host}")]
    Transport {
        /// What was attempted: `read manifest library/alpine:latest`.
        action: String,
        /// The registry, or where it sent us.
        host: String,
        /// Why it did not work.
        source: Transport,
    },
    /// The registry does not have it.
    #[error("registry {host} has no {what}{said}: check the name and the tag")]
    NotFound {
        /// The registry.
        host: String,
        /// What it does not have.
        what: String,
        /// What the registry says, in brackets, or nothing.
        said: String,
    },
    /// No credentials were given, and the registry wants some.
    #[error(
        "registry {host} wants a log-in for {repository}: log in with `teu-store login {host}`, or give --creds USER:PASSWORD (private or missing repositories look the same)"
    )]
    LogIn {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The credentials are not good for this registry.
    #[error(
        "registry {host} refuses the credentials of {user}{said}: log in again with `teu-store login {host}`, or give --creds USER:PASSWORD"
    )]
    Rejected {
        /// The registry.
        host: String,
        /// Whose credentials.
        user: String,
        /// What the registry says, in brackets, or nothing.
        said: String,
    },
    /// We are known, and may not.
    #[error("registry {host} does not permit to {action}{said}")]
    Denied {
        /// The registry.
        host: String,
        /// What was attempted.
        action: String,
        /// What the registry says, in brackets, or nothing.
        said: String,
    },
    /// Any other answer that is no success.
    #[error("{action}: {host} answers {status}{said}")]
    Status {
        /// What was attempted.
        action: String,
        /// The registry, or where it sent us.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What it says, in brackets, or nothing.
        said: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The token server that the registry names is not one we go to.
    #[error("registry {host} sends us for a token to {realm:?}, which is not followed")]
    Realm {
        /// The registry.
        host: String,
        /// Where to.
        realm: String,
        /// The rule it breaks.
        source: BadRealm,
    },
    /// An answer that the specification does not permit.
    #[error("{action}: {host} {why}")]
    Answer {
        /// What was attempted.
        action: String,
        /// The registry, or where it sent us.
        host: String,
        /// What is wrong about the answer.
        why: String,
    },
    /// Reading what we send, or writing what we get.
    #[error("read {what}")]
    Local {
        /// What was read.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// An administrator's word.
    #[error("registry {host} is blocked by the rule for {prefix:?} in registries.conf")]
    Blocked {
        /// The registry.
        host: String,
        /// The rule's prefix.
        prefix: String,
    },
    /// Neither the registry nor a mirror could serve it.
    #[error("no mirror served it ({mirrors}), nor the registry")]
    AlsoMirrors {
        /// What each mirror answered.
        mirrors: String,
        /// What the registry answered.
        source: Box<Error>,
    },
    /// A configuration file.
    #[error(transparent)]
    Place(#[from] super::places::PlaceError),
    /// The address cannot be formed.
    #[error("{0:?} is not the host of a registry")]
    BadHost(String),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Error {
    /// Whether the same request may succeed a moment later; if so, the wait
    /// that the other side asks for, if it does.
    #[must_use]
    pub fn passing(&self) -> Option<Option<Duration>> {
        match self {
            Self::Transport { source, .. } => source.is_passing().then_some(None),
            Self::Status {
                status,
                retry_after,
                ..
            } => retry::is_passing(*status).then_some(*retry_after),
            Self::AlsoMirrors { source, .. } => source.passing(),
            _ => None,
        }
    }
}

/// Why bytes did not get through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Transport {
    /// The host's name has no address.
    #[error("{0}")]
    Resolve(String),
    /// Nobody listens.
    #[error("nothing listens there (connection refused)")]
    Refused,
    /// The other side fell silent.
    #[error("nothing came within the time limit ({0})")]
    Stalled(String),
    /// Its certificate is not one we trust.
    #[error(
        "its TLS certificate is not trusted ({0}): put its authority into /etc/containers/certs.d/HOST/ca.crt or a --cert-dir, or give --tls-verify=false"
    )]
    Certificate(String),
    /// It speaks something else than TLS.
    #[error("it does not speak TLS ({0}): if plain http is meant, give --plain-http")]
    NotTls(String),
    /// The connection ended in the middle.
    #[error("the connection was cut ({0})")]
    Cut(String),
    /// A redirect that is not followed.
    #[error("{0}")]
    Redirect(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Transport {
    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Stalled(_) | Self::Cut(_))
    }
}

impl From<ureq::Error> for Transport {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => from_io(&error),
            ureq::Error::Timeout(timeout) => Self::Stalled(format!("{timeout} timeout")),
            ureq::Error::HostNotFound => Self::Resolve("no such host".into()),
            ureq::Error::Rustls(error) => from_tls(&error),
            // A response that ends in its head: the server died.
            ureq::Error::BodyStalled => Self::Cut("the answer stopped".into()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<&io::Error> for Transport {
    fn from(error: &io::Error) -> Self {
        from_io(error)
    }
}

fn from_io(error: &io::Error) -> Transport {
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return from_tls(tls);
    }
    if let Some(inner) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<ureq::Error>())
    {
        return match inner {
            ureq::Error::Timeout(timeout) => Transport::Stalled(format!("{timeout} timeout")),
            other => Transport::Other(other.to_string()),
        };
    }
    match error.kind() {
        io::ErrorKind::NotFound => Transport::Resolve(error.to_string()),
        io::ErrorKind::ConnectionRefused => Transport::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Transport::Stalled(error.to_string())
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Transport::Cut(error.to_string()),
        _ => Transport::Other(error.to_string()),
    }
}

fn from_tls(error: &rustls::Error) -> Transport {
    match error {
        rustls::Error::InvalidCertificate(_) => Transport::Certificate(error.to_string()),
        rustls::Error::InvalidMessage(_) => Transport::NotTls(error.to_string()),
        _ => Transport::Other(format!("TLS: {error}")),
    }
}

/// What a registry says in an error body (distribution-spec, "Error Codes"),
/// in brackets for the end of a message; nothing when it says nothing.
///
/// It goes to a terminal: control characters are dropped, long texts cut.
#[must_use]
pub(super) fn said(body: &[u8]) -> String {
    const SAID_CHARACTERS_MAX: usize = 300;
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let first = &json["errors"][0];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (code, message) = (text(&first["code"]), text(&first["message"]));
    let joined = match (code.as_str(), message.as_str()) {
        ("", "") if json.is_null() => one_line(body),
        ("", "") => text(&json["details"]),
        ("", _) => message,
        (_, "") => code,
        _ => format!("{code}: {message}"),
    };
    let clean: String = joined
        .chars()
        .filter(|c| !c.is_control())
        .take(SAID_CHARACTERS_MAX)
        .collect();
    if clean.is_empty() {
        clean
    } else {
        format!(" ({clean})")
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The text of a plain answer, such as a balancer's; pages for browsers say nothing here.
fn one_line(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if text.starts_with('<') || text.contains('\n') {
        return String::new();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(said(body), " (MANIFEST_UNKNOWN: manifest unknown)");
        assert_eq!(
            said(br#"{"details":"incorrect username or password"}"#),
            " (incorrect username or password)"
        );
        assert_eq!(said(b"<html>nginx</html>"), "");
        assert_eq!(said(b"no TLS here.\n"), " (no TLS here.)");
        let hostile = "{\"errors\":[{\"message\":\"\\u001b[2Jgone\\u0007\"}]}";
        assert_eq!(said(hostile.as_bytes()), " ([2Jgone)");
    }

    #[test]
    fn which_errors_pass() {
        let cut = Transport::from(ureq::Error::Io(io::ErrorKind::ConnectionReset.into()));
        assert!(cut.is_passing());
        let refused = Transport::from(ureq::Error::Io(io::ErrorKind::ConnectionRefused.into()));
        assert!(!refused.is_passing());
        let stalled = Transport::from(ureq::Error::Timeout(ureq::Timeout::PerRead));
        assert!(stalled.is_passing());
    }
}
