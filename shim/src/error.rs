//! What can go wrong, with the object it went wrong on.

use std::io;
use std::path::{Path, PathBuf};

/// Every failure of `teu` and `teu-shim`.
///
/// Printed by `main` as a chain on one line; a message says what was attempted
/// on what, its source says why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A system call without a path was refused.
    #[error("{0}")]
    System(&'static str, #[source] io::Error),
    /// A JSON document does not say what it must.
    #[error("read {what}")]
    Json {
        /// The document.
        what: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A program of ours or a plugin is not installed.
    #[error("{program} was not found: {hint}")]
    Missing {
        /// Its name.
        program: String,
        /// What to do.
        hint: String,
    },
    /// A program was executed and reported failure in its own words.
    #[error("{message}")]
    Child {
        /// The program's name.
        program: String,
        /// Its last error, or its status where it said nothing.
        message: String,
    },
    /// The runtime refused; the exit status for the user is derived from its words.
    #[error("{message}")]
    Runtime {
        /// The runtime's last error message.
        message: String,
    },
    /// No container has this name or id.
    #[error("no such container {0:?}; `teu ps -a` lists them")]
    NoSuchContainer(String),
    /// Neither a container nor an image has this name or id.
    #[error(
        "neither a container nor an image is called {0:?}; `teu ps -a` and `teu images` list them"
    )]
    NoSuchName(String),
    /// A container's folder does not say what it must.
    #[error("container {id} is broken; remove it (`teu rm -f {id}`)")]
    Broken {
        /// Whose.
        id: String,
        /// What is wrong.
        source: Box<Error>,
    },
    /// The id prefix fits more than one container.
    #[error("{0:?} is the start of more than one container id; give more digits")]
    Ambiguous(String),
    /// The name belongs to another container.
    #[error("the name {name:?} is used by container {id}; remove that one or choose another name")]
    NameTaken {
        /// The wished name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A name, id or option has no meaning.
    #[error("{0}")]
    Invalid(String),
    /// An ordinary user wants a container.
    #[error("containers need root: run this as root, for example by sudo")]
    NotRoot,
    /// A port of the host cannot be led into a container.
    #[error(
        "port {port} of the host cannot be published; `teu ps` and `ss -lntup` show who has it"
    )]
    Port {
        /// `[IP:]PORT/PROTOCOL`.
        port: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The container is not in the state that the request needs.
    #[error("container {name} is {state}{hint}")]
    State {
        /// The container's name.
        name: String,
        /// What it is.
        state: String,
        /// What to do, with its own separator, or nothing.
        hint: &'static str,
    },
    /// The supervisor answered a request with an error.
    #[error("container {name}: {message}")]
    Refused {
        /// The container's name.
        name: String,
        /// The supervisor's words.
        message: String,
    },
    /// The supervisor vanished while it was needed.
    #[error(
        "the supervisor of container {name} died; the container may live on, its status is unknown (`teu ps -a`, `teu rm -f`)"
    )]
    SupervisorDied {
        /// The container's name.
        name: String,
    },
}

/// Names the file that an I/O error is about.
pub trait At<T> {
    /// Turns an error into [`Error::File`].
    ///
    /// # Errors
    /// The original one, with `action` and `path`.
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
    /// Turns an error into [`Error::System`].
    ///
    /// # Errors
    /// The original one, with the name of the call.
    fn call(self, call: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|err| Error::File {
            action,
            path: path.to_owned(),
            source: err.into(),
        })
    }

    fn call(self, call: &'static str) -> Result<T, Error> {
        self.map_err(|err| Error::System(call, err.into()))
    }
}

/// Writes an error to standard error. That this fails (a closed terminal, a
/// full disk under a log) must not end anyone.
pub fn warn(program: &str, err: &dyn std::error::Error) {
    use io::Write as _;
    let _: io::Result<()> = writeln!(io::stderr(), "{program}: {}", chain(err));
}

/// The error and its causes on one line, joined by `: `.
#[must_use]
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}
