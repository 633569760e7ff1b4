//! One repository at one registry: requests with authorization and retries, manifests.

use super::auth::{self, Authorization};
use super::credentials::{self, Credentials};
use super::error::{self, Error, Transport};
use super::http::{self, Call, Http};
use super::trust::TrustOptions;
use super::{realm, retry};
use crate::digest::{Digest, Hasher};
use crate::image::{DOCUMENT_BYTES_MAX, media_type};
use crate::reference::Reference;
use std::path::PathBuf;
use ureq::Body;
use ureq::http::{Method, Response, Uri, header};

/// Every manifest type we read: a registry answers 404 to who accepts less than it has.
const ACCEPT_MANIFESTS: [&str; 4] = [
    media_type::OCI_MANIFEST,
    media_type::OCI_INDEX,
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_INDEX,
];

/// Largest error body that is looked into.
const ERROR_BODY_BYTES_MAX: u64 = 64 * 1024;

/// How often one request answers a 401: once for the first log-in, once for a
/// token that another scope or its end made useless.
const AUTH_ROUNDS_MAX: usize = 2;

/// What the user decides about registries.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Plain http instead of TLS. Registries on this machine are asked what they speak.
    pub plain_http: bool,
    /// Certificates.
    pub trust: TrustOptions,
    /// Credentials to use instead of looking for some.
    pub credentials: Option<Credentials>,
    /// The file to look for credentials in.
    pub authfile: Option<PathBuf>,
    /// Hosts of token servers that are accepted though they are of another site than the registry.
    pub allowed_realms: Vec<String>,
}

/// What is going to be done with a repository; a token is asked for just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A manifest or index as it came.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes, of the digest that follows.
    pub bytes: Vec<u8>,
    /// Computed here from the bytes; equal to the asked one where one was asked for.
    pub digest: Digest,
    /// What the registry calls it, without parameters.
    pub media_type: Option<String>,
}

/// A repository at a registry. Requests may run in parallel.
pub struct Client {
    http: Http,
    /// Scheme and host with port.
    base: Uri,
    authorization: Authorization,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}{})", self.base, self.repository())
    }
}

impl Client {
    /// Prepares to talk about `reference`'s repository. Only registries on this
    /// machine are contacted, to see whether they speak TLS. For a push,
    /// `mount_from` names repositories that blobs may be mounted from.
    ///
    /// # Errors
    /// Unreadable credentials or certificates.
    pub fn connect(
        reference: &Reference,
        access: Access,
        mount_from: &[String],
        options: &Options,
    ) -> Result<Self, Error> {
        let host = api_host(reference.registry());
        let http = Http::new(options.trust.clone(), host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let on_this_machine = realm::is_loopback(host) || realm::is_loopback(name);
        let plain = options.plain_http || (on_this_machine && !http.speaks_tls(host)?);
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{host}/")
            .parse()
            .map_err(|_| Error::BadHost(host.to_owned()))?;
        let credentials = match &options.credentials {
            Some(given) => Some(given.clone()),
            None => credentials::find(
                options.authfile.as_deref(),
                reference.registry(),
                reference.repository(),
            )?,
        };
        let repository = reference.repository();
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut scopes = vec![format!("repository:{repository}:{actions}")];
        scopes.extend(
            mount_from
                .iter()
                .map(|other| format!("repository:{other}:pull")),
        );
        let authorization = Authorization::new(
            reference.registry(),
            repository,
            scopes,
            credentials,
            options.allowed_realms.clone(),
        );
        Ok(Self {
            http,
            base,
            authorization,
        })
    }

    /// The repository's path: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.authorization.repository
    }

