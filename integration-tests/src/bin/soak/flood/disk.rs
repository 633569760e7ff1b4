//! A small disk that is full most of the time, and logs on it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::sequence::Sequence;
use super::{Memory, PACE, Verdict};
use teu_integration_tests::Scene;

/// How often it is looked whether it is full.
const LOOK: Duration = Duration::from_millis(50);
/// How often a full disk's log must not have grown before nothing more goes into it: its
/// last block may have room for a while.
const LOOKS: u32 = 6;

/// A file system in memory, gone with the value.
pub(super) struct Disk {
    folder: PathBuf,
    /// How often it was full.
    full: std::cell::Cell<u64>,
}

impl Disk {
    /// One of so many MiB.
    pub(super) fn mount(scene: &Scene, mebibytes: u32) -> Self {
        let folder = scene.path("disk");
        std::fs::create_dir_all(&folder).expect("make a folder");
        let size = std::ffi::CString::new(format!("size={mebibytes}m")).expect("no zero byte");
        let options = Some(size.as_c_str());
        mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), options).expect("mount a tmpfs");
        Self {
            folder,
            full: std::cell::Cell::new(0),
        }
    }

    /// A path on it.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives it so many MiB.
    pub(super) fn resize(&self, mebibytes: u32) {
        let size = std::ffi::CString::new(format!("size={mebibytes}m")).expect("no zero byte");
        let flags = MountFlags::empty();
        rustix::mount::mount_remount(&self.folder, flags, &size).expect("remount the tmpfs");
    }

    fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.folder).is_ok_and(|stat| stat.f_bavail == 0)
    }

    /// Lets `file` fill the disk again and again; each time its content goes to `take`,
    /// and is cut off. Nobody writes meanwhile: there is no room.
    /// Whether `take` was content every time.
    pub(super) fn empty_for(
        &self,
        file: &Path,
        time: Duration,
        memory: &mut Memory,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let begin = Instant::now();
        let (mut content, mut last, mut same) = (Vec::new(), 0, 0);
        while begin.elapsed() < time {
            std::thread::sleep(LOOK);
            memory.look();
            let len = std::fs::metadata(file).map_or(0, |file| file.len());
            same = if len == last && self.is_full() {
                same + 1
            } else {
                0
            };
            last = len;
            if same < LOOKS {
                continue;
            }
            same = 0;
            self.full.set(self.full.get() + 1);
            let file = File::options().read(true).write(true).open(file);
            let mut file = file.expect("open the log");
            content.clear();
            file.read_to_end(&mut content).expect("read the log");
            if !take(&content) {
                return false;
            }
            file.set_len(0).expect("empty the log");
        }
        true
    }

    /// Says what came, and judges.
    pub(super) fn tell(
        &self,
        verdict: &mut Verdict,
        case: &str,
        sequence: &Sequence,
        time: Duration,
        in_order: bool,
    ) {
        let (bytes, full, seconds) = (sequence.bytes, self.full.get(), time.as_secs());
        println!("  {case}: {bytes} bytes in {seconds} s, full {full} times");
        verdict.check(
            in_order && bytes > seconds * PACE / 4,
            format!("{case}: no byte is lost while a disk is full"),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.folder, UnmountFlags::DETACH) {
            eprintln!("unmount {:?}: {error}", self.folder);
        }
    }
}

/// What stands between two numbers of a note of lost bytes.
const NOTE: [&[u8]; 2] = [b"[teu: ", b" bytes of output were not logged: "];

/// A log in CRI's format, as it comes in pieces; its standard output is a [`Sequence`].
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The beginning of an entry.
    begun: Vec<u8>,
    /// Bytes that the log itself says are missing.
    pub(super) dropped: u64,
    /// How often it says so.
    pub(super) notes: u64,
}

impl Entries {
    /// Whether these bytes are entries, and their output follows.
    pub(super) fn take(&mut self, bytes: &[u8], sequence: &mut Sequence) -> bool {
        self.begun.extend_from_slice(bytes);
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n');
        let rest = self.begun.split_off(whole.map_or(0, |at| at + 1));
        let whole = std::mem::replace(&mut self.begun, rest);
        whole
            .split_inclusive(|byte| *byte == b'\n')
            .all(|line| self.entry(&line[..line.len() - 1], sequence))
    }

    fn entry(&mut self, line: &[u8], sequence: &mut Sequence) -> bool {
        let parts: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
        match parts[..] {
            [_, b"stdout", b"F", text] => sequence.takes(text) && sequence.takes(b"\n"),
            [_, b"stdout", b"P", text] => sequence.takes(text),
            [_, b"stderr", b"F", text] => {
                let Some(lost) = lost_bytes(text) else {
                    return false;
                };
                self.dropped += lost;
                self.notes += 1;
                sequence.skip(lost);
                true
            }
            _ => false,
        }
    }
}

/// How many bytes a note says are missing.
fn lost_bytes(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(NOTE[0])?;
    let at = text
        .windows(NOTE[1].len())
        .position(|part| part == NOTE[1])?;
    std::str::from_utf8(&text[..at]).ok()?.parse().ok()
}
