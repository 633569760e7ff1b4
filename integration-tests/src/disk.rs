//! A disk that remembers every write and every flush in their order, and what of them a power cut could leave.
//!
//! The disk is one file that this program serves by FUSE (fuse(4), kernel's `include/uapi/linux/fuse.h`); a loop device
//! makes a block device of it. So a real file system meets it as it meets a disk with a cache of its own: what was
//! written before the last flush is there after a cut, and of what was written since, anything may be: each block of
//! 4 KiB is the old one or the new one. That is what dm-log-writes records, where the kernel has it.

#![allow(unsafe_code, reason = "no library wraps fork(2) and unshare(2) safely")]

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::UnshareFlags;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the disk writes whole or not at all, in bytes.
const BLOCK: usize = 4096;
/// Largest write, in bytes.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Largest request, in bytes: a write and its headers.
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4096;
/// The only file, which is the root of the file system.
const ROOT: u64 = 1;

/// What happened to the disk.
#[derive(Debug)]
enum Event {
    Write { offset: usize, bytes: Vec<u8> },
    Flush,
    Mark,
}

/// A disk in use. The file system on it must be unmounted before [`Recorder::finish`].
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    empty: Vec<u8>,
    /// Events as they happened; the server appends to it, and so do we.
    log: File,
    server: i32,
}

/// All that happened to a disk.
#[derive(Debug)]
pub struct Recording {
    empty: Vec<u8>,
    events: Vec<Event>,
}

/// A disk at some moments of its life, later and later ones.
#[derive(Debug)]
pub struct Replay<'r> {
    recording: &'r Recording,
    at: usize,
    marks: usize,
    /// What no power cut takes away: blocks that differ from the empty disk.
    stable: BTreeMap<usize, Vec<u8>>,
    /// Blocks written since the last flush, in their order.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Recorder {
    /// Shows a disk of this content as the file `path`, an empty file. From here on this thread has a mount namespace
    /// of its own: so what is mounted ends with it, however it ends. The server is a process outside of that namespace,
    /// since it must outlive it: a file system that loses its disk while it is unmounted hangs.
    ///
    /// # Errors
    /// Where FUSE cannot be used.
    pub fn start(path: &Path, content: Vec<u8>) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let mut log = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        rustix::fs::fcntl_setfl(&log, rustix::fs::OFlags::APPEND)?;
        // SAFETY: the child uses no lock that another thread may hold: memory, and two descriptors.
        let server = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => become_server(&device, &mut log, content),
            server => server,
        };
        let started = Self {
            path: path.to_owned(),
            empty: content,
            log,
            server,
        };
        own_mounts()?;
        let options = format!(
            "fd={},rootmode=100600,user_id=0,group_id=0,max_read={WRITE_BYTES_MAX}",
            device.as_raw_fd()
        );
        let options = CString::new(options).map_err(io::Error::other)?;
        mount(
            "teu-test-disk",
            path,
            "fuse",
            MountFlags::empty(),
            options.as_c_str(),
        )?;
        Ok(started)
    }

    /// Says that something is done now, and what it promised holds from here on.
    ///
    /// # Errors
    /// Those of writing the log.
    pub fn mark(&self) -> io::Result<()> {
        note(&self.log, kind::MARK, 0, &[])
    }

    /// Takes the disk away.
    ///
    /// # Errors
    /// Where it is still in use.
    pub fn finish(mut self) -> io::Result<Recording> {
        unmount(&self.path, UnmountFlags::empty())?;
        let empty = std::mem::take(&mut self.empty);
        self.end();
        let events = events(&self.log)?;
        Ok(Recording { empty, events })
    }

    /// Waits for the server, which ends when nothing is mounted of it.
    fn end(&mut self) {
        if self.server > 0 {
            // SAFETY: a number, and a place that is not written to.
            unsafe { libc::waitpid(self.server, std::ptr::null_mut(), 0) };
            self.server = 0;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.server > 0 && unmount(&self.path, UnmountFlags::empty()).is_ok() {
            self.end();
        }
    }
}

