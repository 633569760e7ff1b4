//! An error as values, for programs that read the log.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use super::locate::{self, Place};
use super::{Error, errno};
use crate::called;

/// What a program can know of an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What was attempted.
    pub step: String,
    /// On what.
    pub object: String,
    /// Name of the kernel's error number; empty where no system call failed.
    pub errno: String,
    /// JSON pointer into `config.json` (or the file of `--process`,
    /// `--resources`); empty where none applies.
    pub pointer: String,
}

/// Where to look for the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// A place in a file of the caller.
    Asked {
        /// The file.
        file: PathBuf,
        /// JSON pointer into it.
        pointer: String,
        /// Left out where the error itself says it.
        place: Option<Place>,
    },
    /// The help of this command, or of all.
    Help(Option<&'static str>),
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hint::Help(None) => write!(f, "see {} --help", called::program()),
            Hint::Help(Some(command)) => write!(f, "see {} {command} --help", called::program()),
            Hint::Asked {
                file,
                pointer,
                place,
            } => {
                let name = file.file_name().unwrap_or(file.as_os_str()).display();
                write!(f, "{pointer} of {name}")?;
                match place {
                    Some(place) => write!(f, ", {place}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Largest file that is read again for its places, in bytes; `config.json` has
/// the same limit.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Error {
    /// Names the place in `file` that asks for what failed, where there is one.
    /// Pointers into `config.json` begin with `prefix` in front of those of
    /// `file`, which may hold a part of it only. The file is read for this
    /// alone: nothing is remembered of what was right.
    #[must_use]
    pub(crate) fn asked_by(self, file: &Path, prefix: &str) -> Error {
        let Some(text) = std::fs::metadata(file)
            .ok()
            .filter(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX)
            .and_then(|_| std::fs::read(file).ok())
        else {
            return self;
        };
        let (pointer, place) = match self.innermost() {
            Error::Json { path, source } if path == file && source.line() > 0 => {
                let place = Place {
                    line: source.line(),
                    column: source.column(),
                };
                match locate::pointer_at(&text, place) {
                    pointer if pointer.is_empty() => return self,
                    pointer => (pointer, None),
                }
            }
            Error::Json { .. } => return self,
            _ => {
                let pointer = self.innermost().facts().pointer;
                let Some(rest) = pointer.strip_prefix(prefix) else {
                    return self;
                };
                if rest.is_empty() {
                    return self;
                }
                (rest.to_owned(), Some(locate::place_of(&text, rest)))
            }
        };
        Error::Hinted {
            error: Box::new(self),
            hint: Hint::Asked {
                file: file.to_owned(),
                pointer,
                place,
            },
        }
    }

    /// Names the help of `command` (or of all) where the command line is wrong.
    #[must_use]
    pub(crate) fn see_help(self, command: Option<&'static str>) -> Error {
        match (&self, self.innermost()) {
            (Error::Hinted { .. }, _) => self,
            (_, Error::Usage(_)) => Error::Hinted {
                error: Box::new(self),
                hint: Hint::Help(command),
            },
            _ => self,
        }
    }

    pub(super) fn innermost(&self) -> &Error {
        match self {
            Error::Command { source, .. } => source.innermost(),
            Error::Hinted { error, .. } => error.innermost(),
            error => error,
        }
    }

    /// The error as values.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = match self {
            Error::Usage(_) => step("read the command line"),
            Error::Json { path, .. } => Facts {
                object: path.display().to_string(),
                ..step("parse")
            },
            Error::Field { field, .. } => Facts {
                object: field.clone(),
                pointer: locate::pointer_of(field),
                ..step("check the configuration")
            },
            Error::System { action, object, .. } => Facts {
                object: unquoted(object),
                pointer: asking(action).into(),
                ..step(action)
            },
            Error::State(_) => step("check the state"),
            Error::Init(failure) | Error::Exec(failure) | Error::Mounts(failure) => Facts {
                object: unquoted(&failure.object),
                errno: errno_name(Some(failure.errno)),
                pointer: failure.pointer(),
                ..step(bare(failure.step.words()))
            },
            Error::ExecKilled { .. } => Facts {
                pointer: "/linux/resources/memory/limit".into(),
                ..step("start the process")
            },
            Error::OutOfMemory(error) => Facts {
                pointer: "/linux/resources/memory/limit".into(),
                ..error.facts()
            },
            Error::Hook { kind, index, .. } => Facts {
                object: format!("{kind} hook #{index}"),
                pointer: format!("/hooks/{kind}/{index}"),
                ..step("run hook")
            },
            Error::Cgroup(error) => {
                let (object, pointer) = error.object();
                Facts {
                    object,
                    pointer: pointer.to_owned(),
                    ..step("set up cgroup")
                }
            }
            Error::Resctrl(error) => error.facts(),
            Error::Checkpoint(error) => error.facts(),
            Error::Seccomp(_) => Facts {
                pointer: "/linux/seccomp".into(),
                ..step("compile seccomp filter")
            },
            Error::Command {
                command,
                id,
                source,
            } => of_command(source.facts(), command, id),
            Error::Hinted { error, hint } => match hint {
                Hint::Help(_) => error.facts(),
                Hint::Asked { pointer, .. } => Facts {
                    pointer: pointer.clone(),
                    ..error.facts()
                },
            },
        };
        if facts.errno.is_empty() {
            facts.errno = errno_name(self.errno());
        }
        facts
    }

    /// The number of the system error that caused all, if one did.
    fn errno(&self) -> Option<i32> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(errno) = system(error) {
                return Some(errno);
            }
            cause = error.source();
        }
        None
    }
}

