//! `teu-runtime`, a low-level OCI runtime with runc's command line.
#![cfg_attr(not(test), no_main)]

mod called;
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
#[cfg(test)]
mod mutation;
mod namespace;
mod netlink;
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

/// The program, called by `sys/entry.rs`; its exit code.
fn main() -> u8 {
    match cli::parse(std::env::args_os().skip(1)).run() {
        Ok(code) => code,
        Err(failed) => {
            let cli::Failed { log, error, code } = *failed;
            match error.program_of_run() {
                Some(failure) => log.not_executed(&error, failure),
                None => log.error(&error),
            }
            code
        }
    }
}
