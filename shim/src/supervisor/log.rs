//! The container's log in k8s-file (CRI) format, without loss.
//!
//! One entry a line: `2026-01-31T23:59:59.123456789Z stdout F text`. `F` ends a
//! line of output; `P` is a piece of one, continued by the stream's next entry.
//! What does not end in a newline stays `P`: so the bytes of the output can be
//! had back exactly, whatever they are.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use crate::Error;
use crate::clock;
use crate::container::record::LogFull;
use crate::error::At as _;

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

/// Bytes of an entry besides its text: time, stream and tag with a blank after each, and the newline.
const FRAME_BYTES: usize = clock::BYTES + 1 + 6 + 1 + 1 + 1 + 1;
/// Entries wait here to be written together: one `write(2)` for up to this many bytes.
/// Small, since an idle container pays for it; two blocks of output fit.
const OUT_BYTES: usize = 16 * 1024;
/// Longest piece of output in one entry.
const TEXT_BYTES_MAX: usize = OUT_BYTES - FRAME_BYTES;

/// How much of a block of output the log took.
#[derive(Debug)]
pub enum Taken {
    /// All of it.
    All,
    /// The first so many bytes; the rest is to be offered again later.
    Part(usize),
}

/// The open log.
#[derive(Debug)]
pub struct Log {
    file: File,
    policy: LogFull,
    out: Vec<u8>,
    /// How much of `out` is in the file.
    written: usize,
    /// Bytes of output that could not be logged, since the last that could.
    dropped: u64,
    /// The same over the whole life.
    dropped_total: u64,
}

