//! What a container's bundle says about its first process, for who looks after
//! a death of ours: `BUNDLE/init.json`, replaced whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::container::status::{Process, boot_id};
use crate::error::At as _;

const NAME: &str = "init.json";
/// The same while it is written.
const SPACE: &str = ".init.json";
/// Longest record read, in bytes; ours have about 150.
const BYTES_MAX: u64 = 4096;

/// The first process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot in which the pid means something.
    pub boot: String,
    /// The process; its start is 0 where it had ended before it could be looked at.
    pub process: Process,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Ended>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its status; 128 and the signal's number for one that was killed.
    pub status: u32,
    /// When, since 1970.
    pub seconds: i64,
    /// And how much later.
    pub nanos: i32,
}

impl Record {
    /// Of a process that was just made.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        Self {
            boot: boot_id(),
            process: Process::of(pid).unwrap_or(Process { pid, start: 0 }),
            exit: None,
        }
    }

    /// Puts it into `bundle`. A reader sees the old one or this one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, bundle: &Path) -> Result<(), Error> {
        let (space, path) = (bundle.join(SPACE), bundle.join(NAME));
        let text = serde_json::to_vec(self).map_err(|source| Error::Json {
            what: path.display().to_string(),
            source,
        })?;
        std::fs::write(&space, text).at("write", &space)?;
        std::fs::rename(&space, &path).at("rename", &path)
    }

    /// What `bundle` holds; `None` where nothing, or nothing whole.
    #[must_use]
    pub fn read(bundle: &Path) -> Option<Self> {
        use std::io::Read as _;
        let mut text = Vec::new();
        let file = std::fs::File::open(bundle.join(NAME)).ok()?;
        file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The process, if it still lives.
    #[must_use]
    pub fn living(&self) -> Option<Process> {
        (self.boot == boot_id() && self.process.is_alive()).then_some(self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()), None);
        let mut record = Record::of(i32::try_from(std::process::id()).unwrap());
        record.write(dir.path()).unwrap();
        assert!(Record::read(dir.path()).unwrap().living().is_some());
        record.exit = Some(Ended {
            status: 137,
            seconds: 5,
            nanos: 6,
        });
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()), Some(record));
        std::fs::write(dir.path().join(NAME), "{\"torn").unwrap();
        assert_eq!(Record::read(dir.path()), None);
    }

    #[test]
    fn a_process_of_another_boot_does_not_live() {
        let mut record = Record::of(i32::try_from(std::process::id()).unwrap());
        record.boot = "before".into();
        assert_eq!(record.living(), None);
    }
}
