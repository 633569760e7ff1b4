//! All commands with their flags: what [`super::args`] parses and help prints.

use super::checkpoint;

/// One flag.
#[derive(Debug)]
pub(crate) struct FlagSpec {
    /// Long name.
    pub name: &'static str,
    /// Short name.
    pub short: Option<char>,
    /// Name of its value; without one it is a switch.
    pub value: Option<&'static str>,
    /// What it does; empty for one that help does not show.
    pub help: &'static str,
}

/// One command.
#[derive(Debug)]
pub(crate) struct CommandSpec {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as help shows them.
    pub usage: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Fewest and most arguments.
    pub words: (usize, usize),
    /// Its flags.
    pub flags: &'static [FlagSpec],
}

pub(super) const fn switch(name: &'static str, help: &'static str) -> FlagSpec {
    FlagSpec {
        name,
        short: None,
        value: None,
        help,
    }
}

pub(super) const fn value(name: &'static str, value: &'static str, help: &'static str) -> FlagSpec {
    FlagSpec {
        name,
        short: None,
        value: Some(value),
        help,
    }
}

/// A flag of older callers: taken with its value, and not shown.
const fn hidden(name: &'static str) -> FlagSpec {
    value(name, "BYTES", "")
}

pub(super) const fn short(short: char, flag: FlagSpec) -> FlagSpec {
    FlagSpec {
        short: Some(short),
        ..flag
    }
}

pub(super) const HELP: FlagSpec = short('h', switch("help", "show this help"));
pub(super) const BUNDLE: FlagSpec = short(
    'b',
    value(
        "bundle",
        "DIR",
        "directory with config.json (default: the current one)",
    ),
);
pub(super) const CONSOLE_SOCKET: FlagSpec = value(
    "console-socket",
    "PATH",
    "unix socket that receives the master side of the terminal",
);
const PIDFD_SOCKET: FlagSpec = value(
    "pidfd-socket",
    "PATH",
    "unix socket that receives a pidfd of the process",
);
pub(super) const PID_FILE: FlagSpec = value("pid-file", "PATH", "file to write the pid to");
pub(super) const NO_PIVOT: FlagSpec = switch(
    "no-pivot",
    "move the root instead of pivot_root(2), for a ramdisk",
);
const NO_KEYRING: FlagSpec = switch("no-new-keyring", "keep the caller's session keyring");
const PRESERVE_FDS: FlagSpec = value(
    "preserve-fds",
    "N",
    "pass N descriptors after the standard ones (default: 0)",
);

/// Flags before the command.
pub(crate) const GLOBAL: &[FlagSpec] = &[
    switch("debug", "log what is done"),
    value(
        "log",
        "FILE",
        "append log lines to FILE (default: standard error)",
    ),
    value("log-format", "FORMAT", "text or json (default: text)"),
    value(
        "trace",
        "FILE",
        "write the steps of create, start, run and exec with their times to FILE",
    ),
    value(
        "root",
        "DIR",
        "where containers are kept (default: /run/teu-runtime)",
    ),
    switch(
        "systemd-cgroup",
        "let systemd make the cgroups of new containers (default: through the file system)",
    ),
    value(
        "criu",
        "PROGRAM",
        "what checkpoints and restores (default: criu)",
    ),
    value(
        "rootless",
        "BOOL",
        "true, false or auto: do without a cgroup that may not be made (default: auto, for all but root)",
    ),
    HELP,
    short('v', switch("version", "show the version")),
];

