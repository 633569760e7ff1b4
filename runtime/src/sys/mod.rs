//! The system calls that no library wraps safely, and the only `unsafe` code
//! of this program. Each function is safe to call in a process with one
//! thread, which this one is until `execve(2)`.
#![allow(
    unsafe_code,
    reason = "this module is the door to the kernel; all else forbids unsafe"
)]

pub(crate) mod bpf;
mod entry;
pub(crate) mod sched;
mod signals;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

#[cfg(not(test))]
pub(crate) use signals::prepare_signals;
pub(crate) use signals::{block_signals, end_on_signals, pidfd_signal, read_signal, reset_signals};

/// Turns the result of a raw system call into a `Result`.
fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `linux/sched.h`; libc's constant has lost its upper half.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a `clone3(2)` returned.
#[derive(Debug)]
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the old one, with the new one's pid here and its pidfd.
    Parent(Pid, OwnedFd),
}

/// Creates a process in the namespaces of `flags` (`CLONE_NEW*`,
/// `CLONE_PARENT`), in the cgroup whose directory is `cgroup`. `clone3(2)`,
/// Linux 5.3; `CLONE_INTO_CGROUP` Linux 5.7.
///
/// The child has a copy of everything and must end in [`execve`] or [`exit`].
pub(crate) fn clone3(flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    // SAFETY: clone_args is plain integers; all zeroes is "no".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let mut pidfd: RawFd = -1;
    args.flags = (flags | libc::CLONE_PIDFD) as u32 as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the kernel takes the signal of the caller itself.
    args.exit_signal = if flags & libc::CLONE_PARENT == 0 {
        libc::SIGCHLD as u64
    } else {
        0
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is fork(2): the child gets a copy of the
    // memory, and as there is one thread, no lock in it is held by another.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Forked::Child),
        // SAFETY: the kernel has just stored a descriptor that nobody else owns.
        Some(pid) => Ok(Forked::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Opens /dev/null in place of standard streams that the caller has closed, so
/// that nothing else of ours gets their numbers. `poll(2)`.
#[cfg(not(test))]
pub(crate) fn fill_standard_streams() -> io::Result<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the array is valid for its length, and the call does not wait.
    check(unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) }.into())?;
    for closed in streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0) {
        // SAFETY: a string ending with NUL; the lowest free number is taken,
        // which is that of the stream, as they are filled in order.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        if fd != closed.fd {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Leaves the process without running anything registered for its end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Strings in the form that `execve(2)` takes, prepared before the call so
/// that the call itself allocates nothing.
#[derive(Debug)]
pub(crate) struct CStrings {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// Takes the strings over.
    pub(crate) fn new(owned: Vec<CString>) -> CStrings {
        let mut pointers: Vec<_> = owned.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        CStrings {
            _owned: owned,
            pointers,
        }
    }
}

/// Becomes another program; returns only if that fails. `execve(2)`.
pub(crate) fn execve(path: &CStr, args: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: the path ends with NUL and both lists with a null pointer; the
    // strings live as long as the lists.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program behind a descriptor. `execveat(2)`, `AT_EMPTY_PATH`.
pub(crate) fn execve_fd(program: BorrowedFd<'_>, args: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: as in `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// What `mount_setattr(2)` changes on a mount. Linux 5.12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED` and the like, or 0.
    pub propagation: u64,
}

/// Changes the mount behind `mount`; with `recursive` those below it too.
/// `idmap` is the user namespace of an idmapped mount.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    attr: MountAttr,
    recursive: bool,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut kernel = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: 0,
    };
    if let Some(namespace) = idmap {
        kernel.attr_set |= libc::MOUNT_ATTR_IDMAP;
        kernel.userns_fd = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure is valid for the size that is passed with it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const kernel,
            size_of_val(&kernel),
        )
    })?;
    Ok(())
}

/// Lets no program that is executed from here on inherit a descriptor from
/// `first` on. `close_range(2)`, `CLOSE_RANGE_CLOEXEC`, Linux 5.11.
///
/// They stay open here: a caller may have named one as `/dev/fd/N`.
pub(crate) fn keep_from_programs(first: u32) -> io::Result<()> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: nothing is closed, descriptors are only marked.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, flag) })?;
    Ok(())
}

/// Closes every descriptor from `first` on except those of `keep`. For a child
/// that must not hold what its parent has open: locks, and the ends of pipes.
///
/// The values that own them stay behind in memory that is never used again.
pub(crate) fn close_all_but(first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.unsigned_abs()).collect();
    keep.sort_unstable();
    keep.push(c_uint::MAX);
    let mut from = first;
    for kept in keep {
        if kept > from {
            let last = if kept == c_uint::MAX { kept } else { kept - 1 };
            // SAFETY: the caller uses no other descriptor after this.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = from.max(kept.saturating_add(1));
    }
    Ok(())
}

/// Leaves namespaces for new ones. `unshare(2)`; only namespace flags.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the danger of this call is CLONE_FILES with threads; there are none.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Switches on the loopback device of the caller's network namespace; the kernel
/// then gives it its addresses. `netdevice(7)`, SIOCSIFFLAGS.
pub(crate) fn raise_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    // Any socket will do; one of this family needs no network protocol.
    let kind = SocketType::DGRAM;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeros are a value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: the structure that this request takes, valid during the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    check(done.into()).map(drop)
}

