//! Small files of the host: read with a limit, replaced whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::Error;

/// Reads a whole regular file of at most `bytes_max` bytes.
pub(crate) fn read_limited(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::on("open", path))?;
    read_open(file, bytes_max).map_err(Error::on("read", path))
}

/// The first part of `path` that is not there, links followed.
pub(crate) fn first_missing(path: &Path) -> Option<PathBuf> {
    let ancestors: Vec<_> = path.ancestors().collect();
    let missing = ancestors.into_iter().rev().find(|part| !part.exists());
    missing.map(Path::to_owned)
}

/// Reads what is left of `source`; more than `bytes_max` bytes are an error.
pub(crate) fn read_open(source: impl Read, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(8192);
    source.take(bytes_max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > bytes_max {
        let message = format!("is larger than {bytes_max} bytes");
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            message,
        ));
    }
    Ok(text)
}

/// The checksum by which damage to our own files is found (FNV-1a, 64 bits). It
/// differs for any two texts that differ in one byte; it is no protection
/// against those who may write them.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The error of a file of ours that is not as we have written it.
pub(crate) fn damaged() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged")
}

/// Whether an error is [`damaged`]: the kernel gives none of this kind.
pub(crate) fn is_damage(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData && error.raw_os_error().is_none()
}

/// Replaces `name` in `directory` by a file with this content: readers see
/// the old or the new one, never half of one. Only one writer at a time.
pub(crate) fn replace(
    directory: impl std::os::fd::AsFd,
    name: &str,
    content: &[u8],
) -> std::io::Result<()> {
    let temporary = format!("{name}.new");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(&directory, &temporary, flags, Mode::from_raw_mode(0o600))?;
    File::from(fd).write_all(content)?;
    rustix::fs::renameat(&directory, &temporary, &directory, name)?;
    Ok(())
}

/// Writes `pid` where a caller asked for it (`--pid-file`), atomically.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<(), Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .ok_or_else(|| Error::Usage(format!("--pid-file {path:?} names no file")))?;
    let temporary = directory.join(format!(".{}", name.to_string_lossy()));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o644))
        .map_err(Error::on("write pid file", path))?;
    File::from(fd)
        .write_all(pid.to_string().as_bytes())
        .map_err(Error::on("write pid file", path))?;
    std::fs::rename(&temporary, path).map_err(Error::on("write pid file", path))
}
