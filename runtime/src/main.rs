//! `teu-runtime`, a low-level OCI runtime with runc's command line.
#![cfg_attr(not(test), no_main)]

mod cgroup;
mod checkpoint;
mod cli;
mod container;
mod dbus;
mod error;
mod features;
mod file;
mod hook;
mod id;
mod init;
mod log;
mod namespace;
mod proc;
mod process;
mod protect;
mod resctrl;
mod rootfs;
mod seccomp;
mod spec;
mod state;
mod sys;
mod time;
mod trace;

/// Exit code of a command that could not be understood.
const MISUSED: u8 = 1;

/// The program, called by [`sys::entry`]; its exit code.
fn main() -> u8 {
    let invocation = match cli::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => {
            log::Log::default().error(&error);
            return MISUSED;
        }
    };
    match invocation.run() {
        Ok(code) => code,
        Err((log, error)) => {
            log.error(&error);
            invocation.failure_code()
        }
    }
}
