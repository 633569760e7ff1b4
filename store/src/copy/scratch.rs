//! Files without a name: what has to be read twice, and is gone when nobody reads it.

use crate::transfer::Error;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A new file without a name in `TMPDIR`, or `/var/tmp`: `/tmp` may be memory, and layers are large.
///
/// # Errors
/// Those of the file system; one that has no files without names among them.
pub(super) fn file() -> Result<File, Error> {
    let folder = std::env::var_os("TMPDIR")
        .filter(|folder| !folder.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(CWD, &folder, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|errno| Error::File {
            action: "make a temporary file in",
            path: folder,
            source: errno.into(),
        })
}

/// A file from `offset` to its end; several may read one file.
pub(super) struct From<'f> {
    pub(super) file: &'f File,
    pub(super) offset: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
