//! `kill`.

use std::os::fd::AsFd;

use rustix::process::{Pid, Signal};

use crate::cgroup::procs;
use crate::cli::suggest;
use crate::container::delete::{has_own_pids, init_of, kill_init};
use crate::container::status::Status;
use crate::error::Error;
use crate::id::ContainerId;
use crate::state::Root;
use crate::sys;

/// Sends a signal to init, or to all processes of the container.
pub(crate) fn kill(root: &Root, id: &ContainerId, number: i32, all: bool) -> Result<(), Error> {
    let state = root.open(id)?.load()?;
    let killed = Signal::from_named_raw(number) == Some(Signal::KILL);
    // Without a pid namespace nothing but the cgroup knows all processes, and
    // SIGKILL means them all, even when init is gone.
    if all || (killed && !has_own_pids(&state) && Status::of(&state)? != Status::Stopped) {
        return match Signal::from_named_raw(number) {
            Some(signal) => Ok(procs::signal_all(&state.cgroups, signal)?),
            None => signal_each(&procs::all(&state.cgroups)?, number),
        };
    }
    if killed && !has_own_pids(&state) && !procs::all(&state.cgroups)?.is_empty() {
        return Ok(procs::signal_all(&state.cgroups, Signal::KILL)?);
    }
    let Some(pidfd) = init_of(&state)? else {
        return Err(Error::State("container not running".into()));
    };
    if killed {
        return kill_init(&state, &pidfd);
    }
    match sys::pidfd_signal(pidfd.as_fd(), number) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Err(Error::State("process already finished".into()))
        }
        result => result.map_err(Error::on("signal pid", state.pid)),
    }
}

/// Real-time signals, which have numbers but no names.
fn signal_each(pids: &[Pid], number: i32) -> Result<(), Error> {
    for &pid in pids {
        match sys::kill(pid, number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => (),
            result => result.map_err(Error::on("signal pid", pid.as_raw_nonzero()))?,
        }
    }
    Ok(())
}

/// Names of signals by number (`signal(7)`, x86 and ARM).
const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// What the signals 1 to 31 mean, in the words that runc has for them.
const WORDS: [&str; 31] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
];

/// A signal that ended a program, in words.
pub(crate) fn words(number: i32) -> String {
    let index = usize::try_from(number)
        .ok()
        .and_then(|at| at.checked_sub(1));
    let words = index.and_then(|at| WORDS.get(at));
    words.map_or_else(|| format!("signal {number}"), |words| (*words).to_owned())
}

/// First and last real-time signal as programs see them (`signal(7)`).
const REAL_TIME: (i32, i32) = (34, 64);

/// What is wrong with a signal that does not exist, and which was probably meant.
fn unknown(text: &str) -> String {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let meant = suggest::closest(name, NAMES.iter().map(|(name, _)| *name))
        .map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
    format!("unknown signal {text:?}{meant}")
}

/// Reads a signal: a number, or a name with or without `SIG` in any case.
pub(crate) fn parse(text: &str) -> Result<i32, Error> {
    let unknown = || Error::Usage(unknown(text));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=REAL_TIME.1).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |rest: &str| {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.parse::<i32>().ok()
        }
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest).map(|plus| REAL_TIME.0 + plus),
        (_, Some(rest)) => offset(rest).map(|minus| REAL_TIME.1 + minus),
        _ => None,
    };
    number
        .filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_spelling() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "FOO", "65", "-1", "RTMIN+31", "RTMAX+1", "NULL"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
