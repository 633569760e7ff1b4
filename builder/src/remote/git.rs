//! Git repositories, by the program git.
//!
//! git runs with an environment of ours: no configuration of the user or the system, no hooks, no
//! templates, no protocol but those of networks, no prompt, no filter. What it checks out is then read
//! as every tree is, by descriptors that lead nowhere else.
//! A password goes to git in its environment, where only its owner can read it, for its server alone:
//! not in an argument, and not into `.git/config`.

use super::{GitSource, Times};
use crate::cancel::Cancel;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where git and what it needs are found.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What git may speak.
const PROTOCOLS: &str = "http:https:git:ssh";

/// Most that is read of git's output, in bytes: a list of references is a few megabytes at worst.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Variables of ours that lead through a network.
const NETWORK_VARIABLES: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
];

/// Settings that are off, whatever git's defaults become.
const SETTINGS: [(&str, &str); 8] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("transfer.bundleURI", "false"),
];

/// Why a repository is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// git cannot be executed.
    #[error("execute git, which fetches repositories")]
    Execute(#[source] io::Error),
    /// git said no.
    #[error("{action} {remote}{said}")]
    Failed {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The repository.
        remote: String,
        /// Its last line, with a colon in front.
        said: String,
    },
    /// The repository has no such reference.
    #[error("{remote} has no reference {reference:?}")]
    NoReference {
        /// The repository.
        remote: String,
        /// The reference.
        reference: String,
    },
    /// It is not the commit that it should be.
    #[error("{remote}: its commit is {found}, not {wanted}")]
    Checksum {
        /// The repository.
        remote: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// Its files.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The build ended meanwhile.
    #[error("canceled")]
    Cancelled,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GitError {
    let path = path.to_owned();
    move |source| GitError::File {
        action,
        path,
        source,
    }
}

/// How git is run for one build.
#[derive(Debug, Clone)]
pub struct Git<'a> {
    /// The socket of an ssh agent that the user gave to the build.
    pub agent: Option<PathBuf>,
    /// Secrets by name: `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, with `.HOST` behind them or not.
    pub secret: &'a dyn SecretOf,
    /// Ends git with the build.
    pub cancel: &'a Cancel,
    /// Tells one run from another that is at work at the same time.
    pub number: usize,
}

/// Gives secrets by their names.
pub trait SecretOf: std::fmt::Debug + Sync {
    /// The secret of that name, if the user gave it.
    fn secret(&self, name: &str) -> Option<String>;
}

/// A state of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name, 40 or 64 digits.
    pub name: String,
    /// The reference that led to it, or the commit itself.
    fetch: String,
}

