//! How a container ended.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::At as _;

/// Added to a signal's number to make an exit status, as shells do.
pub const SIGNAL_STATUS_BASE: i32 = 128;

/// Room for an exit record, in bytes: fixed fields of under 300 bytes and a
/// message that is cut at [`ERROR_BYTES_MAX`], escaped by JSON at worst six-fold.
const SPACE_BYTES: usize = 4096;
/// Longest error message kept in an exit record, in bytes.
const ERROR_BYTES_MAX: usize = 600;

/// The exit record: facts only. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128+n after signal n. Absent: nobody saw how it ended.
    pub status: Option<i32>,
    /// The signal that killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel's OOM killer killed a process of the container's cgroup.
    #[serde(default)]
    pub oom: bool,
    /// When its program was started; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it was seen to have ended.
    pub finished: String,
    /// Why it could not be created or started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Output that the log has no copy of, in bytes (policy "drop", or a disk that stayed full at the end).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_dropped_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reserves room for a record beside `exit`, so that it can be written when the disk is full.
///
/// # Errors
/// I/O errors.
pub fn reserve(space: &Path) -> Result<(), Error> {
    std::fs::write(space, [b' '; SPACE_BYTES]).at("write", space)
}

/// Writes the record into the reserved `space` and renames it to `exit`. Durable when it returns.
///
/// # Errors
/// I/O errors; `exit` then is old or absent.
pub fn write(record: &Exit, space: &Path, exit: &Path) -> Result<(), Error> {
    let mut record = record.clone();
    if let Some(error) = &mut record.error {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
    }
    let mut text = serde_json::to_vec(&record).map_err(|source| Error::Json {
        what: "exit record".into(),
        source,
    })?;
    text.resize(SPACE_BYTES.max(text.len()), b' '); // no truncation, no new block
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(space)
        .at("open", space)?;
    file.write_all(&text).at("write", space)?;
    file.sync_data().at("sync", space)?;
    std::fs::rename(space, exit).at("rename", space)?;
    if let Some(folder) = exit.parent() {
        File::open(folder)
            .and_then(|dir| dir.sync_all())
            .at("sync", folder)?;
    }
    Ok(())
}

/// The record at `exit`; `None` while there is none.
///
/// # Errors
/// I/O errors, or a record that is not one.
pub fn read(exit: &Path) -> Result<Option<Exit>, Error> {
    match std::fs::read(exit) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| Error::Json {
                what: exit.display().to_string(),
                source,
            }),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).at("read", exit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_fits_the_reserved_room_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (space, exit) = (dir.path().join("exit.space"), dir.path().join("exit"));
        reserve(&space).unwrap();
        assert_eq!(read(&exit).unwrap(), None);
        let record = Exit {
            status: Some(137),
            signal: Some(9),
            oom: true,
            finished: crate::clock::now(),
            error: Some("\u{1}".repeat(5000)),
            ..Exit::default()
        };
        write(&record, &space, &exit).unwrap();
        assert_eq!(std::fs::metadata(&exit).unwrap().len(), SPACE_BYTES as u64);
        let back = read(&exit).unwrap().unwrap();
        assert_eq!(back.status, Some(137));
        assert_eq!(back.error.unwrap().len(), ERROR_BYTES_MAX);
        assert!(!space.exists());
    }

    #[test]
    fn an_unknown_status_is_said_as_unknown() {
        let text = serde_json::to_string(&Exit {
            finished: "x".into(),
            ..Exit::default()
        })
        .unwrap();
        assert_eq!(text, r#"{"status":null,"oom":false,"finished":"x"}"#);
    }
}