impl Log {
    /// Opens the log at `path` for appending.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(path: &Path, policy: LogFull) -> Result<Self, Error> {
        let file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .at("open", path)?;
        Ok(Self {
            file,
            policy,
            out: Vec::with_capacity(OUT_BYTES),
            written: 0,
            dropped: 0,
            dropped_total: 0,
        })
    }

    /// Appends a block of output. It is in the file when all was taken.
    ///
    /// Where the file cannot grow: with [`LogFull::Block`] a part is taken, and
    /// the caller must not read on before the rest was; with [`LogFull::Drop`]
    /// all is taken, and what was lost is counted, and said in the log as soon
    /// as it can grow again.
    pub fn append(&mut self, stream: Stream, data: &[u8]) -> Taken {
        if self.dropped > 0 && !self.report_drop() {
            self.drop_bytes(data.len());
            return Taken::All;
        }
        let mut taken = 0;
        while taken < data.len() {
            let (text, full) = next_piece(&data[taken..]);
            if self.out.len() + FRAME_BYTES + text.len() > OUT_BYTES && !self.flush() {
                return self.refuse(taken, data.len());
            }
            self.frame(stream, text, full);
            taken += text.len() + usize::from(full);
        }
        if self.flush() {
            Taken::All
        } else {
            self.refuse(taken, data.len())
        }
    }

    /// Writes what waits. `false`: the file cannot grow now.
    pub fn flush(&mut self) -> bool {
        while self.written < self.out.len() {
            match self.file.write(&self.out[self.written..]) {
                Ok(0) => return false,
                Ok(n) => self.written += n,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.written = 0;
        true
    }

    /// Gives up what waits, and says how many bytes of output were lost in all.
    /// `unread` more bytes were never offered.
    pub fn close(&mut self, unread: usize) -> u64 {
        if unread > 0 {
            self.drop_bytes(unread);
        }
        if self.dropped > 0 {
            self.report_drop();
        }
        if !self.flush() {
            self.dropped_total += (self.out.len() - self.written) as u64;
        }
        self.dropped_total
    }

    fn refuse(&mut self, taken: usize, len: usize) -> Taken {
        match self.policy {
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
        self.frame(Stream::Stderr, note.as_bytes(), true);
        let done = self.flush();
        if done {
            self.dropped = 0;
        } else if self.written == 0 {
            self.out.clear(); // counted again next time
        }
        done
    }

    fn frame(&mut self, stream: Stream, text: &[u8], full: bool) {
        self.out
            .extend_from_slice(&clock::format(SystemTime::now()));
        self.out.push(b' ');
        self.out.extend_from_slice(stream.name().as_bytes());
        self.out
            .extend_from_slice(if full { b" F " } else { b" P " });
        self.out.extend_from_slice(text);
        self.out.push(b'\n');
    }
}

/// The next entry's text, and whether it is (the end of) a full line, whose newline follows the text.
fn next_piece(data: &[u8]) -> (&[u8], bool) {
    let window = &data[..data.len().min(TEXT_BYTES_MAX + 1)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], true),
        None => (&data[..data.len().min(TEXT_BYTES_MAX)], false),
    }
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

    /// What the log gives back of `stream`, byte for byte.
    fn replay(path: &Path, stream: Stream) -> Vec<u8> {
        let mut output = Vec::new();
        let text = std::fs::read(path).unwrap();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let entry = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
            if entry.stream == stream {
                output.extend_from_slice(entry.text);
                if entry.full {
                    output.push(b'\n');
                }
            }
        }
        output
    }

    #[test]
    fn any_bytes_in_any_blocks_come_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, LogFull::Block).unwrap();
        let mut output: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        output.extend_from_slice(b"\n\n\r\nx".as_slice());
        output.extend(std::iter::repeat_n(b'y', 60_000));
        for (block, chunk) in output.chunks(7_919).enumerate() {
            assert!(matches!(log.append(Stream::Stdout, chunk), Taken::All));
            if block % 3 == 0 {
                log.append(Stream::Stderr, b"between\n");
            }
        }
        assert_eq!(log.close(0), 0);
        assert_eq!(replay(&path, Stream::Stdout), output);
        assert_eq!(replay(&path, Stream::Stderr).len(), b"between\n".len() * 7);
    }

    #[test]
    fn the_format_is_cri() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Log::open(&path, LogFull::Block)
            .unwrap()
            .append(Stream::Stdout, b"one\ntwo");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line[clock::BYTES..]).collect();
        assert_eq!(lines, [" stdout F one", " stdout P two"]);
    }

    #[test]
    fn torn_lines_are_not_entries() {
        assert_eq!(parse(b"2026-01-01T00:00:00.000000000Z stdout"), None);
        assert_eq!(parse(b""), None);
        assert!(parse(b"2026-01-01T00:00:00.000000000Z stdout F ").is_some());
    }

    /// /dev/full refuses every write with ENOSPC. `full(4)`.
    fn on_full_disk(policy: LogFull) -> Log {
        Log::open(Path::new("/dev/full"), policy).unwrap()
    }

    #[test]
    fn a_full_disk_blocks_and_takes_each_byte_once() {
        let mut log = on_full_disk(LogFull::Block);
        let data = vec![b'\n'; 1000]; // frames overflow the buffer within the block
        let Taken::Part(taken) = log.append(Stream::Stdout, &data) else {
            panic!("a full disk took all")
        };
        assert_eq!(taken, OUT_BYTES / FRAME_BYTES);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        log.file = File::create(&path).unwrap();
        assert!(matches!(
            log.append(Stream::Stdout, &data[taken..]),
            Taken::All
        ));
        assert_eq!(replay(&path, Stream::Stdout), data);
    }

    #[test]
    fn dropped_output_is_counted_and_said() {
        let mut log = on_full_disk(LogFull::Drop);
        let data = vec![b'x'; 3 * OUT_BYTES];
        assert!(matches!(log.append(Stream::Stdout, &data), Taken::All));
        assert!(matches!(log.append(Stream::Stdout, b"more\n"), Taken::All));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        log.file = File::create(&path).unwrap();
        log.append(Stream::Stdout, b"again\n");
        let dropped = data.len() - TEXT_BYTES_MAX + 5;
        assert!(
            String::from_utf8(replay(&path, Stream::Stderr))
                .unwrap()
                .contains(&format!("{dropped} bytes"))
        );
        assert!(replay(&path, Stream::Stdout).ends_with(b"again\n"));
        assert_eq!(log.close(0), dropped as u64);
    }
}
