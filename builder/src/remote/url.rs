//! Sources by name: `https://host/file`, `https://host/repo.git#ref:dir`, `git@host:repo.git?branch=x`.

use serde::{Deserialize, Serialize};

/// Schemes that only git speaks.
const GIT_SCHEMES: [&str; 2] = ["git://", "ssh://"];

/// A file behind a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where; never with a password.
    pub url: String,
    /// The name it gets in a directory.
    pub name: String,
    /// `sha256:` and its digits, if its content is known.
    pub checksum: Option<String>,
    /// User and password from the URL: for its server alone.
    #[serde(skip)]
    pub login: Option<String>,
}

/// A git repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// Where; never with a password.
    pub remote: String,
    /// A branch, a tag, a commit or a full reference; by default what the remote says.
    pub reference: Option<String>,
    /// The directory in it.
    pub directory: String,
    /// The commit it must be; its beginning at least.
    pub checksum: Option<String>,
    /// Whether the repositories in it are fetched, too.
    pub submodules: bool,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// The times of its files.
    pub times: Times,
    /// User and password from the URL: for its server alone.
    #[serde(skip)]
    pub login: Option<String>,
}

/// The times of checked out files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// When they were checked out.
    #[default]
    Checkout,
    /// When their commit was made.
    Commit,
}

/// A source that looks like one and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(pub String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadUrl> {
    Err(BadUrl(why.into()))
}

/// Whether a text names a git repository.
pub fn is_git(text: &str) -> bool {
    let plain = text.split(['#', '?']).next().unwrap_or_default();
    GIT_SCHEMES.iter().any(|scheme| text.starts_with(scheme))
        || is_http(text) && plain.ends_with(".git")
        || scp_form(plain).is_some()
}

/// Whether a text names a file behind a URL.
pub fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// `user@host:path`, as scp(1) has it.
fn scp_form(text: &str) -> Option<(&str, &str)> {
    let (place, path) = text.split_once(':')?;
    let (user, host) = place.split_once('@')?;
    let word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (word(user) && word(host) && !path.starts_with("//")).then_some((place, path))
}

/// A source as it may be shown and recorded: a user and a password in a URL are left out.
pub fn without_password(text: &str) -> String {
    if is_http(text) {
        without_login(text).map_or_else(|_| text.to_owned(), |(url, _)| url)
    } else {
        text.to_owned()
    }
}

/// A text in which URLs stand, as it may be shown: what stands before the hosts is left out.
pub fn without_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || "/?#\"',".contains(c))
            .unwrap_or(after.len());
        let host = after[..end].rfind('@').map_or(0, |login| login + 1);
        rest = &after[host..];
    }
    shown + rest
}

/// Reads a file's URL; `None` when it is none.
///
/// # Errors
/// A URL that cannot be used.
pub fn http(text: &str) -> Option<Result<HttpSource, BadUrl>> {
    (is_http(text) && !is_git(text)).then(|| {
        let (url, login) = without_login(text)?;
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or("", |(_, rest)| rest);
        let name = path
            .split_once('/')
            .map(|(_, path)| path.trim_end_matches('/'))
            .and_then(|path| path.rsplit('/').next())
            .filter(|name| !name.is_empty() && !matches!(*name, "." | ".."));
        Ok(HttpSource {
            name: name.map_or_else(|| "__unnamed__".to_owned(), percent_decoded_name),
            url: url.split('#').next().unwrap_or_default().to_owned(),
            checksum: None,
            login,
        })
    })
}

/// A name of a URL as a file name: escapes are read, unless a slash would come of them.
fn percent_decoded_name(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains(['/', '\0']) && !matches!(text.as_str(), "." | ".." | "") => {
            text
        }
        _ => name.to_owned(),
    }
}

/// Splits `user:password@` out of a URL.
fn without_login(url: &str) -> Result<(String, Option<String>), BadUrl> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok((url.to_owned(), None));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(percent_decoded_login(login)), host),
        None => (None, authority),
    };
    if host.is_empty() || host.starts_with('-') || url.chars().any(|c| c.is_control() || c == ' ') {
        return bad("it names no host");
    }
    // An ssh user is no secret, and part of the address.
    if scheme == "ssh" {
        let user = login.as_deref().and_then(|login| login.split(':').next());
        if user.is_some_and(|user| user.starts_with('-')) {
            return bad("its user begins with a dash");
        }
        let place = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
        return Ok((format!("{scheme}://{place}{path}"), None));
    }
    Ok((format!("{scheme}://{host}{path}"), login))
}

