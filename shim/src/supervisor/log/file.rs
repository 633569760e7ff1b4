//! The container's log as a file, without loss.
//!
//! One entry a line, in docker's format (see [`super::json`]) or CRI's (k8s-file):
//! `2026-01-31T23:59:59.123456789Z stdout F text`. `F` ends a line of output;
//! `P` is a piece of one, continued by the stream's next entry. What does not
//! end in a newline stays `P`: so the bytes of the output can be had back
//! exactly, whatever they are.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Sink, Stream, Taken, json};
use crate::Error;
use crate::clock;
use crate::container::record::LogFull;
use crate::error::At as _;

/// Room for an entry besides its text, in bytes: the time, the stream, the names of docker's format.
const ROOM_BYTES: usize = 80;
/// Entries wait here to be written together: one `write(2)` for up to this many bytes.
/// Small, since an idle container pays for it; two blocks of output fit.
const OUT_BYTES: usize = 16 * 1024;
/// Longest piece of output in one entry.
const TEXT_BYTES_MAX: usize = OUT_BYTES - ROOM_BYTES;

/// What entries look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CRI's, times in UTC: `Z` at the end.
    Utc,
    /// CRI's, times in the host's time zone, as conmon does: `+01:00` at the end.
    Local,
    /// Docker's.
    Json,
}

impl Form {
    /// Appends an entry to `out`.
    fn encode(self, out: &mut Vec<u8>, stream: Stream, text: &[u8], full: bool) {
        let now = SystemTime::now();
        match self {
            Self::Utc => out.extend_from_slice(&clock::format(now)),
            Self::Local => out.extend_from_slice(&clock::format_local(now)),
            Self::Json => return json::encode(out, stream, text, full),
        }
        out.push(b' ');
        out.extend_from_slice(stream.name().as_bytes());
        out.extend_from_slice(if full { b" F " } else { b" P " });
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// How much a log may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one file; then it is begun anew.
    pub file_bytes: Option<u64>,
    /// Most bytes over the whole life; what comes after them is not kept.
    pub total_bytes: Option<u64>,
    /// How many full files are kept beside the present one, as `PATH.1`
    /// (the newest) to `PATH.n`. 0: a full file is gone.
    pub kept_files: u32,
}

/// What a log is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// How entries tell the time.
    pub form: Form,
    /// How much it may hold.
    pub limits: Limits,
    /// What happens when it cannot grow.
    pub full: LogFull,
    /// Permissions of a new file.
    pub mode: u32,
    /// Whether it is on disk for certain when it is closed.
    pub sync: bool,
}

/// The open log.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    file: File,
    out: Vec<u8>,
    /// The beginnings of characters, by stream, whose rest is in the next block.
    begun: [Vec<u8>; 2],
    /// How much of `out` is in the file.
    written: usize,
    /// Bytes of the present file, with what waits for it.
    file_bytes: u64,
    /// Bytes of all files, with what waits.
    total_bytes: u64,
    /// Bytes of output that could not be logged, since the last that could.
    dropped: u64,
    /// The same over the whole life.
    dropped_total: u64,
}

