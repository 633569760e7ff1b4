//! What `--log-path` and its companions say, and the places that come of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::{Fields, Journal, Keeper, Logs};
use crate::Error;
use crate::conmon::cli::Options;
use crate::container::record::LogFull;
use crate::supervisor::log::{Form, Limits, Log, Settings};

/// Permissions of a log: its user and group read it, as log collectors expect.
const LOG_MODE: u32 = 0o640;

/// Where output goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// Files, and what their entries look like.
    pub files: Vec<(PathBuf, Form)>,
    /// systemd's journal.
    pub journal: bool,
    /// The container has the supervisor's own standard streams; there is nothing to read.
    pub passthrough: bool,
}

/// What `--log-path` says, in all its forms: `DRIVER`, `DRIVER:PATH`, `PATH`, `:PATH`.
///
/// # Errors
/// In conmon's words: nothing was said, a file without path, an unknown driver.
pub fn plan(paths: &[OsString]) -> Result<Drivers, Error> {
    if paths.is_empty() {
        return Err(say("Log driver not provided. Use --log-path"));
    }
    let mut drivers = Drivers::default();
    for path in paths {
        drivers.add(path)?;
    }
    Ok(drivers)
}

impl Drivers {
    fn add(&mut self, said: &OsStr) -> Result<(), Error> {
        let said = said.as_bytes();
        let (driver, path) = match said.iter().position(|byte| *byte == b':') {
            Some(colon) => (&said[..colon], Some(&said[colon + 1..])),
            None => (said, None),
        };
        let path = path.filter(|path| !path.is_empty());
        match (driver, path) {
            (b"", None) => return Err(say("log-path must not be empty")),
            (b"" | b"k8s-file", Some(path)) => self.files.push((file(path), Form::Local)),
            (b"json-file", Some(path)) => self.files.push((file(path), Form::Json)),
            (b"k8s-file", None) => return Err(say("k8s-file requires a filename")),
            (b"json-file", None) => return Err(say("json-file requires a filename")),
            (b"none" | b"off" | b"null", _) => {}
            (b"passthrough", _) => self.passthrough = true,
            (b"journald", _) => self.journal = true,
            (path, None) if !said.contains(&b':') => self.files.push((file(path), Form::Local)),
            (driver, _) => {
                let driver = String::from_utf8_lossy(driver);
                return Err(say(&format!("No such log driver {driver}")));
            }
        }
        Ok(())
    }

    /// Opens all places.
    ///
    /// # Errors
    /// In conmon's words: options that say nothing to these drivers, a file that cannot be opened.
    pub fn open(&self, options: &Options) -> Result<Logs, Error> {
        if self.passthrough && has_terminal() {
            return Err(say(
                "cannot use a tty with passthrough logging mode to prevent attacks via TIOCSTI",
            ));
        }
        let mut keepers = Vec::new();
        for (path, form) in &self.files {
            keepers.push(Keeper::File(open_file(path, *form, options)?));
        }
        if self.journal {
            keepers.push(Keeper::Journal(Journal::new(fields(options)?)));
        } else if !self.files.is_empty() {
            if options.log_tag.is_some() {
                return Err(say("k8s-file doesn't support --log-tag"));
            }
            if !options.log_labels.is_empty() {
                return Err(say("k8s-file doesn't support --log-label"));
            }
        }
        Ok(Logs::new(keepers))
    }
}

fn file(path: &[u8]) -> PathBuf {
    OsString::from_vec(path.to_vec()).into()
}

/// A terminal among the standard streams could be typed into by the container (`TIOCSTI`).
fn has_terminal() -> bool {
    use rustix::stdio::{stderr, stdin, stdout};
    [stdin(), stdout(), stderr()]
        .iter()
        .any(rustix::termios::isatty)
}

fn open_file(path: &Path, form: Form, options: &Options) -> Result<Log, Error> {
    let limit = |bytes: Option<i64>| bytes.and_then(|n| u64::try_from(n).ok().filter(|n| *n > 0));
    let settings = Settings {
        path: path.to_owned(),
        form,
        limits: Limits {
            file_bytes: limit(options.log_size_max),
            total_bytes: limit(options.log_total_max),
            kept_files: options.kept_files()?,
        },
        full: LogFull::Block,
        mode: LOG_MODE,
        sync: !options.no_sync_log,
    };
    check_allowed(path, &options.log_allowed)?;
    Log::with(settings).map_err(|err| match err {
        Error::File { source, .. } => Error::System("Failed to open log file", source),
        other => other,
    })
}

/// Whether the log lies in one of the folders where logs may lie; anywhere, where none is named.
fn check_allowed(path: &Path, folders: &[PathBuf]) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(folder) = folder.canonicalize() else {
        return Ok(()); // opening the log says why
    };
    let inside = |allowed: &PathBuf| {
        allowed
            .canonicalize()
            .is_ok_and(|allowed| folder.starts_with(allowed))
    };
    if folders.is_empty() || folders.iter().any(inside) {
        return Ok(());
    }
    Err(say(&format!(
        "Log file {} is in none of the folders of --log-allowlist-dirs",
        path.display()
    )))
}

/// Length of a short container id.
const SHORT_ID_BYTES: usize = 12;