impl Git<'_> {
    /// Which commit a source means now.
    ///
    /// # Errors
    /// The repository is not to be had, or has no such reference.
    pub fn resolve(&self, source: &GitSource) -> Result<Commit, GitError> {
        let named = source.reference.as_deref();
        if let Some(name) = named
            .or(source.checksum.as_deref())
            .filter(|name| is_whole(name))
        {
            let commit = Commit {
                name: name.to_owned(),
                fetch: name.to_owned(),
            };
            return checked(source, commit, None);
        }
        let wanted = named.unwrap_or("HEAD");
        let patterns = [wanted.to_owned(), format!("{wanted}^{{}}")];
        let mut arguments = vec!["ls-remote", "--", &source.remote];
        arguments.extend(patterns.iter().map(String::as_str));
        let listed = self.run(source, None, "list references of", &arguments)?;
        let (name, reference, tag) =
            choose(&listed, wanted).ok_or_else(|| GitError::NoReference {
                remote: source.remote.clone(),
                reference: wanted.to_owned(),
            })?;
        let commit = Commit {
            name,
            fetch: reference,
        };
        checked(source, commit, tag.as_deref())
    }

    /// Checks out `commit` into the empty directory `folder`; the commit's time, in seconds since 1970.
    ///
    /// # Errors
    /// It is not to be had.
    pub fn checkout(
        &self,
        source: &GitSource,
        commit: &Commit,
        folder: &Path,
    ) -> Result<i64, GitError> {
        let run = |action, arguments: &[&str]| self.run(source, Some(folder), action, arguments);
        run(
            "prepare for",
            &["init", "--quiet", "--template=", "--initial-branch=main"],
        )?;
        run("name", &["remote", "add", "origin", &source.remote])?;
        self.fetch(source, commit, folder)?;
        let name = commit.name.as_str();
        run(
            "check out",
            &["checkout", "--quiet", "--force", "--detach", name],
        )?;
        if source.submodules && folder.join(".gitmodules").is_file() {
            let update = [
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
                "--depth=1",
            ];
            run("fetch the submodules of", &update)?;
        }
        let show = ["show", "--no-patch", "--format=%ct", name];
        let time = run("read the time of", &show)?;
        let time = time.trim().parse().unwrap_or_default();
        if !source.keep_git_dir {
            remove_repositories(folder)?;
        }
        // Last: what is removed changes the time of its directory.
        if source.times == Times::Commit {
            set_times(folder, time)?;
        }
        Ok(time)
    }

    /// Fetches one commit; where the server cannot give just that, its reference, or all of them.
    fn fetch(&self, source: &GitSource, commit: &Commit, folder: &Path) -> Result<(), GitError> {
        let fetch = |arguments: &[&str]| {
            let all: Vec<&str> = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
                .into_iter()
                .chain(arguments.iter().copied())
                .collect();
            self.run(source, Some(folder), "fetch", &all)
        };
        let is_there = || {
            let object = format!("{}^{{commit}}", commit.name);
            let there = ["cat-file", "-e", &object];
            self.run(source, Some(folder), "look into", &there).is_ok()
        };
        for wanted in [&commit.name, &commit.fetch] {
            if fetch(&["--depth=1", "origin", wanted]).is_ok() && is_there() {
                return Ok(());
            }
            if self.cancel.is_stopped() {
                return Err(GitError::Cancelled);
            }
        }
        fetch(&[
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ])?;
        if is_there() {
            return Ok(());
        }
        Err(GitError::NoReference {
            remote: source.remote.clone(),
            reference: commit.name.clone(),
        })
    }

    /// Runs git to its end; its standard output.
    fn run(
        &self,
        source: &GitSource,
        folder: Option<&Path>,
        action: &'static str,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        if self.cancel.is_stopped() {
            return Err(GitError::Cancelled);
        }
        let mut command = self.command(source, folder);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(GitError::Execute)?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.cancel.started(self.number, move || {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let complaints = std::thread::spawn(move || limited(stderr));
        let output = limited(stdout);
        let status = child.wait();
        let complaints = complaints.join().unwrap_or_default();
        self.cancel.finished(self.number);
        if self.cancel.is_stopped() {
            return Err(GitError::Cancelled);
        }
        if status.map_err(GitError::Execute)?.success() {
            return Ok(output);
        }
        Err(GitError::Failed {
            action,
            remote: source.remote.clone(),
            said: last_line(&complaints),
        })
    }

    fn command(&self, source: &GitSource, folder: Option<&Path>) -> Command {
        // What is checked out shall not depend on the umask of who builds.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 022 && exec git \"$@\"", "git"]);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
            .env("GIT_HTTP_LOW_SPEED_TIME", "60")
            .env("GIT_SSH_COMMAND", ssh_command());
        for name in NETWORK_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(agent) = &self.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let mut settings: Vec<(String, String)> = SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        settings.extend(self.authorization(source));
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        if let Some(folder) = folder {
            command.arg("-C").arg(folder);
        }
        command
    }

    /// The header that lets git in, for the server of the repository and no other.
    fn authorization(&self, source: &GitSource) -> Option<(String, String)> {
        let (scheme, rest) = source.remote.split_once("://")?;
        let host = rest.split('/').next().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let named = |name: &str| {
            let of_host = self.secret.secret(&format!("{name}.{host}"));
            of_host.or_else(|| self.secret.secret(name))
        };
        let header = match &source.login {
            Some(login) => format!("Basic {}", base64(login.as_bytes())),
            None => match (named("GIT_AUTH_HEADER"), named("GIT_AUTH_TOKEN")) {
                (Some(header), _) => header.trim().to_owned(),
                (None, Some(token)) => {
                    let login = format!("x-access-token:{}", token.trim());
                    format!("Basic {}", base64(login.as_bytes()))
                }
                (None, None) => return None,
            },
        };
        Some((
            format!("http.{scheme}://{host}/.extraHeader"),
            format!("Authorization: {header}"),
        ))
    }
}

