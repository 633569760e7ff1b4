//! One repository at one registry: requests with authorization and retries, manifests.

use super::auth::{self, Authorization};
use super::credentials::{self, Credentials};
use super::error::{self, Error, Transport};
use super::http::{self, Call, Http};
use super::limits::Limits;
use super::places::{self, Endpoint, Files, Serves};
use super::trust::TrustOptions;
use super::{realm, retry};
use crate::digest::{Digest, Hasher};
use crate::image::{DOCUMENT_BYTES_MAX, media_type};
use crate::reference::Reference;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
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

/// How often a mirror is tried: behind it is another.
const MIRROR_ATTEMPTS_MAX: u32 = 2;

/// Connections beside the first that all blobs of one client may open together for their ranges.
const SPARE_CONNECTIONS: usize = 3;

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
    /// What says where images are.
    pub files: Files,
    /// How patient we are.
    pub limits: Limits,
    /// Layers that are not stored with their image are fetched from where it says they are.
    pub foreign_layers: bool,
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

/// A repository at a registry. Requests may run in parallel; a clone shares all with its original.
#[derive(Clone)]
pub struct Client {
    pub(super) http: Arc<Http>,
    /// Scheme and host with port.
    base: Uri,
    /// What stands before the repository in addresses: `v2`.
    path: String,
    repository: String,
    authorization: Arc<Authorization>,
    /// Who is asked before, for reading.
    mirrors: Vec<Client>,
    /// As a mirror: when it is asked.
    serves: Serves,
    /// As a mirror: the registry it stands for.
    stands_for: Option<String>,
    foreign_layers: bool,
    /// Connections that large blobs may still open beside their first.
    pub(super) spare: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}{})", self.base, self.repository())
    }
}

impl Client {
    /// Prepares to talk about `reference`'s repository. Only registries on this
    /// machine, and those said to be insecure, are contacted, to see whether they
    /// speak TLS. For a push, `mount_from` names repositories that blobs may be mounted from.
    ///
    /// # Errors
    /// Unreadable credentials, certificates or configuration; a registry that is blocked.
    pub fn connect(
        reference: &Reference,
        access: Access,
        mount_from: &[String],
        options: &Options,
    ) -> Result<Self, Error> {
        let plan = places::plan(reference, &options.files)?;
        let scopes = |repository: &str| {
            let actions = match access {
                Access::Pull => "pull",
                Access::Push => "pull,push",
            };
            let others = mount_from
                .iter()
                .map(|other| format!("repository:{other}:pull"));
            let mut scopes = vec![format!("repository:{repository}:{actions}")];
            scopes.extend(others);
            scopes
        };
        let home = &plan.home;
        // Behind mirrors even a registry that is down is no reason to stop.
        let must_answer = access == Access::Push || plan.mirrors.is_empty();
        let own_scopes = scopes(&home.repository);
        let mut client = Self::at(home, reference.registry(), own_scopes, options, must_answer)?;
        if access == Access::Push {
            return Ok(client);
        }
        // What the user says of the registry is not said of its mirrors.
        let for_mirrors = Options {
            plain_http: false,
            trust: TrustOptions::default(),
            credentials: None,
            limits: Limits {
                attempts: options.limits.attempts.min(MIRROR_ATTEMPTS_MAX),
                ..options.limits
            },
            ..options.clone()
        };
        for mirror in &plan.mirrors {
            let scopes = scopes(&mirror.repository);
            // One that is down says so when it is asked for something.
            let mirror = Self::at(mirror, &mirror.host, scopes, &for_mirrors, false)?;
            client.mirrors.push(mirror);
        }
        Ok(client)
    }