/// The number of an error that is the system's own.
pub(super) fn system(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error(),
        None => error
            .downcast_ref::<rustix::io::Errno>()
            .map(|errno| errno.raw_os_error()),
    }
}

/// The field whose wish the runtime's own system calls carry out.
fn asking(action: &str) -> &'static str {
    match action {
        "open namespace" => "/linux/namespaces",
        "write id map" => "/linux/uidMappings",
        "write time offsets" => "/linux/timeOffsets",
        "set oom_score_adj to" => "/process/oomScoreAdj",
        _ => "",
    }
}

/// What a command on a container adds.
fn of_command(mut facts: Facts, command: &str, id: &str) -> Facts {
    if facts.object.is_empty() {
        id.clone_into(&mut facts.object);
    }
    // What these do is asked for by their flags, or another file.
    if matches!(command, "exec" | "update") {
        facts.pointer.clear();
    }
    facts
}

fn step(words: &str) -> Facts {
    Facts {
        step: words.to_owned(),
        ..Facts::default()
    }
}

/// A step without what runc's words add to it.
fn bare(words: &str) -> &str {
    let words = words.trim_end_matches(':');
    words.strip_prefix("error ").unwrap_or(words)
}

fn errno_name(errno: Option<i32>) -> String {
    errno
        .filter(|&errno| errno != 0)
        .map_or_else(String::new, errno::name)
}

/// A name without the quotes it has in messages.
fn unquoted(object: &str) -> String {
    let inner = object
        .strip_prefix('"')
        .and_then(|object| object.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('"') => inner.to_owned(),
        _ => object.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Step;

    #[test]
    fn a_failure_of_init_is_known_by_its_values() {
        let failure = Step::Mount.on("\"/src\" to \"/dst\"")(rustix::io::Errno::NOENT);
        let error = Error::Command {
            command: "create",
            id: "web".into(),
            source: Box::new(Error::Init(failure.at("/source").at("/mounts/3"))),
        };
        let facts = error.facts();
        assert_eq!(
            (facts.step.as_str(), facts.errno.as_str()),
            ("mounting", "ENOENT")
        );
        assert_eq!(facts.pointer, "/mounts/3/source");
    }

    #[test]
    fn the_number_of_a_system_error_is_found_below() {
        let error = Error::on("open", "/x")(rustix::io::Errno::ACCESS);
        let facts = error.facts();
        assert_eq!(facts.object, "/x");
        assert_eq!(facts.errno, "EACCES");
    }
}
