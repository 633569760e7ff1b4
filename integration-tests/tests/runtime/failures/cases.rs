//! What a failure of the table is; those that a command line provokes.

use super::cgroup_v1;

/// One failure and how it is provoked.
pub(super) struct Case {
    /// What is wrong.
    pub name: &'static str,
    /// Changes of the configuration: JSON pointer and JSON text; an empty text
    /// removes, an empty pointer replaces the file.
    pub config: &'static [(&'static str, &'static str)],
    /// The command line, with `BUNDLE`, `@state` for a container and `EMPTY`.
    pub line: &'static str,
    /// Whether this host can provoke it in these words.
    pub only: fn() -> bool,
}

pub(super) const fn case(
    name: &'static str,
    config: &'static [(&'static str, &'static str)],
    line: &'static str,
) -> Case {
    Case {
        name,
        config,
        line,
        only: || true,
    }
}

/// A failing `run` that differs in the configuration alone.
pub(super) const fn run(
    name: &'static str,
    config: &'static [(&'static str, &'static str)],
) -> Case {
    case(name, config, "run -b BUNDLE @case")
}

/// A failing command line.
pub(super) const fn line(name: &'static str, line: &'static str) -> Case {
    case(name, &[], line)
}

pub(super) const fn only(case: Case, only: fn() -> bool) -> Case {
    Case { only, ..case }
}

pub(super) fn x86_64() -> bool {
    cfg!(target_arch = "x86_64")
}

pub(super) const COMMAND_LINES: &[Case] = &[
    // create and run.
    case(
        "a terminal for nobody",
        &[("/process/terminal", "true")],
        "create -b BUNDLE @case",
    ),
    case(
        "a console socket without a terminal",
        &[],
        "create -b BUNDLE --console-socket /no/such @case",
    ),
    case(
        "a console socket that is not there",
        &[("/process/terminal", "true")],
        "create -b BUNDLE --console-socket /no/such @case",
    ),
    line(
        "a pid file in a missing folder",
        "create -b BUNDLE --pid-file /no/such/pid @case",
    ),
    line(
        "a pidfd socket that is not there",
        "create -b BUNDLE --pidfd-socket /no/such @case",
    ),
    line(
        "descriptors that are no number",
        "create -b BUNDLE --preserve-fds many @case",
    ),
    line("an id with a slash", "create -b BUNDLE a/b"),
    line("an empty id", "create -b BUNDLE EMPTY"),
    line("no id", "create -b BUNDLE"),
    line("an id that is taken", "create -b BUNDLE @running"),
    // exec.
    line("exec in nothing", "exec nosuch true"),
    line("exec in a stopped container", "exec @stopped true"),
    line("exec in a paused container", "exec @paused true"),
    line("exec of nothing", "exec @running"),
    line("exec of a missing program", "exec @running /no/such"),
    line(
        "exec of a program in no folder of PATH",
        "exec @running nosuch",
    ),
    line(
        "exec of a script without its interpreter",
        "exec @running /odd/no-interpreter",
    ),
    line("exec of text", "exec @running /odd/text"),
    line(
        "exec in a relative directory",
        "exec --cwd tmp @running true",
    ),
    line("exec in a file", "exec --cwd /etc/passwd @running true"),
    line("exec as a name", "exec --user root @running true"),
    line(
        "exec with a group that is a name",
        "exec --additional-gids wheel @running true",
    ),
    line(
        "exec with a terminal for nobody",
        "exec --detach --tty @running true",
    ),
    line("exec of a missing file", "exec --process /no/such @running"),
    line(
        "exec of a process of the wrong type",
        "exec --process process-type.json @running",
    ),
    line(
        "exec of a process with a relative directory",
        "exec --process process-cwd.json @running",
    ),
    only(
        line(
            "exec in a missing cgroup",
            "exec --cgroup nosuch @running true",
        ),
        cgroup_v1,
    ),
    // The other commands.
    line("start of nothing", "start nosuch"),
    line("start of what runs", "start @running"),
    line("start of what has stopped", "start @stopped"),
    line("kill with an unknown signal", "kill @running TREM"),
    line("kill of nothing", "kill nosuch"),
    line("kill of what has stopped", "kill @stopped"),
    line("delete of what runs", "delete @running"),
    line("delete of nothing", "delete nosuch"),
    line("pause of what has stopped", "pause @stopped"),
    line("resume of what is not paused", "resume @running"),
    line("state of nothing", "state nosuch"),
    line("state of a torn file", "state torn"),
    line("ps in an unknown form", "ps --format xml @running"),
    line("list in an unknown form", "list --format xml"),
    line(
        "update of what has stopped",
        "update --pids-limit 7 @stopped",
    ),
    line("update with no number", "update --pids-limit many @running"),
    line("update with no size", "update --memory 1x @running"),
    line(
        "update from a missing file",
        "update --resources /no/such @running",
    ),
    line(
        "update from a file of the wrong type",
        "update --resources resources-type.json @running",
    ),
    line(
        "update from a file that is cut off",
        "update --resources resources-cut.json @running",
    ),
    only(
        line(
            "update to CPUs that are not there",
            "update --cpuset-cpus 4000 @running",
        ),
        cgroup_v1,
    ),
    line("spec where there is one", "spec --bundle spec"),
    line("features of something", "features x"),
    // Words that are not there.
    line("a mistyped command", "craete -b BUNDLE @case"),
    line("an unknown command", "frobnicate"),
    line("a mistyped flag", "run --detatch @case"),
    line("an unknown flag", "run --frobnicate @case"),
    line("an unknown short flag", "run -Z @case"),
    line("a flag without its value", "create @case --bundle"),
    line(
        "a switch that is neither on nor off",
        "run --detach=maybe @case",
    ),
    line("a mistyped global flag", "--rot /x list"),
    line("an unknown form of the log", "--log-format xml list"),
    line("a log that cannot be written", "--log /no/such/log list"),
    line(
        "a trace that cannot be written",
        "--trace /no/such/trace state @running",
    ),
    line(
        "neither rootless nor not",
        "--rootless maybe state @running",
    ),
    line(
        "a state folder that is a file",
        "--root a-file create -b BUNDLE @case",
    ),
    line(
        "a state folder that cannot be",
        "--root /proc/x create -b BUNDLE @case",
    ),
];