    /// The registry as the user names it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.authorization.host
    }

    /// Reads the manifest or index that `wanted` (a tag or a digest) names.
    /// What comes under a digest has that digest.
    ///
    /// # Errors
    /// As for every request; besides, an answer that is too long or not what was asked for.
    pub fn manifest(&self, wanted: &str) -> Result<Fetched, Error> {
        let what = self.named(wanted);
        let action = format!("read manifest {what}");
        let uri = self.address(&format!("manifests/{wanted}"))?;
        let call = Call::new(Method::GET, action.clone())
            .header(header::ACCEPT, ACCEPT_MANIFESTS.join(", "));
        let (bytes, media_type) = retry::run(|| {
            let mut response = self.expect(&uri, &call, &[200], &what)?;
            let kind = http::header_text(&response, &header::CONTENT_TYPE).map(media_type_alone);
            let bytes = http::read_body(&mut response, DOCUMENT_BYTES_MAX)
                .map_err(|error| self.unreadable(&action, &error))?;
            Ok((bytes, kind))
        })?;
        let asked: Option<Digest> = wanted.parse().ok();
        let mut hasher = Hasher::new(asked.unwrap_or_else(|| Digest::of(b"")).algorithm());
        hasher.update(&bytes);
        let digest = hasher.finish();
        if asked.is_some_and(|asked| asked != digest) {
            let why = format!("sends a manifest of digest {digest} instead of the one asked for");
            return Err(Error::Answer {
                action,
                host: self.host().to_owned(),
                why,
            });
        }
        Ok(Fetched {
            bytes,
            digest,
            media_type,
        })
    }

    /// `repository:tag` or `repository@digest`, for messages.
    fn named(&self, wanted: &str) -> String {
        let separator = if wanted.contains(':') { '@' } else { ':' };
        format!("{}{separator}{wanted}", self.repository())
    }

    /// The address of something below the repository.
    pub(super) fn address(&self, path: &str) -> Result<Uri, Error> {
        let text = format!("{}v2/{}/{path}", self.base, self.repository());
        text.parse().map_err(|_| Error::BadHost(text.clone()))
    }

    /// Makes a request and tells an expected status from all others, which are
    /// errors. Not repeated; see [`retry::run`].
    pub(super) fn expect(
        &self,
        uri: &Uri,
        call: &Call<'_>,
        expected: &[u16],
        what: &str,
    ) -> Result<Response<Body>, Error> {
        let mut response = self.send(uri, call)?;
        let status = response.status().as_u16();
        if expected.contains(&status) {
            return Ok(response);
        }
        let body = http::read_body(&mut response, ERROR_BODY_BYTES_MAX).unwrap_or_default();
        let said = error::said(&body);
        let (host, action) = (self.host().to_owned(), call.action.clone());
        Err(match status {
            401 => self.authorization.refused(&body),
            403 => Error::Denied { host, action, said },
            404 => Error::NotFound {
                host,
                what: what.to_owned(),
                said,
            },
            _ => Error::Status {
                action,
                host,
                status,
                said,
                retry_after: auth::retry_after(&response),
            },
        })
    }

    /// Makes a request with authorization, where it goes to the registry itself.
    pub(super) fn send(&self, uri: &Uri, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let at_home = http::same_origin(uri, &self.base);
        for _ in 0..AUTH_ROUNDS_MAX {
            let sent = if at_home {
                self.authorization.current(&self.http, &self.base)?
            } else {
                None
            };
            let mut response = self.http.send(uri, call, sent.as_deref())?;
            if response.status().as_u16() != 401 || !at_home {
                return Ok(response);
            }
            self.authorization
                .answer(&self.http, &self.base, &mut response, sent.as_deref())?;
        }
        let sent = self.authorization.current(&self.http, &self.base)?;
        self.http.send(uri, call, sent.as_deref())
    }

    pub(super) fn unreadable(&self, action: &str, error: &std::io::Error) -> Error {
        let (action, host) = (action.to_owned(), self.host().to_owned());
        if error.kind() == std::io::ErrorKind::InvalidData {
            return Error::Answer {
                action,
                host,
                why: format!("sends an answer that is refused: {error}"),
            };
        }
        Error::Transport {
            action,
            host,
            source: Transport::from(error),
        }
    }
}

/// Where a registry's API is: Docker Hub's is not at its own name.
fn api_host(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// `a/b` of `a/b; charset=utf-8`.
fn media_type_alone(header: &str) -> String {
    header
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}