impl Log {
    /// Opens the log at `path` for appending, without limits.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(path: &Path, full: LogFull) -> Result<Self, Error> {
        Self::with(Settings {
            path: path.to_owned(),
            form: Form::Utc,
            limits: Limits::default(),
            full,
            mode: 0o666,
            sync: false,
        })
    }

    /// Opens a log for appending.
    ///
    /// # Errors
    /// I/O errors.
    pub fn with(settings: Settings) -> Result<Self, Error> {
        let file = open_file(&settings).at("open", &settings.path)?;
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        Ok(Self {
            settings,
            file,
            out: Vec::new(),
            begun: [Vec::new(), Vec::new()],
            written: 0,
            file_bytes: bytes,
            total_bytes: bytes,
            dropped: 0,
            dropped_total: 0,
        })
    }

    /// Opens the path anew, after someone has renamed the file. Nothing is
    /// lost: what waits goes into the old file, or where that cannot grow into
    /// the new one, and a file that is still there is appended to.
    ///
    /// # Errors
    /// I/O errors; then the log goes on in the old file.
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.flush();
        self.sync();
        let file = open_file(&self.settings).at("open", &self.settings.path)?;
        self.file_bytes = file.metadata().map_or(0, |meta| meta.len());
        self.file = file;
        Ok(())
    }

    fn sync(&self) {
        if self.settings.sync {
            // A pipe or a terminal cannot be synced, and a disk that fails has been met while writing.
            let _: std::io::Result<()> = self.file.sync_data();
        }
    }

    /// Writes what waits. `false`: the file cannot grow now.
    fn flush(&mut self) -> bool {
        while self.written < self.out.len() {
            match self.file.write(&self.out[self.written..]) {
                Ok(0) => return false,
                Ok(n) => self.written += n,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.out.shrink_to(OUT_BYTES); // escaped text may have been six times as long
        self.written = 0;
        true
    }

    /// Appends an entry, which waits to be written with others. `false`: there is no room now.
    fn put(&mut self, stream: Stream, text: &[u8], full: bool) -> bool {
        if self.out.len() + ROOM_BYTES + text.len() > OUT_BYTES && !self.flush() {
            return false;
        }
        let before = self.out.len();
        self.settings.form.encode(&mut self.out, stream, text, full);
        let bytes = (self.out.len() - before) as u64;
        if self.is_over(bytes) {
            // It is the first of the next file.
            let entry = self.out.split_off(before);
            if !self.flush() {
                return false;
            }
            self.begin_anew();
            self.out = entry;
        }
        self.file_bytes += bytes;
        self.total_bytes += bytes;
        true
    }

    /// Whether so many bytes more are too many for a file that is not empty.
    fn is_over(&self, bytes: u64) -> bool {
        let limit = self.settings.limits.file_bytes;
        self.file_bytes > 0 && limit.is_some_and(|most| self.file_bytes + bytes > most)
    }

    /// The file is full: another one takes its place. Where that fails the old one goes on.
    fn begin_anew(&mut self) {
        self.sync();
        let replaced = if self.settings.limits.kept_files == 0 {
            self.replace()
        } else {
            self.shift()
        };
        if let Ok(file) = replaced {
            self.file = file;
        }
        self.file_bytes = 0;
    }

    /// An empty file in place of the full one: readers see one or the other.
    fn replace(&self) -> std::io::Result<File> {
        let path = &self.settings.path;
        let next = numbered(path, "tmp");
        let file = File::options()
            .append(true)
            .create(true)
            .mode(self.settings.mode)
            .open(&next)?;
        file.set_len(0)?;
        std::fs::rename(&next, path)?;
        Ok(file)
    }

    /// Each kept file becomes one older; the oldest is gone.
    fn shift(&self) -> std::io::Result<File> {
        let path = &self.settings.path;
        let kept = |number: u32| numbered(path, &number.to_string());
        for number in (1..self.settings.limits.kept_files).rev() {
            match std::fs::rename(kept(number), kept(number + 1)) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        std::fs::rename(path, kept(1))?;
        open_file(&self.settings)
    }

    fn refuse(&mut self, taken: usize, len: usize) -> Taken {
        match self.settings.full {
            LogFull::Block => Taken::Part(taken),
            LogFull::Drop => {
                self.drop_bytes(len - taken);
                Taken::All
            }
        }
    }

    fn drop_bytes(&mut self, len: usize) {
        self.dropped += len as u64;
        self.dropped_total += len as u64;
    }

    /// Says in the log what is missing from it, once there is room.
    fn report_drop(&mut self) -> bool {
        if !self.flush() {
            return false;
        }
        let note = format!(
            "[teu: {} bytes of output were not logged: the log could not grow]",
            self.dropped
        );
        let done = self.put(Stream::Stderr, note.as_bytes(), true) && self.flush();
        if done || self.written > 0 {
            // Said, or the rest of it comes first when there is room.
            self.dropped = 0;
        } else {
            self.out.clear(); // counted again next time
        }
        done
    }

    /// Takes a block, characters whole.
    fn take(&mut self, stream: Stream, data: &[u8]) -> Taken {
        let mut taken = 0;
        while taken < data.len() {
            let (mut text, full) = next_piece(&data[taken..]);
            let limit = self.settings.limits.total_bytes;
            if limit.is_some_and(|most| self.total_bytes >= most) {
                break;
            }
            if self.settings.form == Form::Json && !full {
                text = &text[..json::complete(text)];
                if text.is_empty() {
                    self.begun[stream.index()] = data[taken..].to_vec();
                    break;
                }
            }
            if !self.put(stream, text, full) {
                return self.refuse(taken, data.len());
            }
            taken += text.len() + usize::from(full);
        }
        if self.flush() {
            Taken::All
        } else {
            self.refuse(data.len(), data.len())
        }
    }
}

impl Sink for Log {
    /// Appends a block of output. It is in the file when all was taken.
    ///
    /// Where the file cannot grow: with [`LogFull::Block`] a part is taken, and
    /// the caller must not read on before the rest was; with [`LogFull::Drop`]
    /// all is taken, and what was lost is counted, and said in the log as soon
    /// as it can grow again.
    fn append(&mut self, stream: Stream, data: &[u8]) -> Taken {
        if self.dropped > 0 && !self.report_drop() {
            self.drop_bytes(data.len());
            return Taken::All;
        }
        let begun = std::mem::take(&mut self.begun[stream.index()]);
        if begun.is_empty() {
            return self.take(stream, data);
        }
        match self.take(stream, &[&begun, data].concat()) {
            Taken::Part(n) if n < begun.len() => {
                self.begun[stream.index()] = begun[n..].to_vec();
                Taken::Part(0)
            }
            Taken::Part(n) => Taken::Part(n - begun.len()),
            Taken::All => Taken::All,
        }
    }

    fn close(&mut self, unread: usize) -> u64 {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let begun = std::mem::take(&mut self.begun[stream.index()]);
            if !begun.is_empty() && !self.put(stream, &begun, false) {
                self.drop_bytes(begun.len());
            }
        }
        if unread > 0 {
            self.drop_bytes(unread);
        }
        if self.dropped > 0 {
            self.report_drop();
        }
        if !self.flush() {
            self.dropped_total += (self.out.len() - self.written) as u64;
        }
        self.sync();
        self.dropped_total
    }
}

fn open_file(settings: &Settings) -> std::io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(settings.mode)
        .open(&settings.path)
}

/// `PATH.END`.
pub(super) fn numbered(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// The next entry's text, and whether it is (the end of) a full line, whose newline follows the text.
fn next_piece(data: &[u8]) -> (&[u8], bool) {
    let window = &data[..data.len().min(TEXT_BYTES_MAX + 1)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], true),
        None => (&data[..data.len().min(TEXT_BYTES_MAX)], false),
    }
}

#[cfg(test)]
mod tests;
