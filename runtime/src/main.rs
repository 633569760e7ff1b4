//! `teu-runtime`, a low-level OCI runtime with runc's command line.

mod cgroup;
mod cli;
mod container;
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
mod rootfs;
mod seccomp;
mod spec;
mod state;
mod sys;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => {
            log::Log::default().error(&error);
            return ExitCode::FAILURE;
        }
    };
    match invocation.run() {
        Ok(code) => ExitCode::from(code),
        Err((log, error)) => {
            log.error(&error);
            ExitCode::from(invocation.failure_code())
        }
    }
}
