//! Requests as such: one agent a host (its proxy, its certificates), redirects
//! by our own rules, and no knowledge of registries.

use super::error::Transport;
use super::limits::{Limits, Paced};
use super::proxy;
use super::resolve::HostResolver;
use super::trust::{self, OwnFiles, TrustOptions};
use super::{Error, realm};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody, Body, SendBody};

/// How long a connection may take, name and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How long a registry may think before it answers: after the last byte of a
/// large blob some hash it, or copy it to an object store, before they confirm.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How many times the stall limit a registry may take to begin an answer to a question that
/// changes nothing: some fetch what they are asked for from elsewhere first.
const THINKING_STALLS: u32 = 5;

/// Longest head of an answer; addresses with signatures in them reach 4 KiB.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Redirects followed for one request; real chains have one or two.
const REDIRECTS_MAX: usize = 5;

/// Connections kept open to one host: one a layer, and one for the rest.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// What is sent with a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// Nothing, not even an empty body.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// `length` bytes from a reader that can be opened again.
    Stream {
        open: &'a (dyn Fn() -> io::Result<Box<dyn Read + 'a>> + Sync),
        length: u64,
    },
}

/// One request, still without authorization.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) payload: Payload<'a>,
    /// For messages: `read manifest library/alpine:latest`.
    pub(super) action: String,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, action: impl Into<String>) -> Self {
        Self {
            method,
            headers: Vec::new(),
            payload: Payload::None,
            action: action.into(),
        }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    /// A redirect is followed where nothing has to be sent again.
    fn follows_redirects(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// Who has answered, after redirects: stands with each answer.
#[derive(Clone)]
pub(super) struct AnsweredBy(pub(super) Uri);

/// Agents by the host they talk to.
pub(super) struct Http {
    trust: TrustOptions,
    files: OwnFiles,
    pub(super) limits: Limits,
    /// The host whose client certificate may come from `--cert-dir`.
    home: String,
    agents: Mutex<HashMap<String, Agent>>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(trust: TrustOptions, files: OwnFiles, limits: Limits, home: &str) -> Self {
        Self {
            trust,
            files,
            limits,
            home: home.to_owned(),
            agents: Mutex::default(),
        }
    }

    /// Makes the request at `uri`; `authorization` goes to this origin only,
    /// also when a redirect leads elsewhere.
    pub(super) fn send(
        &self,
        uri: &Uri,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Error> {
        let mut here = uri.clone();
        for _ in 0..=REDIRECTS_MAX {
            let permitted = authorization.filter(|_| same_origin(&here, uri));
            let mut response = self.send_here(&here, call, permitted)?;
            response.extensions_mut().insert(AnsweredBy(here.clone()));
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) || !call.follows_redirects() {
                return Ok(response);
            }
            let location = header_text(&response, &header::LOCATION);
            let next = location.and_then(|location| join(&here, location));
            let Some(next) = next else {
                return Ok(response);
            };
            if let Err(why) = judge_redirect(&here, &next) {
                return Err(transport(call, &here, Transport::Redirect(why)));
            }
            here = next;
        }
        let why = format!("more than {REDIRECTS_MAX} redirects");
        Err(transport(call, uri, Transport::Redirect(why)))
    }

    /// Whether TLS is spoken at `host` (of this machine only, see the caller).
    pub(super) fn speaks_tls(&self, host: &str) -> Result<bool, Error> {
        let uri: Uri = format!("https://{host}/v2/")
            .parse()
            .map_err(|_| Error::BadHost(host.to_owned()))?;
        let call = Call::new(Method::GET, "connect");
        match self.send_here(&uri, &call, None) {
            Ok(_) => Ok(true),
            Err(Error::Transport {
                source: Transport::NotTls(_) | Transport::Cut(_),
                ..
            }) => Ok(false),
            Err(Error::Transport {
                source: Transport::Certificate(_),
                ..
            }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn send_here(
        &self,
        uri: &Uri,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Error> {
        let agent = self.agent(uri)?;
        let mut request = Request::builder().method(&call.method).uri(uri);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let bad =
            |error: ureq::http::Error| transport(call, uri, Transport::Other(error.to_string()));
        let result = match call.payload {
            Payload::None => agent.run(request.body(()).map_err(bad)?),
            Payload::Bytes(bytes) => patiently(&agent, request.body(bytes).map_err(bad)?),
            Payload::Stream { open, length } => {
                let reader = open().map_err(|source| Error::Local {
                    what: "what is to be sent".into(),
                    source,
                })?;
                let request = request.header(header::CONTENT_LENGTH, length);
                let mut reader = reader.take(length);
                let body = SendBody::from_reader(&mut reader);
                patiently(&agent, request.body(body).map_err(bad)?)
            }
        };
        result.map_err(|error| transport(call, uri, error.into()))
    }

    fn agent(&self, uri: &Uri) -> Result<Agent, Error> {
        let host = authority(uri);
        let secure = uri.scheme_str() == Some("https");
        let key = format!("{secure} {host}");
        let mut agents = self
            .agents
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .user_agent(concat!("teu-store/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(self.limits.stall * THINKING_STALLS))
            .timeout_per_write(Some(self.limits.stall))
            .timeout_per_read(Some(self.limits.stall))
            .proxy(proxy::for_uri(uri));
        if secure {
            config = config.tls_config(trust::tls_config(
                &self.trust,
                &self.files,
                &host,
                host == self.home,
            )?);
        }
        let agent = Agent::with_parts(
            config.build(),
            DefaultConnector::default(),
            HostResolver::default(),
        );
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// Runs a request that stores something: the answer may take its time.
fn patiently(
    agent: &Agent,
    request: Request<impl AsSendBody>,
) -> Result<Response<Body>, ureq::Error> {
    let request = agent
        .configure_request(request)
        .timeout_recv_response(Some(ANSWER_LIMIT))
        .timeout_per_read(Some(ANSWER_LIMIT))
        .build();
    agent.run(request)
}

/// Host and port of an address, without a user.
pub(super) fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn transport(call: &Call<'_>, uri: &Uri, source: Transport) -> Error {
    Error::Transport {
        action: call.action.clone(),
        host: authority(uri),
        source,
    }
}

/// Same scheme, host and port: what a password given for one is good for.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        uri.port_u16().unwrap_or(default)
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// Why a redirect is not followed: from https to http, to another scheme, with
/// a password in it, or from elsewhere into this machine.
fn judge_redirect(from: &Uri, to: &Uri) -> Result<(), String> {
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => {}
        (_, Some("http")) => {
            return Err(format!(
                "a redirect from https to plain http at {} is not followed",
                authority(to)
            ));
        }
        _ => return Err("a redirect to something else than http is not followed".into()),
    }
    if to
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("a redirect with a user name in it is not followed".into());
    }
    let (inside, outside) = (
        to.host().unwrap_or_default(),
        from.host().unwrap_or_default(),
    );
    if realm::is_loopback(inside) && !realm::is_loopback(outside) {
        return Err("a redirect into this machine is not followed".into());
    }
    Ok(())
}

/// An absolute address from a `Location` that may be relative (RFC 9110, section 10.2.2).
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let (scheme, host) = (base.scheme_str()?, base.authority()?);
    if location.starts_with("//") {
        return format!("{scheme}:{location}").parse().ok();
    }
    let path = if location.starts_with('/') {
        location.to_owned()
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    format!("{scheme}://{host}{path}").parse().ok()
}

/// A header as text, if it is there and is text.
pub(super) fn header_text<'r>(
    response: &'r Response<Body>,
    name: &header::HeaderName,
) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// The body of an answer, if it has at most `limit` bytes.
pub(super) fn read_body(
    response: &mut Response<Body>,
    limit: u64,
    limits: &Limits,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Paced::new(response.body_mut().as_reader(), limits)
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Percent-encodes one value of a query (RFC 3986, section 2.3).
pub(crate) fn query_value(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn locations_are_absolute_or_relative() {
        let base = uri("https://r.test:5000/v2/a/blobs/uploads/");
        for (location, joined) in [
            (
                "/v2/a/blobs/uploads/1?_state=x",
                "https://r.test:5000/v2/a/blobs/uploads/1?_state=x",
            ),
            ("https://cdn.test/x?y=z", "https://cdn.test/x?y=z"),
            ("//cdn.test/x", "https://cdn.test/x"),
            ("2", "https://r.test:5000/v2/a/blobs/uploads/2"),
        ] {
            assert_eq!(join(&base, location), Some(uri(joined)), "{location}");
        }
    }

    // security.md, S17: who gets a password.
    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let home = uri("https://r.test/v2/");
        assert!(same_origin(&home, &uri("https://R.test:443/other")));
        for other in [
            "http://r.test/",
            "https://r.test:444/",
            "https://cdn.r.test/",
            "https://evil.test/",
        ] {
            assert!(!same_origin(&home, &uri(other)), "{other}");
        }
    }

    #[test]
    fn redirects_never_lead_down() {
        let from = uri("https://r.test/");
        assert!(judge_redirect(&from, &uri("https://cdn.test/x")).is_ok());
        assert!(judge_redirect(&from, &uri("http://cdn.test/x")).is_err());
        assert!(judge_redirect(&from, &uri("https://user@cdn.test/x")).is_err());
        assert!(judge_redirect(&from, &uri("https://127.0.0.1/x")).is_err());
        assert!(judge_redirect(&uri("http://127.0.0.1:1/"), &uri("http://localhost:2/")).is_ok());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(
            query_value("repository:a/b:pull,push"),
            "repository%3Aa%2Fb%3Apull%2Cpush"
        );
        assert_eq!(query_value("sha256:ab"), "sha256%3Aab");
    }
}