/// Hosts are known by the user's own list, and nothing is asked.
fn ssh_command() -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let hosts = if !home.is_empty() && home.chars().all(plain) {
        format!("{home}/.ssh/known_hosts")
    } else {
        "/dev/null".to_owned()
    };
    format!("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o UserKnownHostsFile={hosts}")
}

/// Whether a text is the whole name of a commit.
fn is_whole(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// The commit, its reference, and the tag object on the way, among the lines of `git ls-remote`:
/// the very name, then a tag, then a branch.
fn choose(listed: &str, wanted: &str) -> Option<(String, String, Option<String>)> {
    let lines: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(name, _)| is_whole(name))
        .collect();
    let find = |reference: &str| {
        let line = lines.iter().find(|(_, name)| *name == reference);
        line.map(|(commit, _)| (*commit).to_owned())
    };
    let candidates = [
        wanted.to_owned(),
        format!("refs/tags/{wanted}"),
        format!("refs/heads/{wanted}"),
        format!("refs/{wanted}"),
    ];
    candidates.into_iter().find_map(|reference| {
        let own = find(&reference)?;
        Some(match find(&format!("{reference}^{{}}")) {
            Some(peeled) => (peeled, reference, Some(own)),
            None => (own, reference, None),
        })
    })
}

fn checked(source: &GitSource, commit: Commit, tag: Option<&str>) -> Result<Commit, GitError> {
    let Some(wanted) = &source.checksum else {
        return Ok(commit);
    };
    let fits = |name: &str| name.starts_with(wanted.as_str());
    if fits(&commit.name) || tag.is_some_and(fits) {
        return Ok(commit);
    }
    Err(GitError::Checksum {
        remote: source.remote.clone(),
        wanted: wanted.clone(),
        found: commit.name,
    })
}

fn limited(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(OUTPUT_BYTES_MAX);
        // What cannot be read any more says nothing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines.clone().rfind(|line| line.starts_with("fatal:"));
    fatal
        .or_else(|| lines.clone().next_back())
        .map(|line| format!(": {}", line.trim_start_matches("fatal: ")))
        .unwrap_or_default()
}

/// Removes `.git` of the repository and of those in it; a link of that name is not followed.
fn remove_repositories(folder: &Path) -> Result<(), GitError> {
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        let (path, kind) = (
            entry.path(),
            entry.file_type().map_err(failed("look up", folder))?,
        );
        match (entry.file_name() == ".git", kind.is_dir()) {
            (true, true) => std::fs::remove_dir_all(&path).map_err(failed("remove", &path))?,
            (true, false) => std::fs::remove_file(&path).map_err(failed("remove", &path))?,
            (false, true) => remove_repositories(&path)?,
            (false, false) => {}
        }
    }
    Ok(())
}

fn set_times(path: &Path, seconds: i64) -> Result<(), GitError> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let meta = std::fs::symlink_metadata(path).map_err(failed("look up", path))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed("list", path))? {
            set_times(&entry.map_err(failed("list", path))?.path(), seconds)?;
        }
    }
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("set the time of", path)(errno.into()))
}

/// RFC 4648, section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position <= chunk.len() {
                let digit = bits >> (18 - 6 * position) & 63;
                out.push(char::from(DIGITS[digit as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_chosen_as_git_does() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listed =
            format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{a}\tHEAD\n");
        assert_eq!(
            choose(&listed, "v1"),
            Some((c, "refs/tags/v1".into(), Some(b)))
        );
        assert_eq!(
            choose(&listed, "refs/heads/v1"),
            Some((a.clone(), "refs/heads/v1".into(), None))
        );
        assert_eq!(choose(&listed, "HEAD"), Some((a, "HEAD".into(), None)));
        assert_eq!(choose(&listed, "v2"), None);
    }

    #[test]
    fn base64_of_all_lengths() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:p@ss", "dXNlcjpwQHNz"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
