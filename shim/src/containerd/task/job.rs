//! A call of the runtime that is under way. It never holds up the loop: its end is a SIGCHLD.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use super::call::{Call, Runtime};
use crate::Error;
use crate::error::At as _;
use crate::runtime::{self, Stdio3};
use crate::sys;

/// Most of a call's output read, in bytes: a list of 100,000 pids.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// A process of the runtime.
#[derive(Debug)]
pub struct Job {
    /// Its pid, a child of ours until it is reaped.
    pub pid: i32,
    program: PathBuf,
    log: PathBuf,
    /// Its standard output and error, where these are not the container's.
    output: Option<File>,
}

/// What a call needs beside its words.
#[derive(Debug)]
pub enum Streams {
    /// The container's own standard streams.
    Container(Stdio3),
    /// This text as standard input; what is written is kept.
    Ours(Vec<u8>),
}

/// How a call ended.
#[derive(Debug)]
pub enum Ended {
    /// Well, with this output.
    Well(Vec<u8>),
    /// Not: the runtime's own words.
    Badly(String),
}

impl Job {
    /// Executes `call` on container `id`.
    ///
    /// # Errors
    /// The program could not be executed.
    pub fn start(
        runtime: &Runtime,
        call: &Call,
        id: &str,
        bundle: &Path,
        log: PathBuf,
        streams: Streams,
    ) -> Result<Self, Error> {
        // What an earlier call logged must not be taken for this one's words.
        if std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0) {
            File::create(&log).at("empty", &log)?;
        }
        let mut command = Command::new(&runtime.program);
        command
            .args(call.arguments(runtime, &log, id))
            .current_dir(bundle);
        let output = match streams {
            Streams::Container(stdio) => {
                command
                    .stdin(stdio.stdin)
                    .stdout(stdio.stdout)
                    .stderr(stdio.stderr);
                None
            }
            Streams::Ours(input) => {
                let output = memory()?;
                let copy = || output.try_clone().call("dup");
                command.stdin(feed(&input)?).stdout(copy()?).stderr(copy()?);
                Some(output)
            }
        };
        end_with_us(&mut command);
        // The child is reaped with all others, by the loop.
        let child = command.spawn().at("execute", &runtime.program)?;
        Ok(Self {
            pid: i32::try_from(child.id()).unwrap_or(-1),
            program: runtime.program.clone(),
            log,
            output,
        })
    }

    /// It ended with `status`, as wait(2) encodes it.
    #[must_use]
    pub fn ended(self, status: i32) -> Ended {
        let status = ExitStatus::from_raw(status);
        let output = self
            .output
            .and_then(|file| contents(file).ok())
            .unwrap_or_default();
        if status.success() {
            return Ended::Well(output);
        }
        let words = String::from_utf8_lossy(&output).trim().to_owned();
        let logged = runtime::Runtime {
            program: self.program,
            root: PathBuf::new(),
            log: self.log,
        };
        Ended::Badly(match logged.last_error() {
            Some(message) => message,
            None if !words.is_empty() => words,
            None => logged.message(status),
        })
    }
}

/// Lets `command` end with this process: it must not go on making a container that `delete`,
/// executed for a dead shim, is already removing. Its own children are not concerned.
fn end_with_us(command: &mut Command) {
    let own = getpid();
    sys::before_exec(command, move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died before this was asked.
        match getppid() {
            Some(parent) if parent == own => Ok(()),
            _ => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    });
}

fn memory() -> Result<File, Error> {
    Ok(memfd_create("teu-call", MemfdFlags::CLOEXEC)
        .call("memfd_create")?
        .into())
}

fn feed(input: &[u8]) -> Result<Stdio, Error> {
    if input.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = memory()?;
    file.write_all(input).call("write")?;
    file.rewind().call("lseek")?;
    Ok(file.into())
}

fn contents(mut file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