/// Mounts made by this thread are its own from here on, and end with it.
fn own_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS does not unshare the descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

impl Recording {
    /// How many events there are: a cut may come before or behind each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How often the disk was told to make all durable.
    #[must_use]
    pub fn flushes(&self) -> usize {
        let flushes = self
            .events
            .iter()
            .filter(|event| matches!(event, Event::Flush));
        flushes.count()
    }

    /// Its life from the beginning.
    #[must_use]
    pub fn replay(&self) -> Replay<'_> {
        Replay {
            recording: self,
            at: 0,
            marks: 0,
            stable: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

impl Replay<'_> {
    /// Goes on until `at` events have happened; how many of them were marks.
    pub fn advance(&mut self, at: usize) -> usize {
        while self.at < at {
            match &self.recording.events[self.at] {
                Event::Write { offset, bytes } => self.write(*offset, bytes),
                Event::Flush => self.stable.extend(self.pending.drain(..)),
                Event::Mark => self.marks += 1,
            }
            self.at += 1;
        }
        self.marks
    }

    /// What a cut now can leave: of each block that was not flushed `keeps` says whether it came to the disk.
    ///
    /// # Errors
    /// Those of writing the file.
    pub fn cut(&self, path: &Path, mut keeps: impl FnMut() -> bool) -> io::Result<()> {
        let file = File::create(path)?;
        let empty = &self.recording.empty;
        file.set_len(empty.len() as u64)?;
        for (number, block) in empty.chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, (number * BLOCK) as u64)?;
            }
        }
        let pending = self.pending.iter().filter(|_| keeps());
        let written = self
            .stable
            .iter()
            .chain(pending.map(|(number, block)| (number, block)));
        for (number, block) in written {
            file.write_all_at(block, (number * BLOCK) as u64)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (number, from) = (offset / BLOCK, offset % BLOCK);
            let (now, later) = rest.split_at(rest.len().min(BLOCK - from));
            let mut block = self.newest(number);
            block[from..from + now.len()].copy_from_slice(now);
            self.pending.push((number, block));
            offset += now.len();
            rest = later;
        }
    }

    /// A block as the computer sees it.
    fn newest(&self, number: usize) -> Vec<u8> {
        let pending = self.pending.iter().rev().find(|(at, _)| *at == number);
        let written = pending
            .map(|(_, block)| block)
            .or_else(|| self.stable.get(&number));
        match written {
            Some(block) => block.clone(),
            None => self.recording.empty[number * BLOCK..][..BLOCK].to_vec(),
        }
    }
}

/// What an entry of the log is; offset and length follow, 8 bytes each, then so many bytes.
mod kind {
    pub(super) const WRITE: u8 = b'w';
    pub(super) const FLUSH: u8 = b'f';
    pub(super) const MARK: u8 = b'm';
}

/// Appends to the log, in one piece.
fn note(mut log: &File, kind: u8, offset: usize, bytes: &[u8]) -> io::Result<()> {
    let mut entry = Vec::with_capacity(17 + bytes.len());
    entry.push(kind);
    entry.extend((offset as u64).to_ne_bytes());
    entry.extend((bytes.len() as u64).to_ne_bytes());
    entry.extend(bytes);
    log.write_all(&entry)
}

fn events(log: &File) -> io::Result<Vec<Event>> {
    let mut bytes = vec![0; log.metadata()?.len() as usize];
    log.read_exact_at(&mut bytes, 0)?;
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()) as usize;
    let (mut events, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, behind)) = rest.split_at_checked(17) {
        let (content, behind) = behind.split_at(number(&head[9..]));
        events.push(match head[0] {
            kind::WRITE => Event::Write {
                offset: number(&head[1..9]),
                bytes: content.to_vec(),
            },
            kind::FLUSH => Event::Flush,
            _ => Event::Mark,
        });
        rest = behind;
    }
    Ok(events)
}

