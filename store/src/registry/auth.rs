//! Getting in: what is sent as `Authorization`, and how it is had.
//!
//! 1. A request goes out with what is known; at first that is nothing.
//! 2. 401 with `Basic`: the password is sent from now on, to this registry only.
//! 3. 401 with `Bearer`: `realm` (if the rules allow it) is asked for a token,
//!    with the password if there is one; the token is sent from now on.
//! 4. 401 with what was just had: the credentials are not good. That is the end.
//!
//! (distribution's token and OAuth 2 specifications; both answers are read.)

use super::challenge::{self, Bearer, Challenge};
use super::credentials::Credentials;
use super::error::{self, Error, Transport};
use super::http::{self, Call, Http, Payload};
use super::{realm, retry};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::{Method, Response, Uri, header};

/// Largest token response we read. Real ones are under 8 KiB; a hostile server could stream forever.
const TOKEN_BODY_BYTES_MAX: u64 = 64 * 1024;

/// How long a token lasts when the server does not say (distribution's token specification).
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);

/// A token is renewed this long before its end: requests take time.
const TOKEN_LIFE_MARGIN: Duration = Duration::from_secs(10);

/// What we call ourselves where a token server asks.
const CLIENT: &str = "teu-store";

/// What is sent as `Authorization`.
#[derive(Clone)]
struct Granted {
    header: String,
    /// A token's end, with what it takes to get another.
    renewal: Option<(Instant, Bearer)>,
}

/// The authorization for one repository at one registry, shared by all requests to it.
pub(super) struct Authorization {
    /// The registry as the user names it, for messages.
    pub(super) host: String,
    repository: String,
    /// What a token must permit: `repository:a/b:pull,push`.
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    /// Hosts of token servers that the user accepts by name.
    allowed_realms: Vec<String>,
    granted: Mutex<Option<Granted>>,
    /// Whether an identity token is asked for in place of the password, and what came of it.
    wants_identity: AtomicBool,
    identity: Mutex<Option<String>>,
}

