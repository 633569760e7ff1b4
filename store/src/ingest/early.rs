//! A file on its way to the disk while it is written, so that little is left to wait for when it must be durable.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// After how many bytes they are sent to the disk: enough for one long write of it.
const SEND_BYTES: u64 = 8 << 20;

/// A file written from its start to its end, as [`File`] otherwise.
#[derive(Debug)]
pub(super) struct EarlyFile {
    file: File,
    /// Bytes written, and those of them that were sent to the disk.
    written: u64,
    sent: u64,
}

impl EarlyFile {
    /// Takes an empty file.
    pub(super) fn new(file: File) -> EarlyFile {
        EarlyFile {
            file,
            written: 0,
            sent: 0,
        }
    }

    /// The file, written and durable.
    pub(super) fn finish(self) -> io::Result<File> {
        self.file.sync_all()?;
        Ok(self.file)
    }

    /// Starts writing out what was not, and waits for nothing: posix_fadvise(2) with `POSIX_FADV_DONTNEED` begins with
    /// that, and leaves pages alone that are not on the disk yet. It is advice: where it is not taken, `finish` waits longer.
    fn send(&mut self) {
        let _ = fadvise(
            &self.file,
            self.sent,
            NonZeroU64::new(self.written - self.sent),
            Advice::DontNeed,
        );
        self.sent = self.written;
    }
}

impl Write for EarlyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        if self.written - self.sent >= SEND_BYTES {
            self.send();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the kernel forget a durable file's pages. A mounted layer is read past them (mount option `directio`), so they
/// would only take the place of what containers read.
pub(super) fn forget(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}
