//! Where a container's output is kept.
//!
//! [`Sink`] is what a keeper of output promises to the pump; [`Log`], the file,
//! is the usual one. [`parse`] reads back what a file in CRI's format holds.

mod file;
mod json;
mod reader;

use std::os::fd::BorrowedFd;

pub use file::{Form, Limits, Log, Settings};
pub use reader::LogReader;

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its place in arrays.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// Its name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How much of a block of output a sink took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// All of it.
    All,
    /// The first so many bytes; the rest is to be offered again later.
    Part(usize),
}

/// Something that keeps output.
pub trait Sink {
    /// Takes a block of output, or the part of it that it can take now. What
    /// was taken is never offered again.
    fn append(&mut self, stream: Stream, data: &[u8]) -> Taken;

    /// The descriptor that becomes writable when more can be taken; `None`
    /// where nothing tells, so that it must be tried again after a while.
    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// No more output will come. Returns how many bytes of it were lost over
    /// the whole life; `unread` more bytes were never offered.
    fn close(&mut self, unread: usize) -> u64;
}

/// One entry of a log, as read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was read from the container.
    pub time: &'a str,
    /// Where it came from.
    pub stream: Stream,
    /// Whether it ends a line.
    pub full: bool,
    /// The output, without newline.
    pub text: &'a [u8],
}

/// Parses one line of a log, without its newline. `None`: not an entry (torn by a crash).
#[must_use]
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry {
        time,
        stream,
        full,
        text: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_lines_are_not_entries() {
        assert_eq!(parse(b"2026-01-01T00:00:00.000000000Z stdout"), None);
        assert_eq!(parse(b""), None);
        assert!(parse(b"2026-01-01T00:00:00.000000000Z stdout F ").is_some());
    }
}
