//! What can go wrong, in the words that the user sees.

use std::path::PathBuf;

use crate::called;
use crate::init::{Failure, Step};

mod advice;
pub(crate) mod errno;
mod facts;
pub(crate) mod locate;

pub(crate) use facts::Facts;

/// Every failure of the runtime. Display says what was attempted on what; the
/// cause is the source and is printed after it by `main`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file is not the JSON that it should be.
    #[error("parse {path:?}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field of `config.json` (or of a process file) has a wrong value.
    #[error("{field} {reason}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A system call failed.
    #[error("{action} {object}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// On what, quoted where it is a name.
        object: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state of the container forbids what was asked.
    #[error("{0}")]
    State(String),
    /// The container's first process said why it could not become the program.
    #[error("{}", called::init_failed())]
    Init(#[source] Failure),
    /// `exec` said why it could not become the program.
    #[error("{}", called::process_failed())]
    Exec(#[source] Failure),
    /// What `exec` made was killed before it could become the program; the last
    /// words are runc's.
    #[error(
        "exec failed: unable to start container process: it was killed before its program could run{}",
        if *starved { " (possibly OOM-killed)" } else { "" }
    )]
    ExecKilled {
        /// Whether the kernel has killed in the container for want of memory.
        starved: bool,
    },
    /// Init died of its own memory limit; runc's words.
    #[error("container init was OOM-killed (memory limit too low?)")]
    OutOfMemory(#[source] Box<Error>),
    /// The mounts of a container could not be changed.
    #[error("change the mounts")]
    Mounts(#[source] Failure),
    /// A hook failed.
    #[error("error running {kind} hook #{index}")]
    Hook {
        /// Kind as spelled in `config.json`.
        kind: &'static str,
        /// Place in its list, from 0.
        index: usize,
        /// What happened.
        source: crate::hook::Error,
    },
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// Cache and memory bandwidth.
    #[error(transparent)]
    Resctrl(#[from] crate::resctrl::Error),
    /// CRIU, or what it is told.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::Error),
    /// A seccomp profile.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::Error),
    /// A task of one command on one container.
    #[error("{}", called::failed(command, id))]
    Command {
        /// The command.
        command: &'static str,
        /// The container.
        id: String,
        /// Why.
        source: Box<Error>,
    },
    /// An error and where to look for what caused it.
    #[error("{error}")]
    Hinted {
        /// The error; it prints as if it stood alone.
        error: Box<Error>,
        /// Where to look.
        hint: facts::Hint,
    },
}

impl Error {
    /// Whether a cgroup that was asked for is another's, so that nothing of it
    /// may be cleaned up.
    pub(crate) fn is_of_others(&self) -> bool {
        let taken = |error: &crate::cgroup::systemd::Error| {
            matches!(error, crate::cgroup::systemd::Error::Exists { .. })
        };
        matches!(self, Error::Cgroup(crate::cgroup::Error::Systemd(error)) if taken(error))
    }

    /// An error of a system call on a named object: `.map_err(Error::on("open", path))`.
    pub(crate) fn on<E: Into<std::io::Error>>(
        action: &'static str,
        object: impl std::fmt::Debug,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::System {
            action,
            object: format!("{object:?}"),
            source: source.into(),
        }
    }

    /// An error of a system call whose object is not a name.
    pub(crate) fn at<E: Into<std::io::Error>>(
        action: &'static str,
        object: &'static str,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::System {
            action,
            object: object.to_owned(),
            source: source.into(),
        }
    }

    /// The failure of an execve(2) that was the last step of `run`.
    pub(crate) fn program_of_run(&self) -> Option<&Failure> {
        match self {
            Error::Hinted { error, .. } => error.program_of_run(),
            Error::Command {
                command: "run",
                source,
                ..
            } => match &**source {
                Error::Init(failure) if failure.step == Step::Execve => Some(failure),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error with all its causes on one line.
    pub(crate) fn chain(&self) -> String {
        if let Error::Hinted { error, hint } = self {
            return format!("{} ({hint})", error.chain());
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            match facts::system(error) {
                Some(errno) => text.push_str(&errno::words(errno)),
                None => text.push_str(&error.to_string()),
            }
            cause = error.source();
        }
        if let Some(advice) = advice::against(self.innermost()) {
            // Whoever knows us by another name would look for this one in vain.
            let advice = advice.replace(called::OWN_NAME, called::program());
            text.push_str(&format!(" ({advice})"));
        }
        text
    }
}
