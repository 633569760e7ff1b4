//! Executing the runtime: runc's command line, whoever implements it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::Error;
use crate::container::ContainerId;
use crate::error::At as _;
use crate::sys;

/// Most of the runtime's log read for its last error, in bytes. A line is under 4 KiB.
const LOG_BYTES_MAX: u64 = 256 * 1024;

/// Exit status for a program in the image that may not be executed.
pub const STATUS_CANNOT_EXECUTE: u8 = 126;
/// Exit status for a program that the image does not have.
pub const STATUS_NOT_FOUND: u8 = 127;
/// Exit status for an error of ours.
pub const STATUS_OWN_ERROR: u8 = 125;

/// A runtime with its root folder.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The executable.
    pub program: PathBuf,
    /// Its `--root`.
    pub root: PathBuf,
    /// Where it logs, one JSON object a line.
    pub log: PathBuf,
}

/// What a container's first process gets as its standard streams.
#[derive(Debug)]
pub struct Stdio3 {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl Runtime {
    /// A command line up to its verb's own arguments. Signals that we take from a
    /// descriptor are not kept from the runtime, nor from what it starts.
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        sys::before_exec(&mut command, sys::unblock_signals);
        command.arg("--root").arg(&self.root);
        command
            .arg("--log")
            .arg(&self.log)
            .args(["--log-format", "json", verb]);
        command
    }

    /// `create`: the container exists, its program waits to be started.
    ///
    /// # Errors
    /// [`Error::Runtime`] with its words.
    pub fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        console: Option<&Path>,
        stdio: Stdio3,
    ) -> Result<i32, Error> {
        let pid_file = bundle.join("init.pid");
        let mut command = self.command("create");
        command
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file);
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        command.arg(id.as_str()).current_dir(bundle);
        command
            .stdin(stdio.stdin)
            .stdout(stdio.stdout)
            .stderr(stdio.stderr);
        self.run(command)?;
        let pid = std::fs::read_to_string(&pid_file).at("read", &pid_file)?;
        pid.trim()
            .parse()
            .map_err(|_| Error::Invalid(format!("{pid_file:?} holds no pid: {pid:?}")))
    }

    /// `start`: the program runs.
    ///
    /// # Errors
    /// [`Error::Runtime`] with its words.
    pub fn start(&self, id: &ContainerId) -> Result<(), Error> {
        self.quiet("start", &[id.as_str()])
    }

    /// `delete --force`: whatever is left of the container goes away. Idempotent.
    ///
    /// # Errors
    /// [`Error::Runtime`] with its words.
    pub fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        self.quiet("delete", &["--force", id.as_str()])
    }

    /// `delete`: a container whose program was not started, or has ended, goes away.
    ///
    /// # Errors
    /// [`Error::Runtime`] with its words, also that it runs.
    pub fn delete_unstarted(&self, id: &ContainerId) -> Result<(), Error> {
        self.quiet("delete", &[id.as_str()])
    }

    /// `kill`: a signal for the first process.
    ///
    /// # Errors
    /// [`Error::Runtime`] with its words.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.quiet("kill", &[id.as_str(), &signal.to_string()])
    }

    fn quiet(&self, verb: &str, arguments: &[&str]) -> Result<(), Error> {
        let mut command = self.command(verb);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.run(command)
    }

    /// Runs `command` to its end.
    fn run(&self, mut command: Command) -> Result<(), Error> {
        self.forget_log();
        let status = command.status().at("execute", &self.program)?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Runtime {
                message: self.message(status),
            })
        }
    }

    /// Starts the log anew, so that its last error is of the next command.
    pub fn forget_log(&self) {
        let _: Result<File, _> = File::create(&self.log);
    }

    /// Why the runtime failed: the last error it logged, else its status.
    #[must_use]
    pub fn message(&self, status: ExitStatus) -> String {
        self.last_error().unwrap_or_else(|| {
            let name = self
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            format!("{name} ended with {status} and did not say why")
        })
    }

    /// The last error in its log.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let mut text = String::new();
        File::open(&self.log)
            .ok()?
            .take(LOG_BYTES_MAX)
            .read_to_string(&mut text)
            .ok()?;
        text.lines().rev().find_map(error_of_line)
    }
}

/// The message of a log line of level error or fatal.
fn error_of_line(line: &str) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let level = entry.get("level")?.as_str()?;
    let message = entry.get("msg")?.as_str()?;
    matches!(level, "error" | "fatal").then(|| message.to_owned())
}

/// The exit status that docker's users expect for a runtime's failure, from its words:
/// 127 the program is not there, 126 it cannot be executed, 125 anything else.
#[must_use]
pub fn status_of(message: &str) -> u8 {
    let message = message.to_ascii_lowercase();
    let about_program = message.contains("exec ") || message.contains("exec:");
    if message.contains("executable file not found")
        || about_program && message.contains("no such file or directory")
    {
        STATUS_NOT_FOUND
    } else if about_program
        && [
            "permission denied",
            "is a directory",
            "exec format error",
            "not executable",
            "not a directory",
        ]
        .iter()
        .any(|reason| message.contains(reason))
    {
        STATUS_CANNOT_EXECUTE
    } else {
        STATUS_OWN_ERROR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(
            &log,
            "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"info\",\"msg\":\"x\"}\ntorn{",
        )
        .unwrap();
        let runtime = Runtime {
            program: "/x/runc".into(),
            root: "/x".into(),
            log,
        };
        assert_eq!(runtime.last_error().as_deref(), Some("second"));
        runtime.forget_log();
        assert_eq!(runtime.last_error(), None);
    }

    #[test]
    fn statuses_follow_the_words() {
        for (words, status) in [
            (
                "unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
                127,
            ),
            (
                "exec: \"/nosuch\": stat /nosuch: no such file or directory",
                127,
            ),
            ("exec /run.sh: no such file or directory", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("exec /bin/x: exec format error", 126),
            (
                "error mounting \"/nosuch\" to rootfs: no such file or directory",
                125,
            ),
            ("cgroup: permission denied", 125),
        ] {
            assert_eq!(status_of(words), status, "{words}");
        }
    }
}