fn percent_decoded_login(login: &str) -> String {
    login
        .split(':')
        .map(percent_decoded_name)
        .collect::<Vec<_>>()
        .join(":")
}

/// Reads a repository's address; `None` when it is none.
///
/// # Errors
/// An address, reference or option that cannot be used.
pub fn git(text: &str) -> Option<Result<GitSource, BadUrl>> {
    is_git(text).then(|| parse_git(text))
}

fn parse_git(text: &str) -> Result<GitSource, BadUrl> {
    let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    if !query.is_empty() && !fragment.is_empty() {
        return bad("it has a query and a fragment: write one of them");
    }
    let (remote, login) = without_login(place)?;
    if let Some((place, path)) = scp_form(&remote)
        && (place.starts_with('-') || path.starts_with('-'))
    {
        return bad("it begins with a dash");
    }
    let mut source = GitSource {
        remote,
        reference: None,
        directory: String::new(),
        checksum: None,
        submodules: true,
        keep_git_dir: false,
        times: Times::default(),
        login,
    };
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    source.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
    source.directory = directory.to_owned();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        option(&mut source, field)?;
    }
    if let Some(reference) = &source.reference {
        check_reference(reference)?;
    }
    Ok(source)
}

/// One `name=value` of the query.
fn option(source: &mut GitSource, field: &str) -> Result<(), BadUrl> {
    let (name, value) = field.split_once('=').unwrap_or((field, ""));
    let value = decoded(value);
    let boolean = || match value.as_str() {
        "" => Ok(true),
        text => crate::lint::boolean(text)
            .ok_or_else(|| BadUrl(format!("`{name}` is true or false, not `{text}`"))),
    };
    let reference = match name {
        "ref" => Some(value.clone()),
        "tag" => Some(format!("refs/tags/{value}")),
        "branch" => Some(format!("refs/heads/{value}")),
        _ => None,
    };
    if let Some(reference) = reference {
        if value.is_empty() {
            return bad(format!("`{name}` has no value"));
        }
        return match source.reference.replace(reference) {
            Some(_) => bad("it names several references"),
            None => Ok(()),
        };
    }
    match name {
        "subdir" => source.directory = value,
        "commit" | "checksum" => {
            check_commit(&value)?;
            if source
                .checksum
                .replace(value.clone())
                .is_some_and(|other| other != value)
            {
                return bad("it names several commits");
            }
        }
        "submodules" => source.submodules = boolean()?,
        "keep-git-dir" => source.keep_git_dir = boolean()?,
        "mtime" => {
            source.times = match value.as_str() {
                "checkout" => Times::Checkout,
                "commit" => Times::Commit,
                _ => return bad("`mtime` is checkout or commit"),
            }
        }
        _ => return bad(format!("its query has an unknown option `{name}`")),
    }
    Ok(())
}

/// `%xx` and `+` of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (
            byte,
            digits.and_then(|two| u8::from_str_radix(two, 16).ok()),
        ) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// git-check-ref-format(1), and nothing that an option could be.
fn check_reference(text: &str) -> Result<(), BadUrl> {
    let wrong = text.starts_with(['-', '/', '.'])
        || text.ends_with(['/', '.'])
        || text.ends_with(".lock")
        || text.contains("..")
        || text.contains("//")
        || text.contains("@{")
        || text
            .chars()
            .any(|c| c.is_control() || " ~^:?*[\\".contains(c));
    if wrong {
        return bad(format!("`{text}` is no reference"));
    }
    Ok(())
}

/// The beginning of a commit's name, at least.
pub(super) fn check_commit(text: &str) -> Result<(), BadUrl> {
    let digits = text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    if !digits || !(7..=64).contains(&text.len()) {
        return bad(format!("`{text}` is no commit"));
    }
    Ok(())
}

impl GitSource {
    /// Sets what `--checksum` of ADD says.
    ///
    /// # Errors
    /// It is no commit, or another one than the address says.
    pub fn with_checksum(mut self, checksum: &str) -> Result<Self, BadUrl> {
        check_commit(checksum)?;
        match self.checksum.replace(checksum.to_owned()) {
            Some(other) if other != checksum => {
                bad(format!("its checksums differ: `{checksum}` and `{other}`"))
            }
            _ => Ok(self),
        }
    }

