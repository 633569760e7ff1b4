//! Ending a program, or a process that it made, at one certain system call.
//!
//! `ptrace(2)` stops every traced process at the entry of each of its system
//! calls; at the chosen one it is killed before the kernel has done anything
//! of it. A child is traced until it executes a program of its own: then it is
//! no longer the program under test.
#![allow(unsafe_code, reason = "no library wraps ptrace(2) safely")]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a traced program may take, in seconds; only a hang takes longer.
const SECONDS_MAX: u64 = 60;

/// Where to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shot {
    /// Which process: 0 is the program, 1 its first child, or the process that
    /// was there before, and so on.
    pub process: usize,
    /// Before which of its system calls, from 0.
    pub call: usize,
}

/// How a traced run came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The chosen process was killed before this system call, by its number.
    Killed(u64),
    /// Nobody came so far.
    Missed {
        /// How many system calls each process made.
        calls: Vec<usize>,
        /// Whether the program ended with status 0.
        success: bool,
    },
}

/// A traced run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it came to its end.
    pub end: End,
    /// Every process of it: the program, what was traced beside it, and all
    /// that they made.
    pub pids: Vec<i32>,
}

/// A running trace.
struct Trace {
    main: i32,
    traced: BTreeMap<i32, Process>,
    /// System calls of each process, in the order of their appearance.
    calls: Vec<usize>,
    /// Their pids.
    pids: Vec<i32>,
    shot: Shot,
    /// Whether the program has ended with status 0.
    success: bool,
}

#[derive(Clone, Copy)]
struct Process {
    number: usize,
    /// Whether its next execve makes it another program.
    leaves_at_exec: bool,
}

/// Runs `command` and kills as `shot` says; with `beside`, a process that runs
/// already is traced as process 1. Returns when the program has ended. Its other
/// processes are let go, and live on if that is their way.
///
/// # Errors
/// What `ptrace(2)` refuses.
///
/// # Panics
/// When the program does not end in time.
pub fn kill_at(command: &mut Command, shot: Shot, beside: Option<i32>) -> io::Result<Run> {
    // SAFETY: one system call, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0).map(drop)) };
    let main = command.spawn()?.id() as i32;
    let program = Process {
        number: 0,
        leaves_at_exec: false,
    };
    let mut trace = Trace {
        main,
        traced: BTreeMap::from([(main, program)]),
        calls: vec![0],
        pids: vec![main],
        shot,
        success: false,
    };
    // The stop of its first execve.
    wait(main)?;
    let watchdog = Watchdog::over(main);
    ptrace(libc::PTRACE_SETOPTIONS, main, options())?;
    if let Some(pid) = beside {
        ptrace(libc::PTRACE_SEIZE, pid, options())?;
        ptrace(libc::PTRACE_INTERRUPT, pid, 0)?;
        trace.adopt(pid);
    }
    ptrace(libc::PTRACE_SYSCALL, main, 0)?;
    let killed = trace.until_killed()?;
    trace.release()?;
    assert!(!watchdog.has_bitten(), "the traced program does not end");
    Ok(Run {
        end: match killed {
            Some(call) => End::Killed(call),
            None => End::Missed {
                calls: trace.calls,
                success: trace.success,
            },
        },
        pids: trace.pids,
    })
}

/// Stops at system calls are marked, children are traced from their birth.
fn options() -> usize {
    let wanted = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC;
    wanted as usize
}

impl Trace {
    /// Notes a new process; its first stop may come before its parent's.
    fn adopt(&mut self, pid: i32) {
        if self.traced.contains_key(&pid) {
            return;
        }
        let number = self.calls.len();
        self.calls.push(0);
        self.pids.push(pid);
        let leaves_at_exec = true;
        self.traced.insert(
            pid,
            Process {
                number,
                leaves_at_exec,
            },
        );
    }

    /// Follows all processes until the shot is fired, which returns the number
    /// of the system call, or until the program itself has ended.
    fn until_killed(&mut self) -> io::Result<Option<u64>> {
        while self.traced.contains_key(&self.main) {
            let (pid, status) = wait(-1)?;
            if !libc::WIFSTOPPED(status) {
                self.traced.remove(&pid);
                self.success |= pid == self.main && status == 0;
                continue;
            }
            self.adopt(pid);
            if let Some(call) = self.stopped(pid, status)? {
                return Ok(Some(call));
            }
        }
        Ok(None)
    }

