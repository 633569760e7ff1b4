//! Events of one container that nobody has acknowledged yet.
//!
//! BUNDLE/events
//! ├── 8 bytes       where the first unacknowledged record begins, big-endian
//! └── records       4 bytes of length, big-endian, then an `Envelope`
//!
//! The file is empty or absent while there are none. A record that was cut off by a death of the
//! machine is not read; one that was acknowledged just before ours is sent a second time.
//! Nothing is synced: bundles lie on a tmpfs, and die with the machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::Error;
use crate::error::At as _;

/// Name of the file in the bundle.
const NAME: &str = "events";
const HEADER_BYTES: u64 = 8;
const LENGTH_BYTES: usize = 4;
/// Most bytes read back. An event has some hundred bytes, and a container that nobody
/// listened to for long has a few more than it has processes.
const BYTES_MAX: u64 = 16 << 20;

/// Adds an event.
///
/// # Errors
/// What the kernel says, for example of a bundle that is gone.
pub fn append(bundle: &Path, event: &[u8]) -> Result<(), Error> {
    let path = bundle.join(NAME);
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .at("open", &path)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize + LENGTH_BYTES + event.len());
    if file.metadata().at("stat", &path)?.len() == 0 {
        bytes.extend_from_slice(&HEADER_BYTES.to_be_bytes());
    }
    bytes.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(event);
    file.write_all(&bytes).at("write", &path)
}

/// The first unacknowledged event was acknowledged.
///
/// # Errors
/// What the kernel says.
pub fn acknowledge(bundle: &Path) -> Result<(), Error> {
    let path = bundle.join(NAME);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .at("open", &path)?;
    let end = file.metadata().at("stat", &path)?.len();
    let mut number = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut number, 0).at("read", &path)?;
    let first = u64::from_be_bytes(number);
    let mut length = [0; LENGTH_BYTES];
    let read = file.read_exact_at(&mut length, first);
    let next = first.saturating_add(LENGTH_BYTES as u64 + u64::from(u32::from_be_bytes(length)));
    if read.is_err() || next >= end {
        return file.set_len(0).at("truncate", &path);
    }
    file.write_all_at(&next.to_be_bytes(), 0).at("write", &path)
}

/// All unacknowledged events, in order. None where there is no journal.
///
/// # Errors
/// What the kernel says.
pub fn read(bundle: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let path = bundle.join(NAME);
    let file = match File::open(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.at("open", &path)?,
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .at("read", &path)?;
    Ok(records(&bytes))
}

fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let Some(header) = bytes.first_chunk() else {
        return records;
    };
    let mut at = usize::try_from(u64::from_be_bytes(*header)).unwrap_or(usize::MAX);
    while let Some((length, rest)) = bytes.get(at..).and_then(<[u8]>::split_first_chunk) {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(record) = rest.get(..length) else {
            break;
        };
        records.push(record.to_vec());
        at += LENGTH_BYTES + length;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_acknowledged_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        for event in [&b"one"[..], b"two", b"three"] {
            append(dir.path(), event).unwrap();
        }
        acknowledge(dir.path()).unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            [b"two".to_vec(), b"three".to_vec()]
        );
        acknowledge(dir.path()).unwrap();
        append(dir.path(), b"four").unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            [b"three".to_vec(), b"four".to_vec()]
        );
        acknowledge(dir.path()).unwrap();
        acknowledge(dir.path()).unwrap();
        assert_eq!(
            std::fs::metadata(dir.path().join(NAME)).unwrap().len(),
            0,
            "nothing is left over"
        );
        append(dir.path(), b"five").unwrap();
        assert_eq!(read(dir.path()).unwrap(), [b"five".to_vec()]);
    }

    #[test]
    fn a_cut_record_is_not_read() {
        let mut bytes = HEADER_BYTES.to_be_bytes().to_vec();
        bytes.extend(b"\0\0\0\x02ab\0\0\0\x09cut");
        assert_eq!(records(&bytes), [b"ab".to_vec()]);
        assert!(records(b"\0\0").is_empty());
        assert!(records(&u64::MAX.to_be_bytes()).is_empty());
    }
}