    /// Talks to a registry as such, not about one of its repositories: `scopes`
    /// is what a token must permit.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(super) fn to_registry(
        host: &str,
        scopes: Vec<String>,
        options: &Options,
    ) -> Result<Self, Error> {
        // A name that nobody asks for: only its registry matters.
        let reference: Reference = format!("{host}/x")
            .parse()
            .map_err(|_| Error::BadHost(host.to_owned()))?;
        let plan = places::plan(&reference, &options.files)?;
        let home = Endpoint {
            repository: String::new(),
            ..plan.home
        };
        Self::at(&home, reference.registry(), scopes, options, true)
    }

    /// One host; `registry` is what the user calls it. One that does not answer when it is
    /// asked what it speaks is an error if it `must_answer`.
    fn at(
        endpoint: &Endpoint,
        registry: &str,
        scopes: Vec<String>,
        options: &Options,
        must_answer: bool,
    ) -> Result<Self, Error> {
        let host = endpoint.host.as_str();
        let trust = TrustOptions {
            unverified: options.trust.unverified || endpoint.insecure,
            ..options.trust.clone()
        };
        let http = Http::new(trust, endpoint.files.clone(), options.limits, host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let on_this_machine = realm::is_loopback(host) || realm::is_loopback(name);
        let may_be_plain = on_this_machine || endpoint.insecure;
        let plain = match endpoint.scheme {
            Some(scheme) => scheme == "http",
            None if options.plain_http => true,
            None if may_be_plain => match http.speaks_tls(host) {
                Err(Error::Transport { .. }) if !must_answer => false,
                other => !other?,
            },
            None => false,
        };
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{host}/")
            .parse()
            .map_err(|_| Error::BadHost(host.to_owned()))?;
        let repository = &endpoint.repository;
        let credentials = match &options.credentials {
            Some(given) => Some(given.clone()),
            None => credentials::find(options.authfile.as_deref(), registry, repository)?,
        };
        let realms = options.allowed_realms.clone();
        Ok(Self {
            http: Arc::new(http),
            base,
            path: endpoint.path.trim_matches('/').to_owned(),
            repository: repository.clone(),
            authorization: Arc::new(Authorization::new(
                registry,
                repository,
                scopes,
                credentials,
                realms,
            )),
            mirrors: Vec::new(),
            serves: endpoint.serves,
            stands_for: endpoint.stands_for.clone(),
            foreign_layers: options.foreign_layers,
            spare: Arc::new(AtomicUsize::new(SPARE_CONNECTIONS)),
        })
    }

    /// The repository's path: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The registry as the user names it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.authorization.host
    }

    /// What the registry asks of us, and gets.
    pub(super) fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Whether layers that are stored elsewhere are fetched from there.
    pub(crate) fn foreign_layers(&self) -> bool {
        self.foreign_layers
    }

    /// Who may be asked for something, the mirrors first; `by_digest` says how it is asked for.
    pub(super) fn sources(&self, by_digest: bool) -> Vec<&Client> {
        let serves = |mirror: &&Client| match mirror.serves {
            Serves::All => true,
            Serves::Digests => by_digest,
            Serves::Tags => !by_digest,
        };
        self.mirrors.iter().filter(serves).chain([self]).collect()
    }

    /// Asks one after another until one answers.
    pub(super) fn first_of<T>(
        sources: &[&Client],
        ask: impl Fn(&Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut mirrors = Vec::new();
        for (place, source) in sources.iter().enumerate() {
            match ask(source) {
                Ok(answer) => return Ok(answer),
                Err(error) if place + 1 < sources.len() => {
                    mirrors.push(format!("{}: {}", source.host(), error::chain(&error)));
                }
                Err(error) if mirrors.is_empty() => return Err(error),
                Err(error) => {
                    return Err(Error::AlsoMirrors {
                        mirrors: mirrors.join("; "),
                        source: Box::new(error),
                    });
                }
            }
        }
        Err(Error::BadHost(String::new()))
    }

    /// Reads the manifest or index that `wanted` (a tag or a digest) names.
    /// What comes under a digest has that digest.
    ///
    /// # Errors
    /// As for every request; besides, an answer that is too long or not what was asked for.
    pub fn manifest(&self, wanted: &str) -> Result<Fetched, Error> {
        let by_digest = wanted.contains(':');
        Self::first_of(&self.sources(by_digest), |source| {
            source.manifest_here(wanted)
        })
    }

    fn manifest_here(&self, wanted: &str) -> Result<Fetched, Error> {
        let what = self.named(wanted);
        let action = format!("read manifest {what}");
        let uri = self.address(&format!("manifests/{wanted}"))?;
        let call = Call::new(Method::GET, action.clone())
            .header(header::ACCEPT, ACCEPT_MANIFESTS.join(", "));
        let (bytes, media_type) = retry::run(&self.http.limits, || {
            let mut response = self.expect(&uri, &call, &[200], &what)?;
            let kind = http::header_text(&response, &header::CONTENT_TYPE).map(media_type_alone);
            let bytes = http::read_body(&mut response, DOCUMENT_BYTES_MAX, &self.http.limits)
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
        self.address_of(&format!("{}/{path}", self.repository))
    }

    /// The address of something below the API's root.
    pub(super) fn address_of(&self, path: &str) -> Result<Uri, Error> {
        let mut text = format!("{}{}/{path}", self.base, self.path);
        if let Some(registry) = &self.stands_for {
            let separator = if text.contains('?') { '&' } else { '?' };
            text.push_str(&format!("{separator}ns={}", http::query_value(registry)));
        }
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
        let body = http::read_body(&mut response, ERROR_BODY_BYTES_MAX, &self.http.limits)
            .unwrap_or_default();
        let said = error::said(&body);
        let (host, action) = (self.host().to_owned(), call.action.clone());
        Err(match status {
            401 if self.is_of_home(&response) => self.authorization.refused(&body),
            403 => Error::Denied { host, action, said },
            404 => Error::NotFound {
                host,
                what: what.to_owned(),
                said,
            },
            _ => Error::Status {
                action,
                host: answered_by(&response).map_or(host, http::authority),
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
            // What another host asks for is not the registry's to ask.
            if response.status().as_u16() != 401 || !self.is_of_home(&response) {
                return Ok(response);
            }
            self.authorization
                .answer(&self.http, &self.base, &mut response, sent.as_deref())?;
        }
        let sent = self.authorization.current(&self.http, &self.base)?;
        self.http.send(uri, call, sent.as_deref())
    }

    /// Whether the registry itself has answered, not a host that it sent us to.
    fn is_of_home(&self, response: &Response<Body>) -> bool {
        answered_by(response).is_none_or(|uri| http::same_origin(uri, &self.base))
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

fn answered_by(response: &Response<Body>) -> Option<&Uri> {
    let answered: Option<&http::AnsweredBy> = response.extensions().get();
    answered.map(|answered| &answered.0)
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
