//! Calls of the runtime: runc's command line as values.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::containerd::proto::options::{CheckpointOptions, Options};

/// Where runc's shim keeps the runtime's state, below it the namespace's.
const ROOT: &str = "/run/containerd/runc";

/// A runtime and what each of its calls begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The executable; a bare name is looked up in PATH.
    pub program: PathBuf,
    /// Its `--root`.
    pub root: PathBuf,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// CRIU, where it is not in PATH.
    pub criu: String,
}

impl Runtime {
    /// As `options` say, for containers of `namespace`; `default` where they name no program.
    #[must_use]
    pub fn new(options: &Options, namespace: &str, default: &Path) -> Self {
        let root = if options.root.is_empty() {
            ROOT
        } else {
            &options.root
        };
        Self {
            program: match options.binary_name.as_str() {
                "" => default.to_owned(),
                name => PathBuf::from(name),
            },
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            criu: options.criu_path.clone(),
        }
    }
}

/// How a container's first process is made: by `create`, or later by `restore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Making {
    /// Where the container is.
    pub bundle: PathBuf,
    /// Socket for the terminal, if it has one.
    pub console: Option<PathBuf>,
    /// Do not change the root by pivot_root(2).
    pub no_pivot: bool,
    /// Leave the session keyring as it is.
    pub no_new_keyring: bool,
}

/// What a container comes back from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// CRIU's files.
    pub path: String,
    /// The image before, if this one builds on it.
    pub parent: String,
    /// Where CRIU works.
    pub work: PathBuf,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Make the container.
    Create(Making),
    /// Make it from a checkpoint, running.
    Restore(Making, Image),
    /// Let its program run.
    Start,
    /// Run a further process.
    Exec {
        /// Its description, JSON.
        process: PathBuf,
        /// Socket for its terminal, if it has one.
        console: Option<PathBuf>,
        /// Where its pid is to stand.
        pid_file: PathBuf,
    },
    /// Send a signal, to all processes or the first.
    Kill {
        /// Its number.
        signal: u32,
        /// Whether to all.
        all: bool,
    },
    /// Freeze.
    Pause,
    /// Go on.
    Resume,
    /// Change limits; they come by standard input.
    Update,
    /// List pids as JSON.
    Ps,
    /// Write the container down.
    Checkpoint {
        /// Where to.
        path: String,
        /// Where CRIU works.
        work: PathBuf,
        /// What it may do.
        options: CheckpointOptions,
    },
    /// Remove it, by force what still runs.
    Delete {
        /// Whether by force.
        force: bool,
    },
}

/// Name of the file with the first process's pid.
pub const PID_FILE: &str = "init.pid";

impl Call {
    /// The whole command line but for the program's name.
    #[must_use]
    pub fn arguments(&self, runtime: &Runtime, log: &Path, id: &str) -> Vec<OsString> {
        let mut words = Words::default();
        words.option("--root", &runtime.root).option("--log", log);
        words.option("--log-format", "json");
        if runtime.systemd_cgroup {
            words.word("--systemd-cgroup");
        }
        if !runtime.criu.is_empty() {
            words.option("--criu", &runtime.criu);
        }
        self.verb(&mut words);
        words.word(id);
        if let Self::Kill { signal, .. } = self {
            words.word(signal.to_string());
        }
        words.0
    }

    fn verb(&self, words: &mut Words) {
        match self {
            Self::Create(making) => making.describe(words.word("create")),
            Self::Restore(making, image) => {
                words.word("restore").option("--image-path", &image.path);
                words.option("--work-path", &image.work);
                if !image.parent.is_empty() {
                    words.option("--parent-path", &image.parent);
                }
                words.word("--detach").word("--no-subreaper");
                making.describe(words);
            }
            Self::Start => drop(words.word("start")),
            Self::Exec {
                process,
                console,
                pid_file,
            } => {
                words.word("exec").option("--process", process);
                if let Some(console) = console {
                    words.option("--console-socket", console);
                }
                words.word("--detach").option("--pid-file", pid_file);
            }
            Self::Kill { all, .. } => {
                words.word("kill");
                if *all {
                    words.word("--all");
                }
            }
            Self::Pause => drop(words.word("pause")),
            Self::Resume => drop(words.word("resume")),
            Self::Update => drop(words.word("update").option("--resources", "-")),
            Self::Ps => drop(words.word("ps").option("--format", "json")),
            Self::Checkpoint {
                path,
                work,
                options,
            } => {
                words
                    .word("checkpoint")
                    .option("--image-path", path)
                    .option("--work-path", work);
                words.checkpoint(options);
            }
            Self::Delete { force } => {
                words.word("delete");
                if *force {
                    words.word("--force");
                }
            }
        }
    }
}