    /// The address as people read it.
    pub fn shown(&self) -> String {
        let reference = self.reference.as_deref().unwrap_or_default();
        match (reference, self.directory.as_str()) {
            ("", "") => self.remote.clone(),
            (reference, "") => format!("{}#{reference}", self.remote),
            (reference, directory) => format!("{}#{reference}:{directory}", self.remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> GitSource {
        git(text)
            .unwrap_or_else(|| panic!("{text} is no repository"))
            .unwrap()
    }

    #[test]
    fn what_is_a_repository() {
        for text in [
            "https://host/a.git",
            "https://host/a.git#x",
            "http://h/a.git?ref=x",
            "git://h/a",
            "ssh://git@h/a",
            "git@host:a/b.git#x",
        ] {
            assert!(is_git(text), "{text}");
        }
        for text in [
            "https://host/a.tar",
            "https://host/a.gitx",
            "a@b",
            "a/b@c:d",
            "./git@h:x",
            "x",
        ] {
            assert!(!is_git(text), "{text}");
        }
    }

    #[test]
    fn fragments_and_queries() {
        let source = parsed("https://h/a.git#v1:sub/dir");
        assert_eq!(source.reference.as_deref(), Some("v1"));
        assert_eq!(
            (source.directory.as_str(), source.remote.as_str()),
            ("sub/dir", "https://h/a.git")
        );
        let source = parsed(
            "https://h/a.git?branch=main&subdir=s%2Ft&checksum=0123456789&keep-git-dir=1&submodules=false&mtime=commit",
        );
        assert_eq!(source.reference.as_deref(), Some("refs/heads/main"));
        assert_eq!(
            (source.directory.as_str(), source.checksum.as_deref()),
            ("s/t", Some("0123456789"))
        );
        assert!(source.keep_git_dir && !source.submodules && source.times == Times::Commit);
    }

    // security.md, B6: what git could take for an option, or a way out.
    #[test]
    fn hostile_addresses_are_refused() {
        for text in [
            "https://h/a.git#--upload-pack=touch /tmp/x",
            "https://h/a.git#-x",
            "https://h/a.git?ref=--upload-pack%3Dx",
            "https://-oProxyCommand=x/a.git",
            "ssh://-oProxyCommand=x/a",
            "ssh://-x@h/a",
            "git@h:-x.git",
            "https://h/a.git#a..b",
            "https://h/a.git#a b",
            "https://h/a.git#a\nb",
            "https://h/a.git#ref^{commit}",
            "https://h/a.git?tag=a&branch=b",
            "https://h/a.git?unknown=1",
            "https://h/a.git?commit=zz",
            "https://h/a.git?ref=a#b",
            "https:///a.git",
        ] {
            assert!(git(text).unwrap().is_err(), "{text}");
        }
    }

    // security.md, B11: a password is kept apart from what is shown, keyed and recorded.
    #[test]
    fn passwords_are_kept_apart() {
        let source = parsed("https://user:p%40ss@h/a.git");
        assert_eq!(source.remote, "https://h/a.git");
        assert_eq!(source.login.as_deref(), Some("user:p@ss"));
        assert!(!serde_json::to_string(&source).unwrap().contains("ss"));
        let file = http("https://u:secret@h/x.tar?sig=1#f").unwrap().unwrap();
        assert_eq!(
            (file.url.as_str(), file.name.as_str()),
            ("https://h/x.tar?sig=1", "x.tar")
        );
        assert!(!serde_json::to_string(&file).unwrap().contains("secret"));
        assert_eq!(
            without_passwords("ADD http://u:p@h/a@b 'ssh://git@h' //x@y http:// /"),
            "ADD http://h/a@b 'ssh://h' //x@y http:// /"
        );
    }

    #[test]
    fn names_of_files() {
        let name = |text: &str| http(text).unwrap().unwrap().name;
        assert_eq!(name("http://h/a/b.txt"), "b.txt");
        assert_eq!(name("http://h/a/b%20c"), "b c");
        assert_eq!(name("http://h/a/..%2f..%2fx"), "..%2f..%2fx");
        assert_eq!(name("http://h/"), "__unnamed__");
        assert_eq!(name("http://h"), "__unnamed__");
        assert_eq!(name("http://h/.."), "__unnamed__");
    }
}