impl Authorization {
    pub(super) fn new(
        host: &str,
        repository: &str,
        scopes: Vec<String>,
        credentials: Option<Credentials>,
        allowed_realms: Vec<String>,
    ) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            scopes,
            credentials,
            allowed_realms,
            granted: Mutex::new(None),
            wants_identity: AtomicBool::new(false),
            identity: Mutex::new(None),
        }
    }

    /// From now on token servers are asked for an identity token, too (docker's `offline_token`).
    pub(super) fn want_identity(&self) {
        self.wants_identity.store(true, Ordering::Relaxed);
    }

    /// The identity token that a token server gave.
    pub(super) fn identity(&self) -> Option<String> {
        let identity = self.identity.lock();
        identity.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the registry has asked who we are.
    pub(super) fn was_asked(&self) -> bool {
        self.granted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// What to send now; a token at its end is renewed first.
    pub(super) fn current(&self, http: &Http, registry: &Uri) -> Result<Option<String>, Error> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Granted {
            renewal: Some((end, bearer)),
            ..
        }) = &*granted
            && *end < Instant::now()
        {
            let bearer = bearer.clone();
            *granted = Some(self.token(http, registry, &bearer)?);
        }
        Ok(granted.as_ref().map(|granted| granted.header.clone()))
    }

    /// Does what a 401 asks for; `sent` is what the refused request carried.
    /// When another thread has done it meanwhile, there is nothing to do.
    pub(super) fn answer(
        &self,
        http: &Http,
        registry: &Uri,
        response: &mut Response<Body>,
        sent: Option<&str>,
    ) -> Result<(), Error> {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.as_ref().map(|granted| granted.header.as_str()) != sent {
            return Ok(());
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        if let Some(bearer) = bearer {
            *granted = Some(self.token(http, registry, bearer)?);
            return Ok(());
        }
        let basic = self
            .credentials
            .as_ref()
            .and_then(Credentials::basic_header);
        match basic {
            Some(header)
                if challenges.contains(&Challenge::Basic) && sent != Some(header.as_str()) =>
            {
                *granted = Some(Granted {
                    header,
                    renewal: None,
                });
                Ok(())
            }
            _ => Err(self.refused(
                &http::read_body(response, TOKEN_BODY_BYTES_MAX, &http.limits).unwrap_or_default(),
            )),
        }
    }

    /// The end of all attempts: a 401 that nothing more can be done about.
    pub(super) fn refused(&self, body: &[u8]) -> Error {
        let (host, said) = (self.host.clone(), error::said(body));
        match &self.credentials {
            None => Error::LogIn {
                host,
                repository: self.repository.clone(),
            },
            Some(Credentials::Password { user, .. }) => Error::Rejected {
                host,
                user: format!("user {user:?}"),
                said,
            },
            Some(Credentials::IdentityToken(_)) => Error::Rejected {
                host,
                user: "the stored identity token".into(),
                said,
            },
        }
    }

    fn token(&self, http: &Http, registry: &Uri, bearer: &Bearer) -> Result<Granted, Error> {
        let realm =
            realm::judge(&bearer.realm, registry, &self.allowed_realms).map_err(|source| {
                let realm = bearer
                    .realm
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect();
                Error::Realm {
                    host: self.host.clone(),
                    realm,
                    source,
                }
            })?;
        let scopes = merge_scopes(&self.scopes, bearer.scope.as_deref());
        let asked = Instant::now();
        let body = retry::run(&http.limits, || {
            self.ask_token_server(http, &realm, bearer, &scopes)
        })?;
        let (token, life) = parse_token(&body).ok_or_else(|| Error::Answer {
            action: "get a token".into(),
            host: http::authority(&realm),
            why: "sends no token that can be used".into(),
        })?;
        if let Some(identity) = parse_identity(&body) {
            let mut kept = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some(identity);
        }
        let end = asked
            + life
                .saturating_sub(TOKEN_LIFE_MARGIN)
                .max(TOKEN_LIFE_MARGIN);
        Ok(Granted {
            header: format!("Bearer {token}"),
            renewal: Some((end, bearer.clone())),
        })
    }

    fn ask_token_server(
        &self,
        http: &Http,
        realm: &Uri,
        bearer: &Bearer,
        scopes: &[String],
    ) -> Result<Vec<u8>, Error> {
        let form;
        let (uri, call, basic) = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                form = refresh_form(token, bearer, scopes);
                let call = Call::new(Method::POST, "get a token")
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .payload(Payload::Bytes(form.as_bytes()));
                (realm.clone(), call, None)
            }
            other => {
                let basic = other.as_ref().and_then(Credentials::basic_header);
                let user = match other {
                    Some(Credentials::Password { user, .. }) => Some(user.as_str()),
                    _ => None,
                };
                let identity = user.filter(|_| self.wants_identity.load(Ordering::Relaxed));
                (
                    token_address(realm, bearer, scopes, identity)?,
                    Call::new(Method::GET, "get a token"),
                    basic,
                )
            }
        };
        let mut response = http.send(&uri, &call, basic.as_deref())?;
        let status = response.status().as_u16();
        let host = http::authority(realm);
        let body = http::read_body(&mut response, TOKEN_BODY_BYTES_MAX, &http.limits).map_err(
            |source| Error::Transport {
                action: "get a token".into(),
                host: host.clone(),
                source: Transport::from(&source),
            },
        )?;
        match status {
            200 => Ok(body),
            400 | 401 | 403 => Err(self.refused(&body)),
            _ => Err(Error::Status {
                action: "get a token".into(),
                host,
                status,
                said: error::said(&body),
                retry_after: retry_after(&response),
            }),
        }
    }
}

/// What a response asks for in `Retry-After`.
pub(super) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let now = jiff::Timestamp::now().as_second();
    retry::retry_after(http::header_text(response, &header::RETRY_AFTER)?, now)
}