impl Making {
    fn describe(&self, words: &mut Words) {
        words
            .option("--bundle", &self.bundle)
            .option("--pid-file", self.bundle.join(PID_FILE));
        if let Some(console) = &self.console {
            words.option("--console-socket", console);
        }
        if self.no_pivot {
            words.word("--no-pivot");
        }
        if self.no_new_keyring {
            words.word("--no-new-keyring");
        }
    }
}

/// A command line in the making.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn option(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.word(name).word(value.as_ref())
    }

    fn checkpoint(&mut self, options: &CheckpointOptions) {
        for (wanted, flag) in [
            (!options.exit, "--leave-running"),
            (options.open_tcp, "--tcp-established"),
            (options.external_unix_sockets, "--ext-unix-sk"),
            (options.terminal, "--shell-job"),
            (options.file_locks, "--file-locks"),
        ] {
            if wanted {
                self.word(flag);
            }
        }
        for namespace in &options.empty_namespaces {
            self.option("--empty-ns", namespace);
        }
        if !options.cgroups_mode.is_empty() {
            self.option("--manage-cgroups-mode", &options.cgroups_mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(call: &Call, options: &Options) -> String {
        let runtime = Runtime::new(options, "ns", Path::new("/bin/teu-runtime"));
        let words = call.arguments(&runtime, Path::new("/b/log.json"), "c1");
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn making(console: Option<&str>) -> Making {
        Making {
            bundle: "/b".into(),
            console: console.map(PathBuf::from),
            no_pivot: false,
            no_new_keyring: false,
        }
    }

    #[test]
    fn calls_are_runcs() {
        let usual = Options::default();
        let prefix = "--root /run/containerd/runc/ns --log /b/log.json --log-format json";
        for (call, words) in [
            (
                Call::Create(making(None)),
                "create --bundle /b --pid-file /b/init.pid c1",
            ),
            (
                Call::Create(making(Some("/s"))),
                "create --bundle /b --pid-file /b/init.pid --console-socket /s c1",
            ),
            (Call::Start, "start c1"),
            (
                Call::Kill {
                    signal: 15,
                    all: false,
                },
                "kill c1 15",
            ),
            (
                Call::Kill {
                    signal: 9,
                    all: true,
                },
                "kill --all c1 9",
            ),
            (Call::Update, "update --resources - c1"),
            (Call::Ps, "ps --format json c1"),
            (Call::Delete { force: false }, "delete c1"),
            (Call::Delete { force: true }, "delete --force c1"),
            (
                Call::Exec {
                    process: "/p".into(),
                    console: None,
                    pid_file: "/b/e.pid".into(),
                },
                "exec --process /p --detach --pid-file /b/e.pid c1",
            ),
            (
                Call::Checkpoint {
                    path: "/i".into(),
                    work: "/w".into(),
                    options: CheckpointOptions {
                        open_tcp: true,
                        ..Default::default()
                    },
                },
                "checkpoint --image-path /i --work-path /w --leave-running --tcp-established c1",
            ),
        ] {
            assert_eq!(line(&call, &usual), format!("{prefix} {words}"));
        }
    }

    #[test]
    fn options_reach_every_call() {
        let options = Options {
            root: "/r".into(),
            systemd_cgroup: true,
            criu_path: "/criu".into(),
            ..Options::default()
        };
        assert_eq!(
            line(&Call::Start, &options),
            "--root /r/ns --log /b/log.json --log-format json --systemd-cgroup --criu /criu start c1"
        );
        let runtime = |options| Runtime::new(&options, "n", Path::new("/bin/teu-runtime")).program;
        assert_eq!(runtime(options.clone()), Path::new("/bin/teu-runtime"));
        assert_eq!(
            runtime(Options {
                binary_name: "crun".into(),
                ..options
            }),
            Path::new("crun")
        );
    }

    #[test]
    fn a_restore_names_its_image() {
        let image = Image {
            path: "/i".into(),
            parent: "/p".into(),
            work: "/w".into(),
        };
        assert!(line(&Call::Restore(Making { no_pivot: true, ..making(None) }, image), &Options::default()).ends_with(
            "restore --image-path /i --work-path /w --parent-path /p --detach --no-subreaper --bundle /b --pid-file /b/init.pid --no-pivot c1"
        ));
    }
}