    /// One stop of one process; lets it go on.
    fn stopped(&mut self, pid: i32, status: i32) -> io::Result<Option<u64>> {
        let process = self.traced[&pid];
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if signal == libc::SIGTRAP | 0x80 {
            if let Some(call) = entered(pid)? {
                let made = &mut self.calls[process.number];
                if process.number == self.shot.process && *made == self.shot.call {
                    kill(pid, libc::SIGKILL)?;
                    return Ok(Some(call));
                }
                *made += 1;
            }
            return go_on(pid, 0).map(|()| None);
        }
        if event == libc::PTRACE_EVENT_EXEC && process.leaves_at_exec {
            self.traced.remove(&pid);
            ptrace(libc::PTRACE_DETACH, pid, 0)?;
            return Ok(None);
        }
        if matches!(
            event,
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK
        ) {
            // Known before its parent goes on, so that none is forgotten.
            self.adopt(message(pid)?);
        }
        // Births, the stop that begins a child's life and the answer to
        // PTRACE_INTERRUPT are the tracer's own; all else is meant for the process.
        let own = event != 0 || signal == libc::SIGSTOP || signal == libc::SIGTRAP;
        go_on(pid, if own { 0 } else { signal }).map(|()| None)
    }

    /// Lets all processes go and waits for the end of the program. Only a stopped
    /// process can be let go: each is stopped first. All are waited for at once,
    /// since the end of one may wait for the end of another to be noted: that of
    /// a PID namespace's first process does.
    fn release(&mut self) -> io::Result<()> {
        for &pid in self.traced.keys() {
            let _ = kill(pid, libc::SIGSTOP);
        }
        while !self.traced.is_empty() {
            match wait(-1) {
                Ok((pid, status)) if libc::WIFSTOPPED(status) => self.detach(pid, status)?,
                Ok((pid, _)) => drop(self.traced.remove(&pid)),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.traced.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A stop of a process that is to be let go.
    fn detach(&mut self, pid: i32, status: i32) -> io::Result<()> {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if matches!(
            event,
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK
        ) {
            self.stop_and_adopt(message(pid)?);
        }
        self.stop_and_adopt(pid);
        if signal != libc::SIGSTOP || event != 0 {
            // As it would have gone on; a process that is gone meanwhile says so later.
            let _ = ptrace(libc::PTRACE_CONT, pid, 0);
            return Ok(());
        }
        if ptrace(libc::PTRACE_DETACH, pid, 0).is_ok() {
            // A new process begins with a stop of its own: two may have been on
            // their way.
            let _ = kill(pid, libc::SIGCONT);
            if pid != self.main {
                self.traced.remove(&pid);
            }
        }
        Ok(())
    }

    /// One that was born while the others were let go.
    fn stop_and_adopt(&mut self, pid: i32) {
        if !self.traced.contains_key(&pid) && kill(pid, libc::SIGSTOP).is_ok() {
            self.adopt(pid);
        }
    }
}

/// What an event is about: the pid of a new process.
fn message(pid: i32) -> io::Result<i32> {
    let mut child: libc::c_ulong = 0;
    // SAFETY: the kernel writes one long into `child`.
    match unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0usize, &raw mut child) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(child as i32),
    }
}

/// The number of the system call at whose entry a process stands.
fn entered(pid: i32) -> io::Result<Option<u64>> {
    // SAFETY: plain numbers, of which all-zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes into `info`.
    let result = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
    match result {
        -1 if gone() => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: at an entry the kernel has filled in this member.
        _ if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY => Ok(Some(unsafe { info.u.entry.nr })),
        _ => Ok(None),
    }
}

/// Whether the last error says that the process was killed meanwhile; its end
/// is reported later.
fn gone() -> bool {
    io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

fn go_on(pid: i32, signal: i32) -> io::Result<()> {
    match ptrace(libc::PTRACE_SYSCALL, pid, signal as usize) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}

fn ptrace(request: libc::c_uint, pid: i32, data: usize) -> io::Result<i64> {
    // SAFETY: with these requests the kernel reads and writes no memory of ours.
    let result = unsafe { libc::ptrace(request, pid, 0usize, data) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What happened next to a process of this thread's (-1: any of them).
fn wait(pid: i32) -> io::Result<(i32, i32)> {
    // Children and tracees of other threads are other tests'.
    let flags = libc::__WALL | libc::__WNOTHREAD;
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one number to where it is told.
        match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => (),
            -1 => return Err(io::Error::last_os_error()),
            pid => return Ok((pid, status)),
        }
    }
}

/// Kills a program that takes too long, so that the trace of it ends.
struct Watchdog {
    thread: JoinHandle<bool>,
    done: Sender<()>,
}

impl Watchdog {
    fn over(pid: i32) -> Self {
        let (done, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let waited = wait.recv_timeout(Duration::from_secs(SECONDS_MAX));
            let late = waited == Err(RecvTimeoutError::Timeout);
            late && kill(pid, libc::SIGKILL).is_ok()
        });
        Self { thread, done }
    }

    /// Whether it had to act.
    fn has_bitten(self) -> bool {
        drop(self.done);
        self.thread.join().unwrap_or(true)
    }
}
