//! The options and what may be said together.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Asked, BadOption, Entry, Kind, Value, help, parse};
use crate::Error;

/// Where attach sockets stand that are not in their bundle.
const SOCKET_FOLDER: &str = "/var/run/crio";
/// Most files that a rotated log may leave.
const LOG_FILES_MAX: i64 = 1000;

macro_rules! entries {
    ($($name:literal $($short:literal)? $kind:ident $help:literal;)*) => {
        &[$(Entry { name: $name, short: entries!(@ $($short)?), kind: Kind::$kind, help: $help }),*]
    };
    (@) => { None };
    (@ $short:literal) => { Some($short) };
}

const ENTRIES: &[Entry] = entries![
    "api-version" Flag "Speak the newer of the two protocols on the pipes";
    "bundle" b'b' Text "The container's bundle; of an exec session, its folder";
    "cid" b'c' Text "The container's id, as the runtime knows it";
    "conmon-pidfile" b'P' Text "Write the pid of the supervisor to this file";
    "container-pidfile" b'p' Text "Have the runtime write the pid of the container to this file";
    "cuuid" b'u' Text "The container's id, as the caller knows it";
    "exec" b'e' Flag "Execute a process in a running container";
    "exec-attach" Flag "Wait until someone is attached before the process is executed";
    "exec-process-spec" Text "The file that describes the process";
    "exit-command" Text "Execute this program when the container has ended";
    "exit-command-arg" Text "An argument for it; may be repeated";
    "exit-delay" Int "Wait so many seconds before it is executed";
    "exit-dir" Text "Write the exit status to a file in this folder";
    "full-attach" Flag "Put the attach socket into the bundle itself, however long its path is";
    "leave-stdin-open" Flag "Keep standard input open when a client that was attached leaves";
    "log-allowlist-dirs" Text "Refuse log files outside this folder; may be repeated";
    "log-global-size-max" Long "Most bytes logged over the whole life";
    "log-label" Text "A field NAME=VALUE for each entry in the journal; may be repeated";
    "log-level" Text "Least level of the supervisor's own messages";
    "log-max-files" Int "How many full log files are kept by --log-rotate";
    "log-path" b'l' Text "Where output is kept: [k8s-file:]PATH, json-file:PATH, journald, passthrough, none; may be repeated";
    "log-rotate" Flag "Keep full log files instead of beginning anew";
    "log-size-max" Long "Most bytes of a log file";
    "log-tag" Text "A tag for each entry in the journal";
    "name" b'n' Text "The container's name";
    "no-container-partial-message" Flag "Do not mark pieces of long lines in the journal";
    "no-new-keyring" Flag "Tell the runtime not to make a session keyring";
    "no-pivot" Flag "Tell the runtime not to use pivot_root";
    "no-sync-log" Flag "Do not wait until the log is on disk";
    "persist-dir" b'0' Text "Write the exit status and out-of-memory kills to files in this folder too";
    "pidfile" Text "";
    "replace-listen-pid" Flag "Set LISTEN_PID to the runtime's pid, whoever's it was";
    "restore" Text "Restore the container from this checkpoint";
    "restore-arg" Text "";
    "runtime" b'r' Text "The runtime to execute";
    "runtime-arg" Text "An argument for the runtime, before its command; may be repeated";
    "runtime-opt" Text "An argument for the runtime's command; may be repeated";
    "sdnotify-socket" Text "Pass the container's readiness on to this socket";
    "seccomp-notify-plugins" Text "";
    "seccomp-notify-socket" Text "";
    "socket-dir-path" Text "The folder of links to the bundles with attach sockets";
    "stdin" b'i' Flag "Give the container a standard input";
    "sync" Flag "Stay the caller's child";
    "syslog" Flag "Send the supervisor's own messages to syslog too";
    "systemd-cgroup" b's' Flag "Tell the runtime to have systemd make the cgroup";
    "terminal" b't' Flag "Give the container a terminal";
    "timeout" b'T' Int "Kill the container after so many seconds";
    "version" Flag "Say the version";
];

/// From which level on the supervisor's own messages are said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What ends the supervisor.
    Error,
    /// What goes wrong, though it goes on.
    #[default]
    Warning,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
}

