//! What the supervisor says of itself: to standard error while it has one,
//! and to syslog where that was asked for.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use super::cli::Level;
use crate::Error;
use crate::error::chain;

/// Where syslog listens. `syslog(3)`.
const SYSLOG: &str = "/dev/log";
/// Facility "user" of RFC 5424, in place.
const FACILITY_USER: u8 = 1 << 3;
/// Longest part of the container's id that is said with each message, in bytes.
const ID_BYTES_MAX: usize = 20;

/// Where messages go, and from which level on.
#[derive(Debug)]
pub struct Diary {
    level: Level,
    syslog: Option<OwnedFd>,
    id: String,
}

impl Diary {
    /// Messages of `level` and above, about container `id`.
    #[must_use]
    pub fn new(level: Level, syslog: bool, id: &str) -> Self {
        Self {
            level,
            syslog: if syslog { listener() } else { None },
            id: id[..id.floor_char_boundary(ID_BYTES_MAX)].to_owned(),
        }
    }

    /// Says something.
    pub fn say(&self, level: Level, words: &str) {
        if level > self.level {
            return;
        }
        let (letter, name, severity) = match level {
            Level::Error => ('e', "error", 3),
            Level::Warning => ('w', "warn", 4),
            Level::Info => ('i', "info", 6),
            Level::Debug => ('d', "debug", 7),
        };
        use std::io::Write as _;
        // Nobody may read it any more; that must not end anyone.
        let _: std::io::Result<()> = writeln!(std::io::stderr(), "[conmon:{letter}]: {words}");
        if let Some(socket) = &self.syslog {
            let pid = std::process::id();
            let priority = FACILITY_USER | severity;
            let line = format!(
                "<{priority}>conmon[{pid}]: conmon {} <{name}>: {words}",
                self.id
            );
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _: rustix::io::Result<usize> = send(socket, line.as_bytes(), flags);
        }
    }

    /// Says what went wrong without ending anything.
    pub fn complain(&self, result: Result<(), Error>) {
        if let Err(err) = result {
            self.say(Level::Warning, &chain(&err));
        }
    }
}

fn listener() -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(Path::new(SYSLOG)).ok()?).ok()?;
    Some(socket)
}