/// All commands.
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "create",
        usage: "[flags] ID",
        help: "create a container from a bundle; `start` starts it",
        words: (1, 1),
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE_FDS,
            HELP,
        ],
    },
    CommandSpec {
        name: "start",
        usage: "ID",
        help: "start the program of a created container",
        words: (1, 1),
        flags: &[HELP],
    },
    CommandSpec {
        name: "run",
        usage: "[flags] ID",
        help: "create and start a container, wait for it and delete it",
        words: (1, 1),
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            short('d', switch("detach", "do not stay with the container")),
            switch("keep", "do not delete the container when it ends"),
            PID_FILE,
            switch(
                "no-subreaper",
                "accepted: this runtime never adopts orphans of the container",
            ),
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE_FDS,
            HELP,
        ],
    },
    CommandSpec {
        name: "exec",
        usage: "[flags] ID COMMAND [ARG...]  |  exec [flags] --process FILE ID",
        help: "run a further process in a container",
        words: (1, usize::MAX),
        flags: &[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            value("cwd", "DIR", "working directory in the container"),
            short(
                'e',
                value("env", "NAME=VALUE", "environment variable, may be repeated"),
            ),
            short('t', switch("tty", "give the process a terminal")),
            short('u', value("user", "UID[:GID]", "user and group, by number")),
            short(
                'g',
                value("additional-gids", "GID", "further group, may be repeated"),
            ),
            short(
                'p',
                value(
                    "process",
                    "FILE",
                    "the process as JSON; - is standard input",
                ),
            ),
            short('d', switch("detach", "do not stay with the process")),
            PID_FILE,
            value("process-label", "LABEL", "SELinux label"),
            value("apparmor", "PROFILE", "AppArmor profile"),
            switch("no-new-privs", "execve never grants privileges"),
            short(
                'c',
                value("cap", "CAP", "add a capability, may be repeated"),
            ),
            PRESERVE_FDS,
            value(
                "cgroup",
                "PATH",
                "[CONTROLLERS:]PATH below the container's cgroup, may be repeated",
            ),
            switch("ignore-paused", "do not refuse a paused container"),
            HELP,
        ],
    },
    CommandSpec {
        name: "state",
        usage: "ID",
        help: "print the state of a container as JSON",
        words: (1, 1),
        flags: &[HELP],
    },
    CommandSpec {
        name: "list",
        usage: "[flags]",
        help: "list all containers",
        words: (0, 0),
        flags: &[
            short(
                'f',
                value("format", "FORMAT", "table or json (default: table)"),
            ),
            short('q', switch("quiet", "print ids only")),
            HELP,
        ],
    },
    CommandSpec {
        name: "kill",
        usage: "[flags] ID [SIGNAL]",
        help: "send a signal (default: TERM) to the container's init",
        words: (1, 2),
        flags: &[
            short('a', switch("all", "to all processes of the container")),
            HELP,
        ],
    },
    CommandSpec {
        name: "delete",
        usage: "[flags] ID",
        help: "delete a container that has stopped",
        words: (1, 1),
        flags: &[
            short(
                'f',
                switch("force", "kill it first; no error if there is none"),
            ),
            HELP,
        ],
    },
    CommandSpec {
        name: "ps",
        usage: "[flags] ID [PS OPTION...]",
        help: "show the processes of a container",
        words: (1, usize::MAX),
        flags: &[
            short(
                'f',
                value("format", "FORMAT", "table or json (default: table)"),
            ),
            HELP,
        ],
    },
    CommandSpec {
        name: "events",
        usage: "[flags] ID",
        help: "print what a container uses, and when memory runs out for it",
        words: (1, 1),
        flags: &[
            value(
                "interval",
                "TIME",
                "how often, such as 500ms or 1m30s (default: 5s)",
            ),
            switch("stats", "print the numbers once"),
            HELP,
        ],
    },
    CommandSpec {
        name: "mounts",
        usage: "add|remove ID FILE",
        help: "add or remove the mounts that FILE lists as config.json does",
        words: (3, 3),
        flags: &[HELP],
    },
    CommandSpec {
        name: "pause",
        usage: "ID",
        help: "hold all processes of a container",
        words: (1, 1),
        flags: &[HELP],
    },
    CommandSpec {
        name: "resume",
        usage: "ID",
        help: "let a paused container go on",
        words: (1, 1),
        flags: &[HELP],
    },
    CommandSpec {
        name: "update",
        usage: "[flags] ID",
        help: "change the limits of a container",
        words: (1, 1),
        flags: UPDATE,
    },
    CommandSpec {
        name: "checkpoint",
        usage: "[flags] ID",
        help: "save a running container to files, with CRIU",
        words: (1, 1),
        flags: checkpoint::CHECKPOINT,
    },
    CommandSpec {
        name: "restore",
        usage: "[flags] ID",
        help: "make a container of a bundle and of saved files",
        words: (1, 1),
        flags: checkpoint::RESTORE,
    },
    CommandSpec {
        name: "spec",
        usage: "[flags]",
        help: "write a config.json to begin with",
        words: (0, 0),
        flags: &[BUNDLE, switch("rootless", "for an ordinary user"), HELP],
    },
    CommandSpec {
        name: "features",
        usage: "",
        help: "print what this runtime supports as JSON",
        words: (0, 0),
        flags: &[HELP],
    },
];

const UPDATE: &[FlagSpec] = &[
    short(
        'r',
        value(
            "resources",
            "FILE",
            "limits as JSON (linux.resources); - is standard input",
        ),
    ),
    value(
        "blkio-weight",
        "N",
        "relative weight of block I/O, 10 to 1000",
    ),
    value("cpu-period", "USEC", "length of a CPU period"),
    value("cpu-quota", "USEC", "CPU time in a period"),
    value("cpu-burst", "USEC", "CPU time saved for bursts"),
    value("cpu-share", "N", "relative weight of CPU time"),
    value("cpu-rt-period", "USEC", "length of a real-time period"),
    value("cpu-rt-runtime", "USEC", "real-time CPU time in a period"),
    value("cpuset-cpus", "LIST", "CPUs to use, such as 0-2,4"),
    value("cpuset-mems", "LIST", "memory nodes to use"),
    value("cpu-idle", "0|1", "run only when nothing else does"),
    value("memory", "BYTES", "memory limit"),
    value(
        "memory-reservation",
        "BYTES",
        "memory that reclaim leaves alone",
    ),
    value(
        "memory-swap",
        "BYTES",
        "limit of memory and swap together, -1 for none",
    ),
    value("pids-limit", "N", "most processes, -1 for no limit"),
    value(
        "l3-cache-schema",
        "LINE",
        "ways of the last-level cache (resctrl), such as L3:0=7f0",
    ),
    value(
        "mem-bw-schema",
        "LINE",
        "memory bandwidth (resctrl), such as MB:0=20",
    ),
    hidden("kernel-memory"),
    hidden("kernel-memory-tcp"),
    HELP,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for command in COMMANDS {
            for (index, flag) in command.flags.iter().enumerate() {
                assert!(
                    command.flags[..index]
                        .iter()
                        .all(|other| other.name != flag.name
                            && (flag.short.is_none() || other.short != flag.short))
                );
            }
        }
    }
}