/// What is to be supervised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A new container.
    Create,
    /// A container restored from this checkpoint.
    Restore(OsString),
    /// A process in a running container.
    Exec {
        /// The file that describes it.
        spec: OsString,
        /// Wait for someone to be attached.
        attach: bool,
    },
}

/// All options, as far as they are taken as they come.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described by its entry above")]
pub struct Options {
    pub api_version: bool,
    pub bundle: Option<PathBuf>,
    pub cid: Option<OsString>,
    pub conmon_pidfile: Option<PathBuf>,
    pub container_pidfile: Option<PathBuf>,
    pub cuuid: Option<OsString>,
    pub exec: bool,
    pub exec_attach: bool,
    pub exec_process_spec: Option<OsString>,
    pub exit_command: Option<OsString>,
    pub exit_command_args: Vec<OsString>,
    pub exit_delay: i64,
    pub exit_dir: Option<PathBuf>,
    pub full_attach: bool,
    pub leave_stdin_open: bool,
    pub log_allowed: Vec<PathBuf>,
    pub log_labels: Vec<OsString>,
    pub log_level: Option<OsString>,
    pub log_max_files: Option<i64>,
    pub log_paths: Vec<OsString>,
    pub log_rotate: bool,
    pub log_size_max: Option<i64>,
    pub log_total_max: Option<i64>,
    pub log_tag: Option<OsString>,
    pub name: Option<OsString>,
    pub no_new_keyring: bool,
    pub no_partial_message: bool,
    pub no_pivot: bool,
    pub no_sync_log: bool,
    pub persist_dir: Option<PathBuf>,
    pub replace_listen_pid: bool,
    pub restore: Option<OsString>,
    pub runtime: Option<OsString>,
    pub runtime_args: Vec<OsString>,
    pub runtime_opts: Vec<OsString>,
    pub sdnotify_socket: Option<PathBuf>,
    pub seccomp_plugins: bool,
    pub seccomp_socket: bool,
    pub socket_dir_path: Option<PathBuf>,
    pub stdin: bool,
    pub sync: bool,
    pub syslog: bool,
    pub systemd_cgroup: bool,
    pub terminal: bool,
    pub timeout: i64,
    pub version: bool,
}