/// Gives the process the session keyring named `name`, a new one where none may
/// be found, and its serial number. `keyctl(2)`.
pub(crate) fn join_session_keyring(name: &CStr) -> io::Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a string ending with NUL goes in, an integer comes out.
    let serial = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    // A serial number has 31 bits.
    Ok(serial as i32)
}

/// Lets other processes of its owner find a new session keyring by its name
/// (`keyctl(2)`, `KEYCTL_SETPERM`). The other permissions are those that the
/// kernel has given it: all for who has it, and to look at and link for its owner.
pub(crate) fn let_keyring_be_found(serial: i32) -> io::Result<()> {
    const KEYCTL_SETPERM: c_int = 5;
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const OWNER_VIEW_READ_SEARCH_LINK: u32 = 0x001b_0000;
    let permissions = POSSESSOR_ALL | OWNER_VIEW_READ_SEARCH_LINK;
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, permissions) }).map(drop)
}

/// Sends any signal number to a pid. `kill(2)`.
pub(crate) fn kill(pid: Pid, signal: c_int) -> io::Result<()> {
    // SAFETY: two integers.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) }.into())?;
    Ok(())
}

/// Installs a seccomp filter for this thread; with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` in `flags` the number of the listener's
/// descriptor comes back. `seccomp(2)`.
pub(crate) fn seccomp_load(
    program: &[libc::sock_filter],
    flags: c_ulong,
) -> io::Result<Option<RawFd>> {
    let fprog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions that `program` holds.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    })?;
    let listener = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    Ok(listener.then_some(result as RawFd))
}

/// One page that this process and its later children share: the way for a
/// child to leave an error when its seccomp filter forbids even `write(2)`.
#[derive(Debug)]
pub(crate) struct SharedPage(*mut AtomicU8);

impl SharedPage {
    /// Bytes that fit.
    pub(crate) const BYTES: usize = 4096;

    /// Maps the page: `file`'s first one, or an anonymous one. `mmap(2)`.
    pub(crate) fn map(file: Option<BorrowedFd<'_>>) -> io::Result<SharedPage> {
        let (flags, fd) = match &file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so nothing is overwritten.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(SharedPage(address.cast()))
    }

    /// The same page, for the child that inherits the mapping.
    pub(crate) fn share(&self) -> SharedPage {
        SharedPage(self.0)
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping has BYTES bytes and is never unmapped; other
        // processes write to it only through the same atomic type.
        unsafe { std::slice::from_raw_parts(self.0, Self::BYTES) }
    }

    /// A word at the end of the page: the listener's number plus one.
    fn word(&self, from_end: usize) -> &AtomicU32 {
        // SAFETY: the page is aligned, both words lie inside it, behind every
        // record, and only atomic operations touch them.
        unsafe { &*self.0.add(Self::BYTES - from_end).cast::<AtomicU32>() }
    }

    /// Child: leaves the number of its seccomp listener. No system call.
    pub(crate) fn offer(&self, listener: RawFd) {
        self.word(4)
            .store(listener.unsigned_abs() + 1, Ordering::Release);
    }

    /// Runtime: the number that the child has left.
    pub(crate) fn offered(&self) -> Option<RawFd> {
        let number = self.word(4).load(Ordering::Acquire).checked_sub(1)?;
        RawFd::try_from(number).ok()
    }

    /// Runtime: says that the listener is in good hands.
    pub(crate) fn accept(&self) {
        self.word(8).store(1, Ordering::Release);
    }

    /// Child: whether the listener is in good hands. No system call.
    pub(crate) fn accepted(&self) -> bool {
        self.word(8).load(Ordering::Acquire) == 1
    }

    /// Stores `record`, cut to what fits, behind its length.
    pub(crate) fn store(&self, record: &[u8]) {
        let record = &record[..record.len().min(Self::BYTES - 10)];
        for (to, from) in self.bytes()[2..].iter().zip(record) {
            to.store(*from, Ordering::Relaxed);
        }
        let length = (record.len() as u16).to_ne_bytes();
        self.bytes()[1].store(length[1], Ordering::Release);
        self.bytes()[0].store(length[0], Ordering::Release);
    }

    /// What was stored; empty if nothing was.
    pub(crate) fn load(&self) -> Vec<u8> {
        let at = |index: usize| self.bytes()[index].load(Ordering::Acquire);
        let length = usize::from(u16::from_ne_bytes([at(0), at(1)]));
        (2..Self::BYTES.min(length + 2)).map(at).collect()
    }
}

/// Makes a terminal the controlling one of this session. `TIOCSCTTY`.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Puts `from` in place of the descriptor `to`, left open over `execve`. `dup2(2)`.
pub(crate) fn dup_onto(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a standard stream, which no value of this program owns.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into())?;
    Ok(())
}

/// Says whether the process has more than one thread; only for assertions.
pub(crate) fn single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .unwrap_or(1)
        == 1
}
