//! systemd's journal by its native protocol: a datagram an entry, or a sealed
//! memory file where the entry is too large for one.
//! Source: systemd, "Native Journal Protocol".
//!
//! A line of output is an entry. A longer one than [`LINE_BYTES_MAX`] becomes
//! several, each but the last marked as partial; so does a last line that does
//! not end. MESSAGE holds the bytes as they came, the newline included.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, send, sendmsg, socket_with,
};

use crate::supervisor::log::{Sink, Stream, Taken};

/// Where journald listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Longest piece of a line in one entry, in bytes. It waits in memory until its line has ended.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the journal may take for each of the last entries.
const LAST: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile at least.
const TRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What each entry says besides its message.
#[derive(Debug)]
pub struct Fields {
    encoded: Vec<u8>,
    marks_pieces: bool,
}

impl Fields {
    /// None yet. With `marks_pieces`, pieces of lines are marked as such.
    #[must_use]
    pub fn new(marks_pieces: bool) -> Self {
        Self {
            encoded: Vec::new(),
            marks_pieces,
        }
    }

    /// One more.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        put(&mut self.encoded, name, &[value]);
    }
}

/// A field, its value in parts: as a line, or with its length where it has line ends itself.
fn put(out: &mut Vec<u8>, name: &[u8], value: &[&[u8]]) {
    out.extend_from_slice(name);
    if value.iter().any(|part| part.contains(&b'\n')) {
        let len: usize = value.iter().map(|part| part.len()).sum();
        out.push(b'\n');
        out.extend_from_slice(&(len as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    for part in value {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// How an entry fared.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Yes,
    /// The journal is busy.
    NotNow,
    /// There is no journal.
    Never,
}

/// The way to the journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    fields: Fields,
    /// Connected, where there is a journal.
    socket: Option<OwnedFd>,
    /// Beginnings of lines, by stream.
    lines: [Vec<u8>; 2],
    /// An entry that the journal could not take.
    waiting: Option<Vec<u8>>,
    lost_bytes: u64,
}

impl Journal {
    /// The host's journal. Where there is none, what would be logged is lost, as with `sd_journal_send(3)`.
    #[must_use]
    pub fn new(fields: Fields) -> Self {
        Self::at(Path::new(JOURNAL), fields)
    }

    fn at(path: &Path, fields: Fields) -> Self {
        Self {
            path: path.to_owned(),
            fields,
            socket: connect_to(path),
            lines: [Vec::new(), Vec::new()],
            waiting: None,
            lost_bytes: 0,
        }
    }

    /// An entry with `beginning` and `rest` of its message.
    fn entry(&self, stream: Stream, beginning: &[u8], rest: &[u8], whole: bool) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(beginning.len() + rest.len() + self.fields.encoded.len() + 128);
        put(&mut out, b"MESSAGE", &[beginning, rest]);
        let priority: &[u8] = match stream {
            Stream::Stdout => b"6", // info
            Stream::Stderr => b"3", // error
        };
        put(&mut out, b"PRIORITY", &[priority]);
        out.extend_from_slice(&self.fields.encoded);
        if !whole && self.fields.marks_pieces {
            put(&mut out, b"CONTAINER_PARTIAL_MESSAGE", &[b"true"]);
        }
        out
    }

    /// Logs the line so far and `rest`. `false`: the journal is busy, the entry waits.
    fn log(&mut self, stream: Stream, rest: &[u8], whole: bool) -> bool {
        let beginning = std::mem::take(&mut self.lines[stream.index()]);
        let entry = self.entry(stream, &beginning, rest, whole);
        match self.send(&entry) {
            Sent::Yes => true,
            Sent::Never => {
                self.lost_bytes += (beginning.len() + rest.len()) as u64;
                true
            }
            Sent::NotNow => {
                self.waiting = Some(entry);
                false
            }
        }
    }

    /// Sends what waits. `false`: the journal is busy still.
    fn resend(&mut self) -> bool {
        let Some(entry) = self.waiting.take() else {
            return true;
        };
        match self.send(&entry) {
            Sent::Yes => true,
            Sent::Never => {
                self.lost_bytes += entry.len() as u64;
                true
            }
            Sent::NotNow => {
                self.waiting = Some(entry);
                false
            }
        }
    }

    /// A journal that was started anew is connected to anew, once.
    fn send(&mut self, entry: &[u8]) -> Sent {
        for _ in 0..2 {
            let Some(socket) = &self.socket else {
                self.socket = connect_to(&self.path);
                continue;
            };
            match send_entry(socket, entry) {
                Ok(()) => return Sent::Yes,
                Err(Errno::AGAIN) => return Sent::NotNow,
                Err(_) => self.socket = connect_to(&self.path),
            }
        }
        Sent::Never
    }

    /// At the end: sends what waits, and waits for a busy journal, though not for ever.
    fn insist(&mut self) {
        let deadline = Instant::now() + LAST;
        while !self.resend() && Instant::now() < deadline {
            if let Some(socket) = &self.socket {
                let mut fds = [PollFd::new(socket, PollFlags::OUT)];
                let _: rustix::io::Result<usize> = poll(&mut fds, Some(&TRY));
            }
        }
    }
}

impl Sink for Journal {
    fn append(&mut self, stream: Stream, data: &[u8]) -> Taken {
        if !self.resend() {
            return Taken::Part(0);
        }
        let mut taken = 0;
        while taken < data.len() {
            let rest = &data[taken..];
            let room = LINE_BYTES_MAX - self.lines[stream.index()].len();
            let window = &rest[..rest.len().min(room)];
            let end = window.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.map_or(window.len(), |end| end + 1)];
            taken += piece.len();
            if end.is_none() && piece.len() < room {
                self.lines[stream.index()].extend_from_slice(piece);
            } else if !self.log(stream, piece, end.is_some()) {
                return Taken::Part(taken);
            }
        }
        Taken::All
    }

    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.waiting.as_ref()?;
        Some(self.socket.as_ref()?.as_fd())
    }

    fn close(&mut self, unread: usize) -> u64 {
        self.lost_bytes += unread as u64;
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.insist();
            if !self.lines[stream.index()].is_empty() {
                self.log(stream, b"", false);
            }
        }
        self.insist();
        self.lost_bytes + self.waiting.take().map_or(0, |entry| entry.len() as u64)
    }
}

fn connect_to(path: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket)
}

fn send_entry(socket: &OwnedFd, entry: &[u8]) -> rustix::io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match send(socket, entry, flags) {
        Ok(_) => Ok(()),
        Err(Errno::MSGSIZE | Errno::NOBUFS) => {
            let file = sealed(entry)?;
            let files = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&files));
            sendmsg(socket, &[], &mut control, flags).map(|_| ())
        }
        Err(err) => Err(err),
    }
}

/// A memory file with `content` that nobody can change any more.
fn sealed(content: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("journal-entry", flags)?);
    file.write_all(content).map_err(|_| Errno::NOSPC)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests;