/// Reads the command line. `Err(text)`: it only asks for the help text.
///
/// # Errors
/// What is not understood.
pub fn read(
    program: &str,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Result<Options, String>, BadOption> {
    match parse(ENTRIES, arguments)? {
        Asked::Help => Ok(Err(help(program, ENTRIES))),
        Asked::Options(found) => {
            let mut options = Options::default();
            for (name, value) in found {
                match value {
                    Value::Flag => options.set_flag(name),
                    Value::Text(text) => options.set_text(name, text),
                    Value::Number(number) => options.set_number(name, number),
                }
            }
            Ok(Ok(options))
        }
    }
}

impl Options {
    fn set_flag(&mut self, name: &str) {
        let flag = match name {
            "api-version" => &mut self.api_version,
            "exec" => &mut self.exec,
            "exec-attach" => &mut self.exec_attach,
            "full-attach" => &mut self.full_attach,
            "leave-stdin-open" => &mut self.leave_stdin_open,
            "log-rotate" => &mut self.log_rotate,
            "no-container-partial-message" => &mut self.no_partial_message,
            "no-new-keyring" => &mut self.no_new_keyring,
            "no-pivot" => &mut self.no_pivot,
            "no-sync-log" => &mut self.no_sync_log,
            "replace-listen-pid" => &mut self.replace_listen_pid,
            "stdin" => &mut self.stdin,
            "sync" => &mut self.sync,
            "syslog" => &mut self.syslog,
            "systemd-cgroup" => &mut self.systemd_cgroup,
            "terminal" => &mut self.terminal,
            _ => &mut self.version,
        };
        *flag = true;
    }

    fn set_text(&mut self, name: &str, text: OsString) {
        match name {
            "bundle" => self.bundle = Some(text.into()),
            "cid" => self.cid = Some(text),
            "conmon-pidfile" => self.conmon_pidfile = Some(text.into()),
            "container-pidfile" | "pidfile" => self.container_pidfile = Some(text.into()),
            "cuuid" => self.cuuid = Some(text),
            "exec-process-spec" => self.exec_process_spec = Some(text),
            "exit-command" => self.exit_command = Some(text),
            "exit-command-arg" => self.exit_command_args.push(text),
            "exit-dir" => self.exit_dir = Some(text.into()),
            "log-allowlist-dirs" => self.log_allowed.push(text.into()),
            "log-label" => self.log_labels.push(text),
            "log-level" => self.log_level = Some(text),
            "log-path" => self.log_paths.push(text),
            "log-tag" => self.log_tag = Some(text),
            "name" => self.name = Some(text),
            "persist-dir" => self.persist_dir = Some(text.into()),
            "restore" => self.restore = Some(text),
            "runtime" => self.runtime = Some(text),
            "runtime-arg" => self.runtime_args.push(text),
            "sdnotify-socket" => self.sdnotify_socket = Some(text.into()),
            "seccomp-notify-plugins" => self.seccomp_plugins = true,
            "seccomp-notify-socket" => self.seccomp_socket = true,
            "socket-dir-path" => self.socket_dir_path = Some(text.into()),
            _ => self.runtime_opts.push(text), // runtime-opt, and restore-arg, its old name
        }
    }

    fn set_number(&mut self, name: &str, number: i64) {
        match name {
            "exit-delay" => self.exit_delay = number,
            "log-global-size-max" => self.log_total_max = Some(number),
            "log-max-files" => self.log_max_files = Some(number),
            "log-size-max" => self.log_size_max = Some(number),
            _ => self.timeout = number,
        }
    }

    /// The least level of own messages.
    ///
    /// # Errors
    /// It has none of the names.
    pub fn level(&self) -> Result<Level, Error> {
        let Some(name) = &self.log_level else {
            return Ok(Level::default());
        };
        let name = name.to_string_lossy();
        match name.to_ascii_lowercase().as_str() {
            "fatal" | "panic" | "error" => Ok(Level::Error),
            "warn" | "warning" => Ok(Level::Warning),
            "info" => Ok(Level::Info),
            "debug" | "trace" => Ok(Level::Debug),
            _ => Err(invalid(format!("No such log level {name}"))),
        }
    }

    /// What is to be supervised, where all that this needs was said. The words
    /// of all these errors are conmon's: callers look for them.
    ///
    /// # Errors
    /// What is missing or contradicts itself.
    pub fn mode(&self) -> Result<Mode, Error> {
        let say = |words: &str| Err(invalid(words.to_owned()));
        if self.restore.is_some() && self.exec {
            return say("Cannot use 'exec' and 'restore' at the same time");
        }
        if self.exec_attach && !self.exec {
            return say("Attach can only be specified with exec");
        }
        if self.exec_attach && !self.api_version {
            return say("Attach can only be specified for a non-legacy exec session");
        }
        if self.cuuid.is_none() && (!self.exec || self.api_version) {
            return say("Container UUID not provided. Use --cuuid");
        }
        let Some(runtime) = &self.runtime else {
            return say("Runtime path not provided. Use --runtime");
        };
        if rustix::fs::access(runtime, rustix::fs::Access::EXEC_OK).is_err() {
            let runtime = runtime.to_string_lossy();
            return say(&format!("Runtime path {runtime} is not valid"));
        }
        // Its plugins are libraries, which a static program cannot load. Without a socket
        // they are not asked for, as with conmon.
        if self.seccomp_socket && self.seccomp_plugins {
            return say("seccomp support not present");
        }
        if self.seccomp_socket {
            return say("seccomp notify socket specified without any plugin");
        }
        if self.exit_delay < 0 {
            return say("Delay before invoking exit command must be greater than or equal to 0");
        }
        match (&self.exec_process_spec, &self.restore) {
            (None, _) if self.exec => {
                say("Exec process spec path not provided. Use --exec-process-spec")
            }
            (Some(spec), _) if self.exec => Ok(Mode::Exec {
                spec: spec.clone(),
                attach: self.exec_attach,
            }),
            (_, Some(image)) => Ok(Mode::Restore(image.clone())),
            (_, None) => Ok(Mode::Create),
        }
    }

    /// How many full log files are kept.
    ///
    /// # Errors
    /// The number makes no sense.
    pub fn kept_files(&self) -> Result<u32, Error> {
        let files = self.log_max_files.unwrap_or(1);
        let say = |words: &str| Err(invalid(words.to_owned()));
        match u32::try_from(files) {
            Err(_) => say("log-max-files must be non-negative"),
            Ok(_) if files > LOG_FILES_MAX => {
                say(&format!("log-max-files cannot exceed {LOG_FILES_MAX}"))
            }
            Ok(0) if self.log_rotate => {
                say("log-max-files must be at least 1 when log-rotate is enabled")
            }
            Ok(_) if !self.log_rotate => Ok(0),
            Ok(files) => Ok(files),
        }
    }

    /// The folder of links to bundles.
    #[must_use]
    pub fn socket_folder(&self) -> PathBuf {
        let folder = self.socket_dir_path.clone();
        folder.unwrap_or_else(|| SOCKET_FOLDER.into())
    }
}

fn invalid(words: String) -> Error {
    Error::Invalid(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        read("conmon", line.split_whitespace().map(OsString::from))
            .unwrap()
            .unwrap()
    }

    /// What podman 4.3.1 writes.
    #[test]
    fn podmans_own_command_line() {
        let options = options(
            "--api-version 1 -c ID -u ID -r /bin/sh -b /b -p /b/pidfile -n name --exit-dir /e --full-attach -s \
             -l k8s-file:/b/ctr.log -l journald --log-level warning --syslog --conmon-pidfile /b/conmon.pid \
             --exit-command /usr/bin/podman --exit-command-arg container --exit-command-arg cleanup",
        );
        assert!(options.api_version && options.full_attach && options.systemd_cgroup);
        assert_eq!(options.mode().unwrap(), Mode::Create);
        assert_eq!(options.log_paths, ["k8s-file:/b/ctr.log", "journald"]);
        assert_eq!(options.exit_command_args, ["container", "cleanup"]);
        assert_eq!(options.level().unwrap(), Level::Warning);
    }

    #[test]
    fn what_is_missing_is_said_in_conmons_words() {
        for (line, words) in [
            ("-c x", "Container UUID not provided. Use --cuuid"),
            ("-c x -e", "Runtime path not provided. Use --runtime"),
            (
                "-c x -u y -r /nonexistent",
                "Runtime path /nonexistent is not valid",
            ),
            (
                "-e -c x -u y -r /bin/sh",
                "Exec process spec path not provided. Use --exec-process-spec",
            ),
            (
                "-u y --exec-attach",
                "Attach can only be specified with exec",
            ),
            (
                "-u y --exec --exec-attach",
                "Attach can only be specified for a non-legacy exec session",
            ),
            (
                "-u y --exec --restore z",
                "Cannot use 'exec' and 'restore' at the same time",
            ),
            (
                "-u y -r /bin/sh --seccomp-notify-socket /s",
                "seccomp notify socket specified without any plugin",
            ),
            (
                "-u y -r /bin/sh --seccomp-notify-socket /s --seccomp-notify-plugins a.so:b.so",
                "seccomp support not present",
            ),
            (
                "-u y -r /bin/sh --exit-delay=-1",
                "Delay before invoking exit command must be greater than or equal to 0",
            ),
        ] {
            assert_eq!(
                options(line).mode().unwrap_err().to_string(),
                words,
                "{line}"
            );
        }
        let level = options("--log-level foo").level().unwrap_err().to_string();
        assert_eq!(level, "No such log level foo");
    }

    #[test]
    fn plugins_that_nobody_asks_are_no_matter() {
        let options = options("-u y -r /bin/sh --seccomp-notify-plugins a.so");
        assert_eq!(options.mode().unwrap(), Mode::Create);
    }

    #[test]
    fn files_are_kept_only_when_rotated() {
        assert_eq!(options("").kept_files().unwrap(), 0);
        assert_eq!(options("--log-max-files 5").kept_files().unwrap(), 0);
        assert_eq!(options("--log-rotate").kept_files().unwrap(), 1);
        assert_eq!(
            options("--log-rotate --log-max-files=3")
                .kept_files()
                .unwrap(),
            3
        );
        for (number, words) in [
            ("-1", "non-negative"),
            ("1001", "cannot exceed 1000"),
            ("0", "at least 1"),
        ] {
            let line = format!("--log-rotate --log-max-files {number}");
            assert!(
                options(&line)
                    .kept_files()
                    .unwrap_err()
                    .to_string()
                    .contains(words)
            );
        }
    }

    #[test]
    fn names_are_listed_once_and_in_order() {
        let names: Vec<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
