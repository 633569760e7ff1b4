//! What a container's bundle says about its first process, for who looks after
//! a death of ours: `BUNDLE/init.json`, replaced whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bundle;
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

    /// What becomes of the process, if it can still be seen.
    #[must_use]
    pub fn look(&self) -> Option<Seen> {
        if self.boot != boot_id() {
            return None;
        }
        let path = format!("/proc/{}/stat", self.process.pid);
        let text = bundle::read_text(Path::new(&path)).ok()?;
        let (start, seen) = seen(&text)?;
        (start == self.process.start).then_some(seen)
    }
}

/// A process, as the process table shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It lives.
    Alive,
    /// It ended with this status, as wait(2) encodes it, and waits for its parent to ask.
    Ended(i32),
}

/// When a process began, and how it is, from the text of its `stat`. `proc_pid_stat(5)`.
fn seen(stat: &str) -> Option<(u64, Seen)> {
    // The name may hold blanks and parentheses: fields are counted after its last one.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied(); // the first one here is number 3
    let start = field(22)?.parse().ok()?;
    let seen = match field(3)? {
        "Z" | "X" => Seen::Ended(field(52)?.parse().ok()?),
        _ => Seen::Alive,
    };
    Some((start, seen))
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
        assert_eq!(Record::read(dir.path()).unwrap().look(), Some(Seen::Alive));
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
        assert_eq!(record.look(), None);
    }

    #[test]
    fn a_process_that_nobody_asked_for_tells_its_status() {
        let mut child = std::process::Command::new("/bin/sh");
        let mut child = child
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let record = Record::of(i32::try_from(child.id()).unwrap());
        assert_eq!(record.look(), Some(Seen::Alive));
        drop(child.stdin.take());
        while record.look() == Some(Seen::Alive) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(record.look(), Some(Seen::Ended(7 << 8)));
        child.wait().unwrap();
        assert_eq!(record.look(), None);
    }
}