/// What each entry of the journal says besides its message.
fn fields(options: &Options) -> Result<Fields, Error> {
    let id = options.cid.as_deref().unwrap_or_default();
    let Some(short) = id.as_bytes().get(..SHORT_ID_BYTES) else {
        return Err(say("Container ID must be longer than 12 characters"));
    };
    if id.len() == SHORT_ID_BYTES {
        return Err(say("Container ID must be longer than 12 characters"));
    }
    let mut fields = Fields::new(!options.no_partial_message);
    fields.put(b"CONTAINER_ID_FULL", id.as_bytes());
    fields.put(b"CONTAINER_ID", short);
    let (name, tag) = (options.name.as_deref(), options.log_tag.as_deref());
    if let Some(tag) = tag {
        fields.put(b"CONTAINER_TAG", tag.as_bytes());
    }
    if let Some(name) = name {
        fields.put(b"CONTAINER_NAME", name.as_bytes());
    }
    let identifier = tag.or(name).map_or(short, OsStr::as_bytes);
    fields.put(b"SYSLOG_IDENTIFIER", identifier);
    for label in &options.log_labels {
        let (name, value) = split_label(label)?;
        fields.put(name, value);
    }
    Ok(fields)
}

/// `NAME=VALUE`; the name as journald wants it.
fn split_label(label: &OsStr) -> Result<(&[u8], &[u8]), Error> {
    let bytes = label.as_bytes();
    let shown = label.to_string_lossy();
    let mut parts = bytes.split(|byte| *byte == b'=');
    let (Some(name @ [_, ..]), Some(value), None) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(say(&format!(
            "Container labels must be in format LABEL=VALUE (it is '{shown}')"
        )));
    };
    let good = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    if !name.iter().all(good) {
        return Err(say(&format!(
            "Container label names must contain only uppercase letters, numbers and underscore (in '{shown}')"
        )));
    }
    Ok((name, value))
}

fn say(words: &str) -> Error {
    Error::Invalid(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conmon::cli;

    fn planned(paths: &[&str]) -> Result<Drivers, String> {
        let paths: Vec<OsString> = paths.iter().map(OsString::from).collect();
        plan(&paths).map_err(|err| err.to_string())
    }

    #[test]
    fn all_forms_of_a_path() {
        for said in ["k8s-file:/x", "/x", ":/x"] {
            assert_eq!(
                planned(&[said]).unwrap().files,
                [(PathBuf::from("/x"), Form::Local)],
                "{said}"
            );
        }
        assert_eq!(
            planned(&[":journald"]).unwrap().files,
            [(PathBuf::from("journald"), Form::Local)]
        );
        assert_eq!(
            planned(&["k8s-file:/a:b"]).unwrap().files,
            [(PathBuf::from("/a:b"), Form::Local)]
        );
        assert_eq!(planned(&["json-file:/x"]).unwrap().files[0].1, Form::Json);
        for said in ["none", "off", "null", "none:"] {
            assert_eq!(planned(&[said]).unwrap(), Drivers::default(), "{said}");
        }
        assert!(planned(&["journald:"]).unwrap().journal);
        assert!(planned(&["passthrough"]).unwrap().passthrough);
        let both = planned(&["/x", "journald", "none"]).unwrap();
        assert!(both.journal && both.files.len() == 1);
    }

    #[test]
    fn what_is_wrong_is_said_in_conmons_words() {
        for (said, words) in [
            (&[][..], "Log driver not provided. Use --log-path"),
            (&[""][..], "log-path must not be empty"),
            (&[":"][..], "log-path must not be empty"),
            (&["k8s-file"][..], "k8s-file requires a filename"),
            (&["k8s-file:"][..], "k8s-file requires a filename"),
            (&["json-file"][..], "json-file requires a filename"),
            (&["/x", "invalid:/y"][..], "No such log driver invalid"),
            (&["invalid:"][..], "No such log driver invalid"),
        ] {
            assert_eq!(planned(said), Err(words.to_owned()), "{said:?}");
        }
    }

    fn opened(line: &str) -> Result<(), String> {
        let words = line.split_whitespace().map(OsString::from);
        let options = cli::read("conmon", words).unwrap().unwrap();
        let drivers = plan(&options.log_paths).unwrap();
        match drivers.open(&options) {
            Ok(_) => Ok(()),
            Err(err) => Err(crate::error::chain(&err)),
        }
    }

    #[test]
    fn options_that_do_not_fit_the_driver_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log").display().to_string();
        let id = "-c 0123456789abcdef";
        for (line, words) in [
            (
                format!("{id} -l {log} --log-tag t"),
                "k8s-file doesn't support --log-tag",
            ),
            (
                format!("{id} -l {log} --log-label A=b"),
                "k8s-file doesn't support --log-label",
            ),
            (
                "-c 0123456789ab -l journald".to_owned(),
                "must be longer than 12",
            ),
            (
                format!("{id} -l journald --log-label A"),
                "format LABEL=VALUE",
            ),
            (
                format!("{id} -l journald --log-label A=b=c"),
                "format LABEL=VALUE",
            ),
            (
                format!("{id} -l journald --log-label =b"),
                "format LABEL=VALUE",
            ),
            (
                format!("{id} -l journald --log-label A%=b"),
                "only uppercase letters",
            ),
            (
                format!("{id} -l /nonexistent/x/log"),
                "Failed to open log file",
            ),
            (
                format!("{id} -l {log} --log-allowlist-dirs /proc"),
                "--log-allowlist-dirs",
            ),
        ] {
            let said = opened(&line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
        let allowed = folder.path().display();
        opened(&format!("{id} -l {log} --log-allowlist-dirs {allowed}")).unwrap();
        opened(&format!(
            "{id} -l {log} -l journald --log-tag t --log-label A_1=b"
        ))
        .unwrap();
    }
}
