//! Writing down who we are: what `docker login` and `podman login` write, so that they read it, too.

use super::credentials::{
    AuthFile, CredentialsError, DOCKER_HUB_KEY, TOKEN_USER, named_file, normal_key, read,
    run_helper, usual_files,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where a log-in was written to, or removed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A file, readable for its owner alone; the password in it is not encrypted.
    File(PathBuf),
    /// A credential helper: `docker-credential-<name>`.
    Helper(String),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Helper(name) => write!(f, "credential helper {name}"),
        }
    }
}

/// Stores a log-in for `registry` (a host, or `host/path` as podman has it).
///
/// `authfile` names the file; else it is `REGISTRY_AUTH_FILE`, else the first of
/// the usual ones that can hold it. Where the file names a credential helper for
/// the registry, that gets the password. Where the token server gave an `identity` token for it, that is
/// kept instead, as `docker login` does. A file is replaced whole.
///
/// # Errors
/// Those of the file or of the helper.
pub fn store(
    authfile: Option<&Path>,
    registry: &str,
    user: &str,
    password: &str,
    identity: Option<&str>,
) -> Result<Kept, CredentialsError> {
    let path = match named_file(authfile) {
        Some(path) => path,
        None => usual_files()
            .into_iter()
            .next()
            .ok_or_else(|| no_file("neither HOME nor XDG_RUNTIME_DIR is set"))?,
    };
    let failed = |source| CredentialsError::File {
        path: path.clone(),
        source,
    };
    let mut document = read_document(&path).map_err(failed)?;
    let file: AuthFile = serde_json::from_value(Value::Object(document.clone()))
        .map_err(|error| failed(error.into()))?;
    if let Some(helper) = file.helper(registry) {
        // Helpers know an identity token by this name.
        let user = identity.map_or(user, |_| TOKEN_USER);
        let message = json!({
            "ServerURL": server(registry), "Username": user, "Secret": identity.unwrap_or(password),
        });
        tell_helper(helper, "store", registry, &message.to_string())?;
        return Ok(Kept::Helper(helper.to_owned()));
    }
    let auths = document
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(auths) = auths.as_object_mut() else {
        return Err(failed(io::Error::other("its auths is no object")));
    };
    auths.retain(|key, _| normal_key(key) != registry);
    let entry = match identity {
        None => json!({ "auth": BASE64.encode(format!("{user}:{password}")) }),
        Some(token) => {
            json!({ "auth": BASE64.encode(format!("{user}:")), "identitytoken": token })
        }
    };
    auths.insert(key(&path, registry), entry);
    write_document(&path, &document).map_err(failed)?;
    Ok(Kept::File(path))
}

/// Removes the log-in for `registry`, or all of them; from where they went.
///
/// # Errors
/// Those of a file or of a helper.
pub fn erase(
    authfile: Option<&Path>,
    registry: Option<&str>,
) -> Result<Vec<Kept>, CredentialsError> {
    let files = match named_file(authfile) {
        Some(path) => vec![path],
        None => usual_files(),
    };
    let mut erased = Vec::new();
    for path in files {
        if path.exists() {
            erase_in(&path, registry, &mut erased)?;
        }
    }
    Ok(erased)
}

fn erase_in(
    path: &Path,
    registry: Option<&str>,
    erased: &mut Vec<Kept>,
) -> Result<(), CredentialsError> {
    let failed = |source| CredentialsError::File {
        path: path.to_owned(),
        source,
    };
    let file = read(path).map_err(failed)?;
    let mut document = read_document(path).map_err(failed)?;
    let meant = |key: &str| registry.is_none_or(|registry| normal_key(key) == registry);
    let registries: Vec<String> = match registry {
        Some(registry) => vec![registry.to_owned()],
        None => {
            let all = file.auths.keys().chain(file.cred_helpers.keys());
            all.map(|key| normal_key(key)).collect()
        }
    };
    for registry in &registries {
        let Some(helper) = file.helper(registry) else {
            continue;
        };
        if tell_helper(helper, "erase", registry, server(registry))? {
            erased.push(Kept::Helper(helper.to_owned()));
        }
    }
    let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let before = auths.len();
    auths.retain(|key, _| !meant(key));
    if auths.len() < before {
        write_document(path, &document).map_err(failed)?;
        erased.push(Kept::File(path.to_owned()));
    }
    Ok(())
}