/// The child: keeps nothing open but what it needs, and never returns.
fn become_server(device: &File, log: &mut File, mut content: Vec<u8>) -> ! {
    let mut keep = [device.as_raw_fd(), log.as_raw_fd()];
    keep.sort_unstable();
    let [first, second] = keep.map(|fd| fd as u32);
    for (from, to) in [
        (0, first - 1),
        (first + 1, second - 1),
        (second + 1, u32::MAX),
    ] {
        if from <= to {
            // SAFETY: numbers; nothing of this process uses the others.
            unsafe { libc::close_range(from, to, 0) };
        }
    }
    serve(device, log, &mut content);
    // SAFETY: nothing of the parent's is to be run or written out here.
    unsafe { libc::_exit(0) }
}

/// Answers the kernel until the file system is unmounted.
fn serve(mut device: &File, log: &File, content: &mut [u8]) {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // A request that was taken back before it was read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => {
                continue;
            }
            // ENODEV: unmounted. EPERM: not mounted yet.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            Err(_) => return,
        };
        let request = Request(&buffer[..length]);
        let Some(answer) = answer(&request, log, content) else {
            continue;
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(request.u64(8).to_ne_bytes());
        reply.extend(body);
        // Who asked may be gone.
        let _ = device.write_all(&reply);
    }
}

/// `fuse_in_header` (40 bytes) and what follows it.
struct Request<'b>(&'b [u8]);

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap_or_default())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }

    fn operation(&self) -> u32 {
        self.u32(4)
    }
}

/// `enum fuse_opcode`, as far as one file needs it.
mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// The body of the answer, or an error number; `None` for what is not answered.
fn answer(request: &Request<'_>, log: &File, content: &mut [u8]) -> Option<Result<Vec<u8>, i32>> {
    // The bodies of reads and writes begin alike: handle, offset, size.
    let (offset, size) = match request.operation() {
        opcode::READ | opcode::WRITE => (request.u64(48) as usize, request.u32(56) as usize),
        _ => (0, 0),
    };
    Some(match request.operation() {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return None,
        opcode::INIT => Ok(init()),
        opcode::GETATTR | opcode::SETATTR => Ok(attributes(content.len())),
        opcode::OPEN => Ok(vec![0; 16]),
        opcode::READ => {
            let end = (offset + size).min(content.len());
            Ok(content[offset.min(end)..end].to_vec())
        }
        opcode::WRITE => {
            let bytes = &request.0[80..80 + size];
            match content.get_mut(offset..offset + size) {
                Some(place) if note(log, kind::WRITE, offset, bytes).is_ok() => {
                    place.copy_from_slice(bytes);
                    Ok([(size as u32).to_ne_bytes(), [0; 4]].concat())
                }
                _ => Err(libc::ENOSPC),
            }
        }
        opcode::FSYNC => match note(log, kind::FLUSH, 0, &[]) {
            Ok(()) => Ok(Vec::new()),
            Err(_) => Err(libc::EIO),
        },
        opcode::STATFS => Ok(vec![0; 80]),
        opcode::RELEASE | opcode::FLUSH | opcode::DESTROY => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    })
}

/// `fuse_init_out`: version 7.31, large writes.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let mut body = Vec::new();
    for number in [7, 31, 0, BIG_WRITES | MAX_PAGES] {
        body.extend(number.to_ne_bytes());
    }
    // max_background, congestion_threshold.
    body.extend([0; 4]);
    body.extend(WRITE_BYTES_MAX.to_ne_bytes());
    // Times are of a nanosecond.
    body.extend(1_u32.to_ne_bytes());
    body.extend(u16::to_ne_bytes((WRITE_BYTES_MAX / 4096) as u16));
    body.resize(64, 0);
    body
}

/// `fuse_attr_out` of the only file, valid for an hour.
fn attributes(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(3600_u64.to_ne_bytes());
    body.extend([0; 8]);
    for number in [ROOT, size as u64, size as u64 / 512, 0, 0, 0] {
        body.extend(number.to_ne_bytes());
    }
    // Nanoseconds of three times; then mode, links.
    body.extend([0; 12]);
    for number in [libc::S_IFREG | 0o600, 1, 0, 0, 0, BLOCK as u32, 0] {
        body.extend(number.to_ne_bytes());
    }
    body
}
