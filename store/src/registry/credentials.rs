//! Who we are to a registry: `--creds`, or the files that `docker login`,
//! `podman login` and `skopeo login` write.
//!
//! The order is podman's: `--authfile`, `REGISTRY_AUTH_FILE`,
//! `$XDG_RUNTIME_DIR/containers/auth.json` (`/run/containers/0/auth.json` for
//! root), then docker's `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
//! The first file that knows the registry decides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes read of one file; real ones are a few hundred, with many tokens a few thousand.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Most bytes read from a credential helper.
const HELPER_BYTES_MAX: u64 = 1 << 20;

/// The key docker keeps Docker Hub's password under.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user of an identity token, where a credential helper keeps it.
pub(super) const TOKEN_USER: &str = "<token>";

/// What to show a registry or its token server. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password (or access token).
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// An OAuth 2 refresh token, which docker calls identity token.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

impl Credentials {
    /// Parses `user:password`, as `--creds` takes it.
    #[must_use]
    pub fn from_pair(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        (!user.is_empty()).then(|| Self::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// The value of the `Authorization` header for basic authentication (RFC 7617).
    #[must_use]
    pub fn basic_header(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => Some(format!(
                "Basic {}",
                BASE64.encode(format!("{user}:{password}"))
            )),
            Self::IdentityToken(_) => None,
        }
    }
}

/// Why the credentials could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that the user named, or that exists, cannot be used.
    #[error("read credentials from {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A credential helper that the file names did not do its work.
    #[error("ask credential helper docker-credential-{helper} for {registry}")]
    Helper {
        /// The helper's name without `docker-credential-`.
        helper: String,
        /// What was asked for.
        registry: String,
        /// Why not.
        source: io::Error,
    },
}

/// The part of docker's `config.json` and podman's `auth.json` that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthFile {
    pub(super) auths: HashMap<String, Entry>,
    pub(super) cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

impl AuthFile {
    /// The helper for this registry alone.
    fn own_helper(&self, registry: &str) -> Option<&str> {
        self.cred_helpers
            .iter()
            .find(|(key, _)| normal_key(key) == registry)
            .map(|(_, helper)| helper.as_str())
    }

