//! The least work that running a container takes, to measure runtimes by.
//!
//! `least-work ROOTFS CGROUP PROGRAM [ARG]...` makes the namespaces, the mounts,
//! the devices and the cgroup folders that a default bundle asks for, pivots
//! into ROOTFS, executes PROGRAM and removes the folders again. No parsing, no
//! checks, no state, no security: it is a yardstick, never a runtime.
#![allow(unsafe_code, reason = "a yardstick calls the kernel directly")]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

/// Hierarchies of a hybrid host, and the one of a host with cgroup v2 alone.
const HIERARCHIES: [&str; 10] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
    "unified",
];

const NAMESPACES: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET;

/// Source, target below the root, type, flags, data.
const MOUNTS: [(&CStr, &CStr, u64, &CStr); 6] = [
    (c"proc", c"proc", 0, c""),
    (
        c"tmpfs",
        c"dev",
        libc::MS_NOSUID | libc::MS_STRICTATIME,
        c"mode=755,size=65536k",
    ),
    (
        c"devpts",
        c"dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    (
        c"tmpfs",
        c"dev/shm",
        libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV,
        c"mode=1777,size=65536k",
    ),
    (
        c"mqueue",
        c"dev/mqueue",
        libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV,
        c"",
    ),
    (
        c"sysfs",
        c"sys",
        libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_RDONLY,
        c"",
    ),
];

const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

fn main() {
    let args: Vec<CString> = std::env::args_os()
        .skip(1)
        .map(|arg| CString::new(arg.as_bytes()).expect("no zero byte in an argument"))
        .collect();
    assert!(
        args.len() >= 3,
        "usage: least-work ROOTFS CGROUP PROGRAM [ARG]..."
    );
    let cgroups = make_cgroups(args[1].to_str().expect("a cgroup path"));
    let mut pipe = [0; 2];
    // SAFETY: the array holds the two descriptors the call writes.
    check(
        unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into(),
        "pipe2",
    );
    // SAFETY: no memory is shared and the process has one thread: the child is a copy, as after fork.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            NAMESPACES | libc::SIGCHLD,
            null_mut::<u8>(),
            null_mut::<u8>(),
            null_mut::<u8>(),
            0,
        )
    };
    check(child, "clone");
    if child == 0 {
        // SAFETY: descriptors of the pipe above and a one-byte buffer.
        unsafe {
            libc::close(pipe[1]);
            libc::read(pipe[0], [0u8; 1].as_mut_ptr().cast(), 1);
        }
        run(&args);
    }
    for cgroup in &cgroups {
        std::fs::write(format!("{cgroup}/cgroup.procs"), child.to_string()).expect("join a cgroup");
    }
    let mut status = 0;
    // SAFETY: the pipe's descriptors, and an integer for the status.
    unsafe {
        libc::close(pipe[1]);
        libc::waitpid(child as i32, &raw mut status, 0);
    }
    for cgroup in &cgroups {
        std::fs::remove_dir(cgroup).expect("remove a cgroup");
    }
    std::process::exit(libc::WEXITSTATUS(status));
}

fn make_cgroups(name: &str) -> Vec<String> {
    let mut made = Vec::new();
    let two = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hierarchies: &[&str] = if two { &["."] } else { &HIERARCHIES };
    for hierarchy in hierarchies {
        let path = format!("/sys/fs/cgroup/{hierarchy}/{name}");
        if std::fs::create_dir(&path).is_err() {
            continue;
        }
        if !Path::new(&format!("{path}/cgroup.procs")).exists() {
            // Not a cgroup file system: a hidden hierarchy.
            std::fs::remove_dir(&path).expect("remove a folder");
            continue;
        }
        if *hierarchy == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = std::fs::read(format!("/sys/fs/cgroup/cpuset/{file}"))
                    .expect("read the parent's cpuset");
                std::fs::write(format!("{path}/{file}"), parent).expect("set the cpuset");
            }
        }
        made.push(path);
    }
    made
}

/// The child: mounts, pivots, executes. Never returns.
fn run(args: &[CString]) -> ! {
    mount_all(&args[0]);
    let argv: Vec<_> = args[2..]
        .iter()
        .map(|arg| arg.as_ptr())
        .chain([null()])
        .collect();
    // SAFETY: every pointer is to a zero-terminated string that lives until execve.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWCGROUP).into(), "unshare");
        check(
            libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()),
            "pivot_root",
        );
        check(
            libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(),
            "umount",
        );
        check(
            libc::sethostname(c"least".as_ptr(), 5).into(),
            "sethostname",
        );
        libc::execve(
            argv[0],
            argv.as_ptr(),
            [c"PATH=/bin".as_ptr(), null()].as_ptr(),
        );
        libc::_exit(127)
    }
}

/// Makes the root, with what is mounted on it, the working directory.
fn mount_all(root: &CStr) {
    let mount = |source: *const i8, target: &CStr, kind: *const i8, flags: u64, data: *const i8| {
        // SAFETY: every pointer is null or to a zero-terminated string of the caller's.
        check(
            unsafe { libc::mount(source, target.as_ptr(), kind, flags, data.cast()) }.into(),
            "mount",
        );
    };
    mount(
        null(),
        c"/",
        null(),
        libc::MS_REC | libc::MS_PRIVATE,
        null(),
    );
    mount(
        root.as_ptr(),
        root,
        null(),
        libc::MS_BIND | libc::MS_REC,
        null(),
    );
    // SAFETY: a zero-terminated string.
    check(unsafe { libc::chdir(root.as_ptr()) }.into(), "chdir");
    for (kind, target, flags, data) in MOUNTS {
        // SAFETY: a zero-terminated string. The folder may be there already.
        unsafe { libc::mkdir(target.as_ptr(), 0o755) };
        mount(kind.as_ptr(), target, kind.as_ptr(), flags, data.as_ptr());
    }
    for (path, major, minor) in DEVICES {
        // SAFETY: a zero-terminated string and integers.
        check(
            unsafe {
                libc::mknod(
                    path.as_ptr(),
                    libc::S_IFCHR | 0o666,
                    libc::makedev(major, minor),
                )
            }
            .into(),
            "mknod",
        );
    }
}

fn check(result: i64, what: &str) {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
}
