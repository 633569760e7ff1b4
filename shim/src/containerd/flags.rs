//! The command line of a shim, in Go's manner: `-x v`, `-x=v` and `--x` mean
//! the same, flags end at the first word that is none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::Error;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No word: look after a pod, with its socket as standard input.
    Serve,
    /// `start`: make sure that somebody does.
    Start,
    /// `delete`: remove what a dead one left.
    Delete,
    /// [`KEEP`], by ourselves only: start the one that looks after a pod, and keep what it leaves.
    Keep,
    /// `-info`.
    Info,
    /// `-v`, `-version`.
    Version,
    /// `-h`, `-help`.
    Help,
}

/// What `-help` says.
pub const HELP: &str = "\
usage: containerd-shim-teu-v2 -namespace NAMESPACE -id ID -address SOCKET start | delete

Looks after the containers of a pod for containerd, which executes this program
itself: `ctr run --runtime io.containerd.teu.v2 ...`, or in its config.toml
`runtime_type = \"io.containerd.teu.v2\"`.

  start               answer with the address at which the pod's shim listens
  delete              remove what a shim that died has left

  -namespace NAME     containerd's namespace
  -id ID              the container
  -address SOCKET     containerd's gRPC socket
  -bundle DIR         the container's bundle (default: the current directory)
  -debug              log more
  -info               say what is supported; options are read from standard input
  -v, -version        print the version
  -h, -help           print this
";

/// The word by which `start` executes a keeper.
pub const KEEP: &str = "keep";

/// A command line, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// What is to be done.
    pub action: Action,
    /// `-namespace`: containerd's, not the kernel's.
    pub namespace: String,
    /// `-id`: of the container.
    pub id: String,
    /// `-address`: containerd's gRPC socket. Only part of a name here.
    pub address: String,
    /// `-bundle`: where the container is; else it is the current directory.
    pub bundle: Option<PathBuf>,
    /// `-debug`.
    pub debug: bool,
}

/// Flags that take a value.
const VALUED: [&str; 7] = [
    "namespace",
    "id",
    "address",
    "bundle",
    // Not needed by us:
    "publish-binary",
    "socket",
    "debug-socket",
];

/// Parses what follows the program's name.
///
/// # Errors
/// [`Error::Invalid`] for an unknown flag or word, a missing value, an empty namespace or id.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Flags, Error> {
    let mut flags = Flags {
        action: Action::Serve,
        namespace: String::new(),
        id: String::new(),
        address: String::new(),
        bundle: None,
        debug: false,
    };
    let mut words = words.into_iter();
    let mut word = words.next();
    while let Some((name, value)) = word.as_deref().and_then(split) {
        flags.set(&name, value, &mut words)?;
        word = words.next();
    }
    match word.as_deref().map(OsStr::to_string_lossy).as_deref() {
        None => {}
        Some("start") => flags.action = Action::Start,
        Some("delete") => flags.action = Action::Delete,
        Some(KEEP) => flags.action = Action::Keep,
        Some(other) => {
            return Err(Error::Invalid(format!(
                "{other:?} is neither start nor delete"
            )));
        }
    }
    flags.check()?;
    Ok(flags)
}

/// Name and, after `=`, value of a flag; `None` for a word that is none, and for `--`.
fn split(word: &OsStr) -> Option<(String, Option<OsString>)> {
    let bytes = word.as_bytes();
    let name = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))?;
    if name.is_empty() {
        return None;
    }
    let (name, value) = match name.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            &name[..at],
            Some(OsString::from_vec(name[at + 1..].to_vec())),
        ),
        None => (name, None),
    };
    Some((String::from_utf8_lossy(name).into_owned(), value))
}

impl Flags {
    fn set(
        &mut self,
        name: &str,
        value: Option<OsString>,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Error> {
        let switched = |value: &Option<OsString>| {
            value
                .as_ref()
                .is_none_or(|value| value == "true" || value == "1")
        };
        match name {
            "debug" => self.debug = switched(&value),
            "v" | "version" if switched(&value) => self.action = Action::Version,
            "info" if switched(&value) => self.action = Action::Info,
            "h" | "help" if switched(&value) => self.action = Action::Help,
            "v" | "version" | "info" | "h" | "help" => {}
            _ if !VALUED.contains(&name) => {
                return Err(Error::Invalid(format!(
                    "there is no flag -{name}; see -help"
                )));
            }
            _ => {
                let value = value.or_else(|| rest.next());
                let value =
                    value.ok_or_else(|| Error::Invalid(format!("-{name} needs a value")))?;
                let text = || {
                    let text = value.to_str().map(str::to_owned);
                    text.ok_or_else(|| Error::Invalid(format!("-{name} {value:?} is not UTF-8")))
                };
                match name {
                    "namespace" => self.namespace = text()?,
                    "id" => self.id = text()?,
                    "address" => self.address = text()?,
                    "bundle" => {
                        self.bundle =
                            Some(PathBuf::from(&value)).filter(|path| !path.as_os_str().is_empty())
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        if matches!(self.action, Action::Version | Action::Info | Action::Help) {
            return Ok(());
        }
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(Error::Invalid(format!(
                    "-{flag} is missing; containerd starts this program"
                )));
            }
            if !is_name(value) {
                return Err(Error::Invalid(format!("-{flag} {value:?} is not a name")));
            }
        }
        Ok(())
    }
}

/// Longest name of a namespace, container or exec, in bytes. containerd's own
/// limit is 76; pods' names of other clients may be longer, a file's may not.
const NAME_BYTES_MAX: usize = 200;

/// Whether `name` can stand for a container, an exec or a namespace, also as a file's name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_BYTES_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Flags, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerds_own_lines_are_understood() {
        let start = of("-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id abc start").unwrap();
        assert_eq!(start.action, Action::Start);
        assert_eq!(
            (start.namespace.as_str(), start.id.as_str()),
            ("moby", "abc")
        );
        assert_eq!(start.address, "/run/c.sock");
        let delete =
            of("-namespace n -address a -publish-binary b -id c -bundle /b/c delete").unwrap();
        assert_eq!(delete.action, Action::Delete);
        assert_eq!(delete.bundle, Some("/b/c".into()));
        let serve = of("-namespace n -id c -address a -debug").unwrap();
        assert_eq!(serve.action, Action::Serve);
        assert!(serve.debug);
        assert_eq!(of("-v").unwrap().action, Action::Version);
        assert_eq!(of("-info").unwrap().action, Action::Info);
        assert_eq!(of("--help").unwrap().action, Action::Help);
    }

    #[test]
    fn both_dashes_and_equal_signs_mean_the_same() {
        let one = of("-namespace n -id i -debug start").unwrap();
        assert_eq!(of("--namespace=n --id i --debug=true start").unwrap(), one);
        assert!(!of("-namespace n -id i -debug=false start").unwrap().debug);
        assert_eq!(
            of("-namespace= -id i start").unwrap_err().to_string(),
            "-namespace is missing; containerd starts this program"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "-namespace",
            "-namespace n -id a/b start",
            "-namespace .. -id a start",
            "-namespace n -id a stop",
            "-nosuch 1",
            "-namespace n -id",
        ] {
            assert!(of(line).is_err(), "{line}");
        }
    }
}
