//! `--log`, `--log-format` and `--debug`: lines as runc writes them.

use std::fs::File;
use std::io::Write;

use crate::error::Error;
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
    pub(crate) fn error(&self, message: &str) {
        self.line(Level::Error, message);
        if self.file.is_some() {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// A log that cannot be written must not keep the command from its work.
    fn line(&self, level: Level, message: &str) {
        let line = line(self.format, level, message, &time::rfc3339(time::now()));
        let _ = match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    let level = match level {
        Level::Debug => "debug",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let quoted = serde_json::Value::from(message).to_string();
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={quoted}\n"),
        Format::Json => format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_those_of_runc() {
        let time = "2026-11-21T13:08:00Z";
        assert_eq!(
            line(Format::Json, Level::Error, "a \"b\"\nc", time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2026-11-21T13:08:00Z\"}\n"
        );
        assert_eq!(
            line(Format::Text, Level::Warning, "x", time),
            "time=\"2026-11-21T13:08:00Z\" level=warning msg=\"x\"\n"
        );
    }
}
