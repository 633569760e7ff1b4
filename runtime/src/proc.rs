//! The few files of procfs that are read or written.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::Error;
use crate::rootfs::mount::PROC_SUPER_MAGIC;

/// Bytes of `/proc/PID/stat` that are read; the longest has below 400.
const STAT_BYTES: usize = 1024;

/// The flag of a process that has executed nothing yet.
const PF_FORKNOEXEC: u64 = 0x40;

/// What `/proc/PID/stat` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// State letter (`proc_pid_stat(5)`, field 3).
    pub state: u8,
    /// Whether it has executed a program since it was made (field 9, the flag
    /// `PF_FORKNOEXEC` of linux/sched.h). The kernel notes it before it closes
    /// what is to be closed then.
    pub executed: bool,
    /// Start time in clock ticks since boot (field 22). With the pid it names
    /// one process for ever.
    pub start: u64,
}

impl Stat {
    /// Whether the process has ended, reaped or not.
    pub(crate) fn dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads `/proc/PID/stat`; `None` where there is no such process.
pub(crate) fn stat(pid: i32) -> std::io::Result<Option<Stat>> {
    let path = format!("/proc/{pid}/stat");
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    let mut text = [0u8; STAT_BYTES];
    let length = match rustix::io::read(&file, &mut text) {
        Err(Errno::SRCH) => return Ok(None),
        result => result?,
    };
    parse_stat(&text[..length])
        .map(Some)
        .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Whether the process with this pid and start time lives: it has not ended, and
/// its pid has not become another's.
pub(crate) fn lives(pid: i32, start_ticks: u64) -> Result<bool, Error> {
    let stat = stat(pid).map_err(Error::on("read the state of pid", pid))?;
    Ok(stat.is_some_and(|stat| stat.start == start_ticks && !stat.dead()))
}

/// The name in field 2 may hold anything; its last parenthesis ends it.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = text.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        state,
        executed: flags & PF_FORKNOEXEC == 0,
        start,
    })
}

/// Opens /proc and checks that it is procfs: a directory of someone's making
/// in its place would catch what is written.
pub(crate) fn open() -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let proc = openat2(
        CWD,
        "/proc",
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    if rustix::fs::fstatfs(&proc)?.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(std::io::Error::other("/proc is not procfs"));
    }
    Ok(proc)
}

/// Writes to a file below an opened procfs, crossing neither mounts nor the
/// links that procfs itself makes.
pub(crate) fn write(proc: &OwnedFd, file: &str, text: &[u8]) -> std::io::Result<()> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = openat2(proc, file, flags, Mode::empty(), how)?;
    std::fs::File::from(opened).write_all(text)
}

/// Writes to a file of a child of this process on the host's procfs.
pub(crate) fn write_child(pid: i32, file: &str, text: &str) -> std::io::Result<()> {
    let path = format!("/proc/{pid}/{file}");
    let opened = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // One write: the kernel takes a whole map or none.
    let written = rustix::io::write(&opened, text.as_bytes())?;
    if written == text.len() {
        Ok(())
    } else {
        Err(std::io::ErrorKind::WriteZero.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text =
            b"42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 5 184467";
        let stat = |executed| Stat {
            state: b'S',
            executed,
            start: 987_654,
        };
        assert_eq!(parse_stat(text), Some(stat(true)));
        let forked = String::from_utf8_lossy(text).replace("4194560", "4194624");
        assert_eq!(parse_stat(forked.as_bytes()), Some(stat(false)));
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b"42 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_alive() {
        let stat = stat(std::process::id() as i32).unwrap().unwrap();
        assert!(!stat.dead() && stat.executed && stat.start > 0);
    }
}
