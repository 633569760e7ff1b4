//! How the kernel runs a process: scheduler, I/O priority, memory policy,
//! execution domain. All concern the calling process and survive `execve(2)`.

use std::ffi::{c_int, c_uint, c_ulong};
use std::io;

use super::check;

/// `struct sched_attr` up to the utilization clamps (`sched_setattr(2)`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    /// Bytes of this structure, for the kernel; set by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// From -20 to 19.
    pub nice: i32,
    /// Of the real-time policies, from 1 to 99.
    pub priority: u32,
    /// Nanoseconds of `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds of `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds of `SCHED_DEADLINE`.
    pub period: u64,
    /// From 0 to 1024; the specification has no field for it.
    pub util_min: u32,
    /// From 0 to 1024; the specification has no field for it.
    pub util_max: u32,
}

/// Sets policy and parameters of the scheduler. `sched_setattr(2)`, Linux 3.14.
pub(crate) fn sched_setattr(attr: &SchedAttr) -> io::Result<()> {
    const SELF: c_int = 0;
    const FLAGS: c_uint = 0;
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..*attr
    };
    // SAFETY: the kernel reads `size` bytes, which the structure has.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, SELF, &raw const attr, FLAGS) })?;
    Ok(())
}

/// Sets the I/O priority (class << 13 | level) of the process group.
/// `ioprio_set(2)`.
pub(crate) fn ioprio_set_group(priority: c_int) -> io::Result<()> {
    const IOPRIO_WHO_PGRP: c_int = 2;
    const OWN_GROUP: c_int = 0;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, OWN_GROUP, priority) })?;
    Ok(())
}

/// Sets the NUMA policy: `MPOL_*` with flags, and a bit a node. `set_mempolicy(2)`.
pub(crate) fn set_mempolicy(mode: c_int, nodes: Option<&[c_ulong]>) -> io::Result<()> {
    // The kernel reads one bit less than it is told.
    let (pointer, bits) = match nodes {
        Some(nodes) => (nodes.as_ptr(), size_of_val(nodes) * 8 + 1),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: the kernel reads `bits - 1` bits, which the slice has.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits as c_ulong) })?;
    Ok(())
}

/// Sets the execution domain (`PER_*`). `personality(2)`.
pub(crate) fn personality(domain: c_ulong) -> io::Result<()> {
    // SAFETY: an integer goes in, an integer comes out.
    check(unsafe { libc::personality(domain) }.into())?;
    Ok(())
}