/// The scopes we need, and those of the challenge that name something else.
fn merge_scopes(needed: &[String], challenged: Option<&str>) -> Vec<String> {
    let mut scopes = needed.to_vec();
    let resource = |scope: &str| {
        scope
            .rsplit_once(':')
            .map(|(resource, _)| resource.to_owned())
    };
    for scope in challenged.unwrap_or_default().split_ascii_whitespace() {
        if !scopes.iter().any(|own| resource(own) == resource(scope)) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

/// The realm with the query that asks for a token; with the user's name, for an identity token, too.
fn token_address(
    realm: &Uri,
    bearer: &Bearer,
    scopes: &[String],
    identity: Option<&str>,
) -> Result<Uri, Error> {
    let mut text = realm.to_string();
    let mut separator = if realm.query().is_some() { '&' } else { '?' };
    let service = bearer.service.iter().map(|service| ("service", service));
    let service = service.map(|(name, value)| (name, value.as_str()));
    let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
    let offline = identity.into_iter().flat_map(|user| {
        let client = ("client_id", CLIENT);
        [("account", user), client, ("offline_token", "true")]
    });
    for (name, value) in service.chain(scopes).chain(offline) {
        text.push(separator);
        text.push_str(&format!("{name}={}", http::query_value(value)));
        separator = '&';
    }
    text.parse().map_err(|_| Error::BadHost(text.clone()))
}

/// The form for a new token by a refresh token (OAuth 2, RFC 6749 section 6).
fn refresh_form(token: &str, bearer: &Bearer, scopes: &[String]) -> String {
    let service = bearer.service.clone().unwrap_or_default();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("service", &service),
        ("scope", &scopes.join(" ")),
        ("refresh_token", token),
    ];
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", http::query_value(value)))
        .collect();
    pairs.join("&")
}

/// The identity token of an answer (RFC 6749, section 5.1: `refresh_token`).
fn parse_identity(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let token = json["refresh_token"].as_str()?;
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| token.to_owned())
}

/// The token of an answer, and how long it lasts.
fn parse_token(body: &[u8]) -> Option<(String, Duration)> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| json[name].as_str().filter(|token| !token.is_empty());
    let token = text("token").or_else(|| text("access_token"))?;
    // It becomes a header: what cannot stand there is no token.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let life = json["expires_in"]
        .as_u64()
        .map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs);
    Some((
        token.to_owned(),
        life.clamp(TOKEN_LIFE_MARGIN, Duration::from_secs(24 * 3600)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_ours_and_what_the_registry_adds() {
        let own = ["repository:a/b:pull,push".to_owned()];
        assert_eq!(merge_scopes(&own, Some("repository:a/b:pull")), own);
        assert_eq!(
            merge_scopes(&own, Some("repository:c:pull registry:catalog:*")),
            [
                "repository:a/b:pull,push",
                "repository:c:pull",
                "registry:catalog:*"
            ]
        );
        assert_eq!(merge_scopes(&own, None), own);
    }

    #[test]
    fn the_address_of_a_token() {
        let bearer = Bearer {
            service: Some("registry.docker.io".into()),
            ..Bearer::default()
        };
        let scopes = ["repository:library/alpine:pull".to_owned()];
        let realm = "https://auth.docker.io/token".parse().unwrap();
        assert_eq!(
            token_address(&realm, &bearer, &scopes, None)
                .unwrap()
                .to_string(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Falpine%3Apull"
        );
        let realm = "https://x.test/t?a=b".parse().unwrap();
        assert!(
            token_address(&realm, &bearer, &[], None)
                .unwrap()
                .to_string()
                .ends_with("?a=b&service=registry.docker.io")
        );
    }

    #[test]
    fn an_identity_token_is_asked_for_and_found() {
        let realm: Uri = "https://auth.test/token".parse().unwrap();
        let bearer = Bearer::default();
        let asked = token_address(&realm, &bearer, &[], Some("a b")).unwrap();
        let query = asked.query().unwrap();
        assert!(
            query.starts_with("account=a%20b&client_id=teu-store"),
            "{query}"
        );
        assert!(query.ends_with("&offline_token=true"), "{query}");
        let found = |body: &str| parse_identity(body.as_bytes());
        assert_eq!(
            found(r#"{"token": "t", "refresh_token": "r"}"#).as_deref(),
            Some("r")
        );
        for none in [
            r#"{"token": "t"}"#,
            r#"{"refresh_token": "a b"}"#,
            r#"{"refresh_token": ""}"#,
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn tokens_in_either_field() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            parse_token(br#"{"token":"abc"}"#),
            Some(("abc".into(), minute))
        );
        assert_eq!(
            parse_token(br#"{"access_token":"abc","expires_in":300}"#),
            Some(("abc".into(), minute * 5))
        );
        for body in [
            &br#"{"token":""}"#[..],
            b"{}",
            b"",
            b"[]",
            br#"{"token":"a\r\nX: y"}"#,
            br#"{"token":7}"#,
        ] {
            assert_eq!(parse_token(body), None);
        }
    }
}