/// Tells a helper something; whether it had such an entry.
fn tell_helper(
    helper: &str,
    verb: &str,
    registry: &str,
    message: &str,
) -> Result<bool, CredentialsError> {
    run_helper(helper, verb, message)
        .map(|answer| answer.is_some())
        .map_err(|source| CredentialsError::Helper {
            helper: helper.to_owned(),
            registry: registry.to_owned(),
            source,
        })
}

/// What helpers call a registry.
fn server(registry: &str) -> &str {
    match registry {
        "docker.io" => DOCKER_HUB_KEY,
        other => other,
    }
}

/// What the file calls a registry: docker has a name of its own for its hub.
fn key(path: &Path, registry: &str) -> String {
    let is_dockers = path.file_name().is_some_and(|name| name == "config.json");
    if is_dockers {
        server(registry).to_owned()
    } else {
        registry.to_owned()
    }
}

fn no_file(why: &str) -> CredentialsError {
    CredentialsError::File {
        path: "auth.json".into(),
        source: io::Error::other(why.to_owned()),
    }
}

/// The whole file, so that what we do not know stays in it; empty where there is none.
fn read_document(path: &Path) -> io::Result<Map<String, Value>> {
    match fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(Map::new()),
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file whole: readers see the old content or the new, and nobody but its owner any.
fn write_document(path: &Path, document: &Map<String, Value>) -> io::Result<()> {
    // A link to a file elsewhere stays one.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder)?;
    }
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = target.with_file_name(name);
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
    written
        .and_then(|()| fs::rename(&unfinished, &target))
        .inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })
}

#[cfg(test)]
mod tests {
    use super::super::credentials::{self, Credentials};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_stored_is_found_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config.json");
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(&path, r#"{"auths": {"https://r.test/v1/": {"auth": "eDp5"}, "other.test": {"auth": "eDp5"}}, "HttpHeaders": {"A": "b"}}"#).unwrap();
        let kept = store(Some(&path), "r.test", "alice", "pass:word", None).unwrap();
        assert_eq!(kept, Kept::File(path.clone()));
        store(Some(&path), "docker.io", "bob", "secret", None).unwrap();
        store(Some(&path), "token.test", "bob", "secret", Some("t")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("HttpHeaders") && text.contains("https://index.docker.io/v1/"));
        assert!(!text.contains("https://r.test"));
        let find = |registry: &str| credentials::find(Some(&path), registry, "a/b").unwrap();
        assert_eq!(find("r.test"), Credentials::from_pair("alice:pass:word"));
        assert_eq!(find("docker.io"), Credentials::from_pair("bob:secret"));
        assert_eq!(
            find("token.test"),
            Some(Credentials::IdentityToken("t".into()))
        );
        assert_eq!(erase(Some(&path), Some("r.test")).unwrap().len(), 1);
        assert_eq!(erase(Some(&path), Some("r.test")).unwrap(), []);
        assert_eq!(find("r.test"), None);
        assert_eq!(find("other.test"), Credentials::from_pair("x:y"));
        assert_eq!(erase(Some(&path), None).unwrap().len(), 1);
        assert_eq!(find("other.test"), None);
        assert!(fs::read_to_string(&path).unwrap().contains("HttpHeaders"));
    }

    #[test]
    fn a_new_file_is_podmans_unless_it_is_called_as_dockers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/auth.json");
        store(Some(&path), "docker.io", "a", "b", None).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"docker.io\""));
        fs::write(&path, "not json").unwrap();
        assert!(store(Some(&path), "r.test", "a", "b", None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not json");
    }
}
