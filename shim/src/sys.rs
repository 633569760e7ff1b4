//! The system calls that rustix does not offer safely. All `unsafe` of this crate.
#![allow(
    unsafe_code,
    reason = "the one door: signalfd, signal masks, raw signal numbers, PIDFD_GET_INFO, unshare, fork and what happens before execve, inherited descriptors, local time, madvise"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// Blocks `signals` for this process and returns a descriptor that delivers
/// them. `signalfd(2)`. Close-on-exec and non-blocking.
///
/// # Errors
/// What the kernel says; then the mask may already be changed.
pub fn signalfd(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, the later calls only read or
    // change it; signalfd returns a new descriptor or -1.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Closes all descriptors but the standard streams: what a careless caller
/// left open must not be held for a container's life. `close_range(2)`, Linux
/// 5.9; where it lacks, they stay open.
pub fn close_inherited() {
    // SAFETY: called first in `main`, or by who has dropped all that it had: no value of
    // this program owns a descriptor above the standard streams.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Lets children that have ended wait to be asked how, whatever the caller does with
/// its own: with SIGCHLD ignored, which `execve(2)` leaves so, the kernel forgets them.
pub fn keep_ended_children() {
    // SAFETY: constants, with which the call cannot fail.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Size of a record that a signalfd yields, in bytes. `signalfd(2)`.
const SIGNALFD_RECORD_BYTES: usize = 128;

/// The next signal number waiting on a descriptor of [`signalfd`], if any.
///
/// # Errors
/// What `read(2)` says, other than that nothing waits.
pub fn next_signal(signalfd: impl AsFd) -> io::Result<Option<i32>> {
    Ok(next_sent_signal(signalfd)?.map(|signal| signal.number))
}

/// A signal that came, and from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentSignal {
    /// Its number.
    pub number: i32,
    /// The kernel sent it itself: a terminal's key, to all of the foreground.
    pub by_kernel: bool,
}

/// The next signal waiting on a descriptor of [`signalfd`], if any.
///
/// # Errors
/// What `read(2)` says, other than that nothing waits.
pub fn next_sent_signal(signalfd: impl AsFd) -> io::Result<Option<SentSignal>> {
    let mut record = [0; SIGNALFD_RECORD_BYTES];
    match rustix::io::read(signalfd, &mut record) {
        Ok(n) if n == record.len() => {
            // `struct signalfd_siginfo`: number, error, code.
            let field = |at: usize| {
                i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
            };
            Ok(Some(SentSignal {
                number: field(0),
                by_kernel: field(8) == libc::SI_KERNEL,
            }))
        }
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// Highest signal number of Linux (`_NSIG`).
pub const SIGNAL_MAX: i32 = 64;

/// A signal by its number, real-time ones included.
#[must_use]
pub fn signal(number: i32) -> Option<Signal> {
    if !(1..=SIGNAL_MAX).contains(&number) {
        return None;
    }
    // SAFETY: the number is in the kernel's range. The ones that libc reserves
    // (32, 33) are reserved for handlers and masks of this process; here a
    // Signal is only ever sent to another one.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// A child that has ended, and how, as `wait(2)` encodes it. It stays in the process
/// table until somebody waits for it. `waitid(2)` with `WNOWAIT`.
///
/// # Errors
/// What the kernel says, also that there are no children.
pub fn ended_child() -> io::Result<Option<(i32, i32)>> {
    // SAFETY: all fields of the structure are integers or unions of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer leads to a structure of the right type.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid filled in the fields of SIGCHLD, or left zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Some((pid, status)))
}

/// Moves this process into new namespaces. `unshare(2)`.
///
/// # Errors
/// What the kernel says.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the hazard is CLONE_FILES, which gives threads different
    // descriptor tables; no caller passes it, and there is only one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }?)
}

/// How the process behind `pidfd` ended, as `wait(2)` encodes it, also for who
/// is not its parent. `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15.
///
/// `None`: it still runs, was not yet reaped, or the kernel is older.
#[must_use]
pub fn exit_status(pidfd: impl AsFd) -> Option<i32> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { MaybeUninit::zeroed().assume_init() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request's size is that of the structure the pointer leads to.
    let rc = unsafe {
        libc::ioctl(
            pidfd.as_fd().as_raw_fd(),
            libc::PIDFD_GET_INFO,
            &raw mut info,
        )
    };
    (rc == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code)
}

/// Goes on in a child process; the parent gets the child's pid. `fork(2)`.
///
/// # Errors
/// What the kernel says.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this program has one thread, so the child's memory and locks are in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The descriptors that who executed this program left open for it, but for
/// the standard streams. They stay inherited by what is executed.
///
/// To be called once and first, when nothing of this program owns any.
#[must_use]
pub fn inherited() -> Vec<OwnedFd> {
    let mut numbers = Vec::new();
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        let entries = entries.flatten();
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        numbers.extend(
            entries
                .filter_map(number)
                .filter(|number: &i32| *number > 2),
        );
    }
    let open = |number: &i32| {
        // SAFETY: only asks; a number that is not open any more (the folder's own) is an error.
        unsafe { libc::fcntl(*number, libc::F_GETFD) >= 0 }
    };
    numbers.retain(open);
    // SAFETY: each is open, and nothing of this program owns it yet.
    let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
    numbers.into_iter().map(own).collect()
}

/// Lets all signals through again, those that [`signalfd`] took among them, in a
/// child that is about to execute a program: a mask is inherited.
///
/// # Errors
/// What the kernel says.
pub fn unblock_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, the later call only reads it.
    let done = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the child of `command` run `hook` before it executes its program.
pub fn before_exec(
    command: &mut std::process::Command,
    hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: this program has one thread, so the child may do whatever the parent may.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, hook) };
}

/// Sets a variable of this process's environment; also where the standard
/// library holds its lock, between `fork` and `execve`. `setenv(3)`.
///
/// # Errors
/// A name or value with a zero byte; no memory.
pub fn set_variable(name: &str, value: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    let value = std::ffi::CString::new(value)?;
    // SAFETY: both are strings that end; there is one thread, nobody reads the
    // environment meanwhile.
    match unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How far the host's time zone is ahead of UTC at `time`, in seconds; 0 where
/// that is not known. `localtime_r(3)`, which reads TZ and /etc/localtime once.
#[must_use]
pub fn utc_offset_seconds(time: std::time::SystemTime) -> i32 {
    let since = time.duration_since(std::time::UNIX_EPOCH);
    let Ok(seconds) = libc::time_t::try_from(since.unwrap_or_default().as_secs()) else {
        return 0;
    };
    // SAFETY: all fields are integers and a pointer, for which zero is a value.
    let mut parts: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: both pointers lead to values that live through the call; nobody
    // changes TZ meanwhile, for there is one thread.
    let filled = unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    if filled.is_null() {
        return 0;
    }
    i32::try_from(parts.tm_gmtoff).unwrap_or(0)
}

/// First descriptor that [`spawn_with`] hands over.
const FIRST_HANDED: i32 = 3;

/// Starts `command` with `descriptors` at 3, 4, 5 and so on.
///
/// # Errors
/// What the kernel says, also of the execution itself.
pub fn spawn_with<const N: usize>(
    mut command: Command,
    descriptors: [OwnedFd; N],
) -> io::Result<Child> {
    let first_free = FIRST_HANDED + i32::try_from(N).unwrap_or(i32::MAX);
    // Nothing of the library's own, such as what reports a failed execution,
    // may stand where the descriptors go in the child: those numbers are taken
    // until it has begun.
    let mut taken = Vec::new();
    while let Some(fd) = descriptors.first() {
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, FIRST_HANDED)?;
        let is_low = copy.as_raw_fd() < first_free;
        taken.push(copy);
        if !is_low {
            break;
        }
    }
    let sources: Vec<OwnedFd> = descriptors
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, first_free))
        .collect::<Result<_, _>>()?;
    let hand_over = move || {
        for (source, target) in sources.iter().zip(FIRST_HANDED..) {
            // SAFETY: two integers; in the child, nothing owns the target.
            if unsafe { libc::dup2(source.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it calls dup2 only, which is safe in a
    // signal handler, and it allocates nothing.
    unsafe { command.pre_exec(hand_over) };
    command.spawn()
}

/// A loop device's configuration. `linux/loop.h`, `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    backing: u32,
    block_size: u32,
    /// Device, inode, device of the device, offset, limit, number, encryption.
    info: [u64; 6],
    encryption_key_size: u32,
    flags: u32,
    /// Names, key, initial vector.
    names: [u64; 22],
    reserved: [u64; 8],
}

/// `LOOP_CTL_GET_FREE` of `linux/loop.h`.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// `LOOP_CONFIGURE` of `linux/loop.h`, Linux 5.8.
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
/// `LO_FLAGS_READ_ONLY` of `linux/loop.h`.
const LO_FLAGS_READ_ONLY: u32 = 1;
/// `LO_FLAGS_AUTOCLEAR` of `linux/loop.h`.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO` of `linux/loop.h`.
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// The number of a loop device that nobody uses at this moment. `loop(4)`.
///
/// # Errors
/// What the kernel says.
pub fn free_loop_device(control: impl AsFd) -> io::Result<i32> {
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}

/// Makes `device` show `backing` until its last user is gone. `loop(4)`.
///
/// # Errors
/// What the kernel says; `ResourceBusy` where somebody else was faster.
pub fn attach_loop_device(
    device: impl AsFd,
    backing: impl AsFd,
    read_only: bool,
    direct_io: bool,
) -> io::Result<()> {
    let choose = |chosen: bool, flag: u32| if chosen { flag } else { 0 };
    let config = LoopConfig {
        backing: backing.as_fd().as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: [0; 6],
        encryption_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR
            | choose(read_only, LO_FLAGS_READ_ONLY)
            | choose(direct_io, LO_FLAGS_DIRECT_IO),
        names: [0; 22],
        reserved: [0; 8],
    };
    // SAFETY: the request reads a `struct loop_config`, whose size and layout
    // this structure has.
    let rc = unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            LOOP_CONFIGURE as _,
            &raw const config,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives back what an idle process does not need: free memory, and the pages of its own
/// program, most of which ran once, at the start. Those that run again are mapped
/// again, from the page cache, which costs some ten faults.
pub fn rest() {
    // SAFETY: takes no pointer; gives memory back that nobody holds.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    let Some((start, length)) = own_code() else {
        return;
    };
    // SAFETY: the range is the executable, unwritable mapping of the program's own file. Nobody can
    // have changed its pages, so that what is dropped and what is read again are the same.
    unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
}

/// Address and length, in bytes, of the mapping that this function runs in.
fn own_code() -> Option<(usize, usize)> {
    let here = own_code as fn() -> Option<(usize, usize)> as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (range, mode) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (mode == "r-xp" && (start..end).contains(&here)).then_some((start, end - start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, pidfd_open};

    #[test]
    fn a_reaped_child_tells_its_status_through_its_pidfd() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        match exit_status(&pidfd) {
            Some(status) => assert_eq!(status, 7 << 8),
            None => eprintln!(
                "SKIPPED a_reaped_child_tells_its_status_through_its_pidfd: kernel without PIDFD_INFO_EXIT"
            ),
        }
    }

    /// Other tests have children too, which must not be taken from them, and which may be shown first.
    #[test]
    fn an_ended_child_is_seen_and_stays() {
        let script = ["-c", "exit 7"];
        let mut child = Command::new("/bin/sh").args(script).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let (seen, status) = ended_child().unwrap()?;
            (seen == pid).then_some(status)
        });
        assert_eq!(child.wait().unwrap().code(), Some(7));
        match seen {
            Some(status) => assert_eq!(status, 7 << 8),
            None => eprintln!("SKIPPED an_ended_child_is_seen_and_stays: others are in the way"),
        }
    }

    #[test]
    fn a_child_finds_descriptors_where_they_belong() {
        use std::io::{Read as _, Write as _};
        let (mut reads, writes) = io::pipe().unwrap();
        let (reads_other, mut writes_other) = io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cat <&4 >&3"]);
        let mut child = spawn_with(command, [writes.into(), reads_other.into()]).unwrap();
        writes_other.write_all(b"through").unwrap();
        drop(writes_other);
        let mut text = String::new();
        reads.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(child.wait().unwrap().success());
        let (reads, _writes) = io::pipe().unwrap();
        let error = spawn_with(Command::new("/absent"), [reads.into()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_configuration_of_loop_devices_is_the_kernels() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 52);
    }

    #[test]
    fn a_rested_process_goes_on() {
        let (start, length) = own_code().unwrap();
        assert!(start > 0 && length > 4096);
        rest();
        assert_eq!(own_code(), Some((start, length)));
    }

    #[test]
    fn only_the_kernels_signal_numbers_are_signals() {
        assert!(signal(0).is_none());
        assert_eq!(signal(9), Some(Signal::KILL));
        assert!(signal(64).is_some());
        assert!(signal(65).is_none());
    }
}
