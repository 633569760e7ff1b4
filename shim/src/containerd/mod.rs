//! `containerd-shim-teu-v2`: the face towards containerd, one process a pod.
//!
//! containerd executes it with `start` ([`mod@start`]), which leaves a process
//! ([`shim`], under a [`keeper`]) listening at an [`address`] and says so as [`bootstrap`] lays down.
//! Calls arrive there by [`ttrpc`] and are answered by the [`task`] service;
//! [`events`] go the other way. When a shim has died, containerd executes
//! `delete` ([`mod@delete`]), which finds in the [`bundle`] what was [`record`]ed.

pub mod address;
pub mod bootstrap;
pub mod bundle;
pub mod delete;
pub mod events;
pub mod flags;
pub mod info;
pub mod keeper;
pub mod options;
pub mod proto;
pub mod record;
pub mod rootfs;
pub mod sandbox;
pub mod shim;
pub mod start;
pub mod stats;
pub mod stdio;
pub mod task;
pub mod ttrpc;

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::error::{At as _, warn};
use crate::supervisor::poller::Name;
use crate::{Error, siblings};
use flags::{Action, Flags};
use stdio::Part;

/// Where the shim listens, in the bundle; containerd 1.6 reads it.
const ADDRESS_FILE: &str = "address";
/// Link to the folder of sockets, in the bundle, where containerd named one.
const SOCKET_DIR_LINK: &str = "s";
/// containerd's ttrpc socket, in the environment.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// What the shim's poller watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The signalfd.
    Signals,
    /// Somebody connects.
    Listener,
    /// A client.
    Connection(u32),
    /// containerd, that takes events.
    Publisher,
    /// A stream of the process with this key.
    Stdio(u32, Part),
    /// The memory cgroup of the container whose first process has this key.
    Oom(u32),
}

impl Name for Token {
    fn encode(self) -> u64 {
        let (kind, part, number) = match self {
            Self::Signals => (0, 0, 0),
            Self::Listener => (1, 0, 0),
            Self::Connection(number) => (2, 0, number),
            Self::Publisher => (3, 0, 0),
            Self::Stdio(key, part) => (4, part.code(), key),
            Self::Oom(key) => (5, 0, key),
        };
        kind << 40 | u64::from(part) << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Self {
        let [_, _, kind, part, n0, n1, n2, n3] = data.to_be_bytes();
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        match (kind, Part::from_code(part)) {
            (0, _) => Self::Signals,
            (1, _) => Self::Listener,
            (2, _) => Self::Connection(number),
            (4, Some(part)) => Self::Stdio(number, part),
            (5, _) => Self::Oom(number),
            _ => Self::Publisher,
        }
    }
}

/// The program, with its own name first.
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    crate::sys::close_inherited();
    let program = PathBuf::from(arguments.next().unwrap_or_default());
    match flags::parse(arguments).and_then(|flags| run(&program, &flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            warn(&name, &err);
            ExitCode::FAILURE
        }
    }
}

fn run(program: &Path, flags: &Flags) -> Result<(), Error> {
    match flags.action {
        Action::Serve => shim::serve(flags),
        Action::Keep => keeper::keep(flags),
        Action::Start => print(&start::start(flags, &input()?)?),
        Action::Delete => print(&delete::delete(flags)?),
        Action::Info => print(&info::info(program, &input()?)),
        Action::Help => print(flags::HELP.as_bytes()),
        Action::Version => {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            print(format!("{name}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")).as_bytes())
        }
    }
}

fn input() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(bootstrap::INPUT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .call("read standard input")?;
    Ok(bytes)
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .call("write to standard output")
}

/// What executes containers whose options name no program: ours, else runc.
fn default_runtime() -> PathBuf {
    siblings::find("teu-runtime").unwrap_or_else(|_| PathBuf::from("runc"))
}

/// Where containerd takes events: as it said, else beside its other socket.
fn events_address(grpc: &str) -> String {
    std::env::var(TTRPC_ADDRESS)
        .ok()
        .filter(|address| !address.is_empty())
        .unwrap_or_else(|| format!("{grpc}.ttrpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let streams = Part::ALL.map(|part| Token::Stdio(u32::MAX, part));
        let others = [
            Token::Signals,
            Token::Listener,
            Token::Connection(7),
            Token::Publisher,
            Token::Oom(u32::MAX),
        ];
        for token in streams.into_iter().chain(others) {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
