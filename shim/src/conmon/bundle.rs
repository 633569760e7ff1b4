//! What the supervisor puts into the bundle for others to reach it.
//!
//! ```text
//! BUNDLE/
//! ├── attach   SOCK_SEQPACKET, see supervisor::protocol; our own user alone
//! ├── ctl      fifo, lines: `1 ROWS COLUMNS` resizes the terminal, `2 0 0` opens the log files anew
//! └── winsz    fifo, lines: `ROWS COLUMNS`
//! ```
//!
//! Where the caller cannot use so long a path, a link to the bundle under the
//! container's id stands in a folder of its choice (`--socket-dir-path`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::cli::Options;
use crate::Error;
use crate::error::At as _;
use crate::supervisor::socket;

/// Longest path of a socket that callers can connect to, in bytes. `unix(7)`.
const SOCKET_PATH_BYTES: usize = 107;
/// Longest line of a fifo that means something, in bytes.
const LINE_BYTES_MAX: usize = 200;
/// Most rows or columns of a terminal: programs allocate a screen of this size.
const SIDE_MAX: u16 = 1000;

/// The open ends.
#[derive(Debug)]
pub struct Doors {
    /// The attach socket.
    pub attach: OwnedFd,
    /// The control fifo.
    pub control: OwnedFd,
    /// The window size fifo.
    pub window: OwnedFd,
    /// Where the attach socket is.
    path: PathBuf,
}

impl Doors {
    /// Makes them in `bundle`. What a predecessor left there goes away.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(bundle: &Path, options: &Options) -> Result<Self, Error> {
        if !options.full_attach {
            link_to(bundle, options)?;
        }
        let path = bundle.join("attach");
        Ok(Self {
            attach: socket::listen_in(bundle, "attach").at("listen on", &path)?,
            control: fifo(&bundle.join("ctl"))?,
            window: fifo(&bundle.join("winsz"))?,
            path,
        })
    }

    /// Nobody can attach any more.
    pub fn close(self) {
        let _: io::Result<()> = std::fs::remove_file(&self.path);
    }
}

/// A link to the bundle, under the container's id.
fn link_to(bundle: &Path, options: &Options) -> Result<(), Error> {
    let id = options.cuuid.as_deref().unwrap_or_default();
    let link = options.socket_folder().join(id);
    let link = shortened(link);
    match std::fs::remove_file(&link) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err).at("remove", &link),
        _ => {}
    }
    std::os::unix::fs::symlink(bundle, &link).at("link to the bundle as", &link)
}

/// A link whose path is as long as a socket's may be leaves no room for the
/// socket behind it: callers agree to leave out its last letter.
fn shortened(link: PathBuf) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = link.as_os_str().as_bytes();
    if bytes.len() != SOCKET_PATH_BYTES {
        return link;
    }
    let shorter = bytes[..bytes.len() - 1].to_vec();
    std::ffi::OsString::from_vec(shorter).into()
}

/// A fifo, open for both directions, so that it never comes to an end when a writer leaves.
fn fifo(path: &Path) -> Result<OwnedFd, Error> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err).at("remove", path),
        _ => {}
    }
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).at("make the fifo", path)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

/// What a line of a fifo asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The terminal has another size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
    /// The log files were renamed.
    Reopen,
}

impl Command {
    /// A line of `ctl`. What follows the third number says nothing.
    #[must_use]
    pub fn of_control(line: &[u8]) -> Option<Self> {
        let mut words = words(line)?;
        match (words.next()?, words.next()?, words.next()?) {
            ("1", rows, columns) => Self::resize(rows, columns),
            ("2", _, _) => Some(Self::Reopen),
            _ => None,
        }
    }

    /// A line of `winsz`.
    #[must_use]
    pub fn of_window(line: &[u8]) -> Option<Self> {
        let mut words = words(line)?;
        Self::resize(words.next()?, words.next()?)
    }

    fn resize(rows: &str, columns: &str) -> Option<Self> {
        let side = |word: &str| word.parse().ok().filter(|side| *side <= SIDE_MAX);
        Some(Self::Resize {
            rows: side(rows)?,
            columns: side(columns)?,
        })
    }
}

fn words(line: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(std::str::from_utf8(line).ok()?.split_ascii_whitespace())
}

/// Lines as they come through a fifo, in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// The line is too long to mean anything; its end is awaited.
    too_long: bool,
}

impl Lines {
    /// Reads what is there; `each` gets every line that ended.
    pub fn read(&mut self, fifo: &OwnedFd, mut each: impl FnMut(&[u8])) {
        let mut buffer = [0; LINE_BYTES_MAX];
        if let Ok(n) = rustix::io::read(fifo, &mut buffer[..]) {
            self.take(&buffer[..n], &mut each);
        }
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(&[u8])) {
        for byte in bytes {
            if *byte != b'\n' {
                self.too_long |= self.begun.len() >= LINE_BYTES_MAX;
                if !self.too_long {
                    self.begun.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.begun);
            if !std::mem::take(&mut self.too_long) {
                each(&line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u16, columns: u16) -> Option<Command> {
        Some(Command::Resize { rows, columns })
    }

    #[test]
    fn lines_of_control() {
        for (line, command) in [
            ("1 24 80", size(24, 80)),
            ("1 2 2 3", size(2, 2)),
            ("1 0010 0020", size(10, 20)),
            ("1 1000 1000", size(1000, 1000)),
            ("2 0 0", Some(Command::Reopen)),
            ("2 1 1", Some(Command::Reopen)),
            ("2", None),
            ("1 -1 -1", None),
            ("1 2", None),
            ("1 1001 10", None),
            ("1 100000 5", None),
            ("1 10.5 20", None),
            ("1 0x10 0x20", None),
            ("foo", None),
            ("999 2 2", None),
            ("", None),
        ] {
            assert_eq!(Command::of_control(line.as_bytes()), command, "{line}");
        }
        assert_eq!(Command::of_window(b"24 80"), size(24, 80));
        assert_eq!(Command::of_window(b"24"), None);
        assert_eq!(Command::of_control(&[0xff]), None);
    }

    #[test]
    fn lines_in_pieces_and_without_end() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [
            &b"1 2 2\n1 3"[..],
            b" 3\n",
            &[b'x'; 70_000],
            b" 1 2\n2 0 0\n",
        ] {
            lines.take(piece, &mut |line| seen.push(line.to_vec()));
        }
        assert_eq!(seen, [&b"1 2 2"[..], b"1 3 3", b"2 0 0"]);
    }

    #[test]
    fn a_link_leaves_room_for_the_socket() {
        let long = PathBuf::from(format!("/{}", "a".repeat(SOCKET_PATH_BYTES - 1)));
        assert_eq!(shortened(long).as_os_str().len(), SOCKET_PATH_BYTES - 1);
        assert_eq!(shortened("/a/b".into()), PathBuf::from("/a/b"));
    }
}
