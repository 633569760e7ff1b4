//! The pipes to who started the supervisor: podman, cri-o.
//!
//! ```text
//! caller                        supervisor
//!   --> start pipe                it is where the caller wants it (its cgroup): begin
//!   <-- attach pipe  {"data":0}   exec, attached: the socket is there
//!   --> start pipe                exec, attached: someone is attached, execute
//!   <-- sync pipe  {"data":PID}   the process exists; or {"data":-1,"message":WHY}
//!   <-- sync pipe  {"data":CODE}  exec: it has ended
//! ```
//!
//! With the older protocol (no `--api-version`) the key is `pid`, of an exec
//! session `exit_code`, and the latter hears of its end only.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::Error;
use crate::error::At as _;

/// Most that is read of a start pipe at once, in bytes; what it says means nothing.
const WORD_BYTES_MAX: usize = 8192;

/// The shape of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// `--api-version`.
    pub newer: bool,
    /// The process joins a running container.
    pub exec: bool,
}

impl Protocol {
    fn key(self) -> &'static str {
        match self {
            Self { newer: true, .. } => "data",
            Self { exec: true, .. } => "exit_code",
            Self { exec: false, .. } => "pid",
        }
    }

    /// A line for the sync or attach pipe.
    #[must_use]
    pub fn line(self, data: i32, message: Option<&str>) -> String {
        let key = self.key();
        match message.filter(|message| !message.is_empty()) {
            None => format!("{{\"{key}\": {data}}}\n"),
            Some(message) => {
                let message = serde_json::Value::from(message);
                format!("{{\"{key}\": {data}, \"message\": {message}}}\n")
            }
        }
    }

    /// Whether the caller hears of the process when it exists.
    #[must_use]
    pub fn tells_pid(self) -> bool {
        self.newer || !self.exec
    }
}

/// The pipes that are there.
#[derive(Debug)]
pub struct Parent {
    /// The shape of messages.
    pub protocol: Protocol,
    /// `_OCI_SYNCPIPE`.
    pub sync: Option<OwnedFd>,
    /// `_OCI_ATTACHPIPE`.
    pub attach: Option<OwnedFd>,
    /// `_OCI_STARTPIPE`.
    pub start: Option<OwnedFd>,
}

impl Parent {
    /// Says something on the sync pipe. A caller that is gone hears nothing; that is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tell(&mut self, data: i32, message: Option<&str>) -> Result<(), Error> {
        let line = self.protocol.line(data, message);
        let Some(pipe) = &self.sync else {
            return Ok(());
        };
        match write_all(pipe, line.as_bytes()) {
            Err(Errno::PIPE) => {
                self.sync = None;
                Ok(())
            }
            other => other.call("write to the sync pipe"),
        }
    }

    /// Says that the attach socket is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tell_attachable(&mut self) -> Result<(), Error> {
        let line = self.protocol.line(0, None);
        match self.attach.take() {
            Some(pipe) => write_all(&pipe, line.as_bytes()).call("write to the attach pipe"),
            None => Ok(()),
        }
    }
}

/// Waits until the caller has said something on the start pipe, or has closed it.
///
/// # Errors
/// What the kernel says.
pub fn wait_for_start(pipe: impl AsFd) -> Result<(), Error> {
    let mut word = [0; WORD_BYTES_MAX];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut word[..]));
    read.map(|_| ()).call("start-pipe read failed")
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = &bytes[n..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_callers_parse() {
        let protocol = |newer, exec| Protocol { newer, exec };
        assert_eq!(protocol(true, false).line(42, None), "{\"data\": 42}\n");
        assert_eq!(protocol(true, true).line(0, Some("")), "{\"data\": 0}\n");
        assert_eq!(protocol(false, false).line(42, None), "{\"pid\": 42}\n");
        assert_eq!(protocol(false, true).line(7, None), "{\"exit_code\": 7}\n");
        assert_eq!(
            protocol(true, false).line(-1, Some("a \"b\"\n\u{1}ä")),
            "{\"data\": -1, \"message\": \"a \\\"b\\\"\\n\\u0001ä\"}\n"
        );
    }

    #[test]
    fn a_caller_that_is_gone_is_no_error() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let mut parent = Parent {
            protocol: Protocol {
                newer: true,
                exec: false,
            },
            sync: Some(write),
            attach: None,
            start: None,
        };
        parent.tell(1, None).unwrap();
        parent.tell(1, None).unwrap();
        parent.tell_attachable().unwrap();
    }
}
