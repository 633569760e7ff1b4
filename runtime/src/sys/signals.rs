//! Signals (`signal(7)`): what becomes of them here, and in what is executed.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{check, exit};

/// Signals are numbered from 1 to this (`signal(7)`).
const LAST: c_int = 64;

/// Largest `/proc/self/status` that is read, in bytes: 65,536 groups of 11 each,
/// and the rest.
const STATUS_BYTES_MAX: usize = 1024 * 1024;

/// What is read of it at once, in bytes: all of it, for who is in few groups.
const STATUS_BYTES: usize = 4096;

/// Prepares the runtime itself, whatever its caller ignores: writing to a pipe
/// without a reader is an error, not the end, and children that have ended wait
/// to be asked how. The rest is as the caller has it.
#[cfg(not(test))]
pub(crate) fn prepare_signals() {
    // SAFETY: constants, with which the calls cannot fail.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Gives every signal back its default and blocks none, for a program that is to
/// be executed: `execve(2)` leaves what is ignored ignored, and a program whose
/// caller's caller ignored SIGTERM could not be stopped.
///
/// To be called where `/proc` is the host's.
pub(crate) fn reset_signals() {
    // Nearly always SIGPIPE alone is ignored, and asking costs less than 64 calls.
    let ignored = ignored().unwrap_or(u64::MAX);
    for signal in (1..=LAST).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        restore_default(signal);
    }
    // SAFETY: a local set is made, then read; neither call can fail with it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// `rt_sigaction(2)` itself: the C library keeps two signals from its callers.
/// SIGKILL and SIGSTOP are refused, and are never ignored.
fn restore_default(signal: c_int) {
    /// The kernel's `struct sigaction`, with room for that of any architecture.
    const DEFAULT: [u64; 8] = [0; 8];
    const SET_BYTES: usize = size_of::<u64>();
    let old: *mut c_void = std::ptr::null_mut();
    // SAFETY: all zeros are a valid structure, SIG_DFL without flags; nothing is written.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            DEFAULT.as_ptr(),
            old,
            SET_BYTES,
        )
    };
}

/// The signals that this process ignores, signal 1 in the lowest bit; none where
/// procfs does not say.
fn ignored() -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(CWD, "/proc/self/status", flags, Mode::empty()).ok()?;
    let mut text = vec![0; STATUS_BYTES];
    let mut length = 0;
    loop {
        match rustix::io::read(&file, &mut text[length..]).ok()? {
            0 => return None,
            more => length += more,
        }
        if let Some(set) = ignored_in(&text[..length]) {
            return Some(set);
        }
        if length == text.len() {
            if length >= STATUS_BYTES_MAX {
                return None;
            }
            text.resize(2 * length, 0);
        }
    }
}

/// The signals that a whole line of a `proc_pid_status(5)` calls ignored.
fn ignored_in(status: &[u8]) -> Option<u64> {
    let whole = &status[..=status.iter().rposition(|&byte| byte == b'\n')?];
    let line = whole
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"SigIgn:"))?;
    u64::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 16).ok()
}

/// Makes the process end at the signals that ask for it. As first process of
/// a pid namespace it would ignore them otherwise, and a created container
/// could only be killed. `sigaction(2)`; undone by `execve(2)`.
pub(crate) fn end_on_signals() -> io::Result<()> {
    extern "C" fn end(signal: c_int) {
        exit(128 + signal);
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but leave the process, which is
        // allowed at any moment (`signal-safety(7)`).
        if unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) } == libc::SIG_ERR
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Blocks every signal that can be and returns a descriptor to read them
/// from. `signalfd(2)`.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    // SAFETY: a local set is filled, then read by both calls; the descriptor
    // is new and ours.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        let fd = check(
            libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into(),
        )?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// The number of the next signal of a descriptor of [`block_signals`], if any.
pub(crate) fn read_signal(signals: BorrowedFd<'_>) -> Option<c_int> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(signals, &mut info).ok()?;
    // ssi_signo is the first field, a u32.
    (length == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}

/// Sends any signal number, real-time ones too, by pidfd.
/// `pidfd_send_signal(2)`, Linux 5.1.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    let none: *const c_void = std::ptr::null();
    // SAFETY: integers and a null pointer, which means "as kill(2)".
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            none,
            0,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_whole_lines() {
        let text = b"Name:\tSigIgn:\\nSigIgn:\nSigIgn:\t0000000000005001\nSigCgt:\t0";
        assert_eq!(ignored_in(text), Some(0x5001));
        let cut = text.iter().position(|&byte| byte == b'5').unwrap();
        assert_eq!(ignored_in(&text[..cut]), None);
        assert_eq!(ignored_in(b"SigIgn:\tx\n"), None);
        assert_eq!(ignored_in(b""), None);
        assert!(ignored().is_some());
    }
}