    /// The helper that keeps this registry's password: its own, else the one for all.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        self.own_helper(registry)
            .or(self.creds_store.as_deref())
            .filter(|helper| !helper.is_empty())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Finds the credentials for `repository` at `registry` (host with port).
/// `authfile` is the one the user named; it must exist.
///
/// # Errors
/// When a named file is missing, any file is unreadable or no JSON, or a helper fails.
pub(super) fn find(
    authfile: Option<&Path>,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, CredentialsError> {
    if let Some(path) = named_file(authfile) {
        let file = read(&path).map_err(|source| CredentialsError::File { path, source })?;
        return from_file(&file, registry, repository);
    }
    for path in usual_files() {
        let file = match read(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(source) => return Err(CredentialsError::File { path, source }),
        };
        if let Some(found) = from_file(&file, registry, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The file that the user named, by an option or by a variable.
pub(super) fn named_file(authfile: Option<&Path>) -> Option<PathBuf> {
    authfile
        .map(Path::to_owned)
        .or_else(|| variable("REGISTRY_AUTH_FILE"))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Where log-ins usually are, in the order of their weight.
pub(super) fn usual_files() -> Vec<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let runtime = variable("XDG_RUNTIME_DIR")
        .map(|folder| folder.join("containers/auth.json"))
        .or_else(|| (uid == 0).then(|| "/run/containers/0/auth.json".into()));
    let home = variable("HOME");
    let config =
        variable("XDG_CONFIG_HOME").or_else(|| home.clone().map(|home| home.join(".config")));
    let podman = config.map(|folder| folder.join("containers/auth.json"));
    let docker = variable("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker")));
    let docker = docker.map(|folder| folder.join("config.json"));
    [runtime, podman, docker].into_iter().flatten().collect()
}

pub(super) fn read(path: &Path) -> io::Result<AuthFile> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn from_file(
    file: &AuthFile,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, CredentialsError> {
    let asked = if registry == "docker.io" {
        DOCKER_HUB_KEY
    } else {
        registry
    };
    if let Some(helper) = file.own_helper(registry) {
        return ask_helper(helper, asked);
    }
    let entry = keys(registry, repository)
        .into_iter()
        .find_map(|wanted| file.auths.iter().find(|(key, _)| normal_key(key) == wanted))
        .map(|(_, entry)| entry);
    if let Some(found) = entry.and_then(from_entry) {
        return Ok(Some(found));
    }
    match &file.creds_store {
        Some(helper) => ask_helper(helper, asked),
        None => Ok(None),
    }
}

/// The keys an entry may stand under, the most special first: podman lets
/// `host/namespace` have a password of its own.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    keys.push(registry.to_owned());
    keys
}

/// A key as host with an optional path: docker writes addresses
/// (`https://index.docker.io/v1/`), older versions `https://host/v1/`.
pub(super) fn normal_key(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let is_address = bare.is_some();
    let bare = bare.unwrap_or(key).trim_end_matches('/');
    let bare = if is_address {
        bare.split('/').next().unwrap_or_default()
    } else {
        bare
    };
    match bare {
        "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn from_entry(entry: &Entry) -> Option<Credentials> {
    if let Some(token) = entry
        .identitytoken
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Some(Credentials::IdentityToken(token.clone()));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let bytes = BASE64.decode(auth.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        return Credentials::from_pair(text.trim_end_matches('\0'));
    }
    let (user, password) = (entry.username.clone()?, entry.password.clone()?);
    Some(Credentials::Password { user, password })
}

/// Asks `docker-credential-<helper> get` (docker-credential-helpers' protocol):
/// the registry on its stdin, JSON on its stdout.
fn ask_helper(helper: &str, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
    let failed = |source| CredentialsError::Helper {
        helper: helper.to_owned(),
        registry: registry.to_owned(),
        source,
    };
    let output = run_helper(helper, "get", registry).map_err(failed)?;
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    match output {
        None => Ok(None),
        Some(bytes) => {
            let answer: Answer =
                serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
            Ok(Some(match answer.username.as_str() {
                TOKEN_USER => Credentials::IdentityToken(answer.secret),
                _ => Credentials::Password {
                    user: answer.username,
                    password: answer.secret,
                },
            }))
        }
    }
}

/// The helper's answer to `verb` with `message`; none when it says that it has no such entry.
pub(super) fn run_helper(helper: &str, verb: &str, message: &str) -> io::Result<Option<Vec<u8>>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if helper.is_empty() || !helper.chars().all(plain) {
        return Err(io::Error::other("that is no helper's name"));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(message.as_bytes())?;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_BYTES_MAX).read_to_end(&mut answer)?;
    }
    let status = child.wait()?;
    let text = String::from_utf8_lossy(&answer);
    if status.success() {
        Ok(Some(answer))
    } else if text.contains("credentials not found") {
        Ok(None)
    } else {
        Err(io::Error::other(format!("{status}: {}", text.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, registry: &str, repository: &str) -> Option<Credentials> {
        let file: AuthFile = serde_json::from_str(json).unwrap();
        from_file(&file, registry, repository).unwrap()
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            user: user.into(),
            password: password.into(),
        })
    }

    #[test]
    fn what_docker_login_writes() {
        // alice:secret, bob:pass:word
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YWxpY2U6c2VjcmV0"},
            "registry.test:5000": {"auth": "Ym9iOnBhc3M6d29yZA=="},
            "https://old.test/v1/": {"username": "u", "password": "p"},
            "token.test": {"auth": "", "identitytoken": "refresh"},
            "empty.test": {}
        }, "HttpHeaders": {"User-Agent": "x"}}"#;
        assert_eq!(
            found(json, "docker.io", "library/alpine"),
            password("alice", "secret")
        );
        assert_eq!(
            found(json, "registry.test:5000", "a"),
            password("bob", "pass:word")
        );
        assert_eq!(found(json, "old.test", "a"), password("u", "p"));
        assert_eq!(
            found(json, "token.test", "a"),
            Some(Credentials::IdentityToken("refresh".into()))
        );
        assert_eq!(found(json, "empty.test", "a"), None);
        // S17: another port is another registry.
        assert_eq!(found(json, "registry.test", "a"), None);
        assert_eq!(found(json, "registry.test:5001", "a"), None);
        assert_eq!(found(json, "evil.registry.test:5000", "a"), None);
    }

    #[test]
    fn what_podman_login_writes_for_a_namespace() {
        let json = r#"{"auths": {
            "r.test": {"auth": "YWxpY2U6c2VjcmV0"},
            "r.test/team": {"auth": "Ym9iOnBhc3M6d29yZA=="}
        }}"#;
        assert_eq!(
            found(json, "r.test", "team/app"),
            password("bob", "pass:word")
        );
        assert_eq!(
            found(json, "r.test", "teamwork/app"),
            password("alice", "secret")
        );
    }

    #[test]
    fn nonsense_is_no_password() {
        let json = r#"{"auths": {"a.test": {"auth": "!!!"}, "b.test": {"auth": "bm9jb2xvbg=="}}}"#;
        assert_eq!(found(json, "a.test", "x"), None);
        assert_eq!(found(json, "b.test", "x"), None);
        let file: AuthFile = serde_json::from_str(r#"{"credsStore": "../evil"}"#).unwrap();
        assert!(from_file(&file, "a.test", "x").is_err());
    }

    #[test]
    fn a_password_is_never_printed() {
        let secret = Credentials::from_pair("user:hunter2").unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(secret.basic_header().unwrap(), "Basic dXNlcjpodW50ZXIy");
    }
}
