//! Programs that decide on devices, attached to cgroups: `bpf(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `BPF_PROG_LOAD` and the commands after it (`linux/bpf.h`).
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of the same cgroup and of those above all have their say.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`, Linux 5.6.
const REPLACE: u32 = 4;
/// The most programs of one cgroup (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

/// The part of `union bpf_attr` that loads.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel: u32,
    flags: u32,
}

/// The part that attaches and detaches.
#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
    replaced: RawFd,
}

/// The part that asks what is attached.
#[repr(C)]
struct Query {
    target: RawFd,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The part that opens by number.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Loads a program for devices; each instruction is eight bytes as the kernel
/// lays them out. The descriptor closes on exec.
pub(crate) fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        // It calls no helper, so the kernel asks for no licence but a string.
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 4],
        kernel: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` instructions and the string, both alive here.
    let fd = unsafe { call(PROG_LOAD, &attributes) }?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup, in place of `replaced` at once or beside
/// those that are there.
pub(crate) fn attach(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let flags = if replaced.is_some() { REPLACE } else { 0 };
    let attributes = Attach {
        flags: ALLOW_MULTI | flags,
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd()),
        ..link(&cgroup, &program)
    };
    // SAFETY: numbers only; no memory is shared with the kernel.
    unsafe { call(PROG_ATTACH, &attributes) }.map(drop)
}

/// Takes a program away from a cgroup.
pub(crate) fn detach(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    // SAFETY: numbers only; no memory is shared with the kernel.
    unsafe { call(PROG_DETACH, &link(&cgroup, &program)) }.map(drop)
}

/// The programs for devices that are attached to this very cgroup.
pub(crate) fn attached(cgroup: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let mut query = Query {
        target: cgroup.as_fd().as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids` and how many to
    // `query`, both alive and ours alone.
    unsafe { call_mut(PROG_QUERY, &mut query) }?;
    let open = |&id: &u32| {
        let by_id = ById {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: numbers only; no memory is shared with the kernel.
        let fd = unsafe { call(PROG_GET_FD_BY_ID, &by_id) }?;
        // SAFETY: the kernel just made this descriptor and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    ids.iter().take(query.count as usize).map(open).collect()
}

fn link(cgroup: &impl AsFd, program: &impl AsFd) -> Attach {
    Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    }
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` does with it.
unsafe fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the structure, whose size it is told, and what
    // it points to, for which the caller answers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    done(result)
}

/// # Safety
/// As [`call`]; the kernel also writes to `attributes`.
unsafe fn call_mut<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the structure is exclusively ours; else as above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    done(result)
}

fn done(result: libc::c_long) -> io::Result<RawFd> {
    match RawFd::try_from(result) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}
