//! `--log`, `--log-format` and `--debug`: lines as runc writes them.

use std::fs::File;
use std::io::Write;

use crate::error::{Error, Facts};
use crate::init::Failure;
use crate::time;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// `time="..." level=... msg="..."`.
    #[default]
    Text,
    /// `{"level":"...","msg":"...","time":"..."}`.
    Json,
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Only with `--debug`.
    Debug,
    /// Something was left out.
    Warning,
    /// The command failed.
    Error,
}

/// Where lines go; by default to standard error.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    /// Opens the log; a file is appended to.
    pub(crate) fn open(path: Option<&str>, format: Format, debug: bool) -> Result<Log, Error> {
        let file = match path {
            None | Some("" | "/dev/stderr") => None,
            Some(path) => {
                let options = File::options().append(true).create(true).open(path);
                Some(options.map_err(Error::on("open log file", path))?)
            }
        };
        Ok(Log {
            file,
            format,
            debug,
        })
    }

    /// Whether anyone debugs.
    pub(crate) fn debugs(&self) -> bool {
        self.debug
    }

    /// Writes a line for whoever debugs.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.line(Level::Debug, &message());
        }
    }

    /// Writes a line about something that was left out.
    pub(crate) fn warn(&self, message: &str) {
        self.line(Level::Warning, message);
    }

    /// Says why the command failed: in the log, and where that is a file also
    /// on standard error, for whoever is looking.
    pub(crate) fn error(&self, error: &Error) {
        let message = error.chain();
        self.write(Level::Error, &message, &error.facts());
        if self.file.is_some() {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Says that the program of `run` could not be executed: where the log is
    /// standard error, in one line of runc's words, as if the program had said
    /// it. A person also reads why.
    pub(crate) fn not_executed(&self, error: &Error, failure: &Failure) {
        if self.file.is_some() {
            return self.error(error);
        }
        let mut said = failure.clone();
        if !rustix::termios::isatty(rustix::stdio::stderr()) {
            said.advice.clear();
        }
        let _ = writeln!(std::io::stderr(), "{said}");
    }

    fn line(&self, level: Level, message: &str) {
        self.write(level, message, &Facts::default());
    }

    /// A log that cannot be written must not keep the command from its work.
    fn write(&self, level: Level, message: &str, facts: &Facts) {
        let time = time::rfc3339(time::now());
        let line = line(self.format, level, message, facts, &time);
        let _ = match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// The names of runc come first; what is known beyond them follows, each only
/// where it is known.
fn line(format: Format, level: Level, message: &str, facts: &Facts, time: &str) -> String {
    let level = match level {
        Level::Debug => "debug",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let message = quoted(message);
    if format == Format::Text {
        return format!("time=\"{time}\" level={level} msg={message}\n");
    }
    let mut line = format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"");
    for (name, value) in [
        ("step", &facts.step),
        ("object", &facts.object),
        ("errno", &facts.errno),
        ("pointer", &facts.pointer),
    ] {
        if !value.is_empty() {
            line.push_str(&format!(",\"{name}\":{}", quoted(value)));
        }
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_those_of_runc() {
        let time = "2026-11-21T13:08:00Z";
        let line = |format, level, message| line(format, level, message, &Facts::default(), time);
        assert_eq!(
            line(Format::Json, Level::Error, "a \"b\"\nc"),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2026-11-21T13:08:00Z\"}\n"
        );
        assert_eq!(
            line(Format::Text, Level::Warning, "x"),
            "time=\"2026-11-21T13:08:00Z\" level=warning msg=\"x\"\n"
        );
    }

    #[test]
    fn what_is_known_follows() {
        let facts = Facts {
            step: "mount".into(),
            pointer: "/mounts/3".into(),
            ..Facts::default()
        };
        assert_eq!(
            line(Format::Json, Level::Error, "x", &facts, "T"),
            "{\"level\":\"error\",\"msg\":\"x\",\"time\":\"T\",\"step\":\"mount\",\"pointer\":\"/mounts/3\"}\n"
        );
    }
}
