//! The step cache: what a step does and sees -> the layer it made.
//!
//! ```text
//! cache/steps/<key>        {"layer": "sha256:..."}; replaced by rename
//! cache/steps/<key>.lock   flock while the step runs: two builds do not do the same work at once
//! ```
//!
//! Every record may vanish at any time; a record whose layer is gone is no record. Nothing
//! secret is in a key or a record.

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use teu_store::DiffId;

/// Changes when keys or records change their meaning: older ones are then never found.
const VERSION: u32 = 1;

/// Largest record, in bytes: a digest and its braces.
const RECORD_BYTES_MAX: u64 = 4096;

/// How often a build that waits for another's step looks whether it was cancelled.
const WAIT: Duration = Duration::from_millis(20);

/// What identifies a step's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of everything in `material`, which must serialize deterministically (no hash maps).
    ///
    /// # Errors
    /// The material cannot be serialized.
    pub fn of(material: &impl Serialize) -> Result<Self, serde_json::Error> {
        let bytes = serde_json::to_vec(&(VERSION, material))?;
        Ok(Self(
            Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ))
    }
}

/// The folder of records.
#[derive(Debug)]
pub struct StepCache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    layer: DiffId,
}

/// A step that this process may run: nobody else runs one of the same key. Released when dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held for its lock")] File);

impl StepCache {
    /// Uses the folder `cache` of a store.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(cache: &Path) -> std::io::Result<Self> {
        let folder = cache.join("steps");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The layer that a step of this key made.
    pub fn find(&self, key: &Key) -> Option<DiffId> {
        let mut text = String::new();
        File::open(self.folder.join(&key.0))
            .ok()?
            .take(RECORD_BYTES_MAX)
            .read_to_string(&mut text)
            .ok()?;
        serde_json::from_str::<Record>(&text)
            .ok()
            .map(|record| record.layer)
    }

    /// Remembers the layer of a key. Failure costs only time in a later build.
    pub fn remember(&self, key: &Key, layer: &DiffId) {
        let unfinished = self
            .folder
            .join(format!("{}.{}.tmp", key.0, std::process::id()));
        let written = serde_json::to_vec(&Record { layer: *layer })
            .is_ok_and(|bytes| std::fs::write(&unfinished, bytes).is_ok());
        if !written || std::fs::rename(&unfinished, self.folder.join(&key.0)).is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
    }

    /// Waits until no other process runs a step of this key; `None` if `cancelled` says so first,
    /// or if locks do not work here, which costs at most double work.
    pub fn take_turn(&self, key: &Key, cancelled: &dyn Fn() -> bool) -> Option<Turn> {
        let path = self.folder.join(format!("{}.lock", key.0));
        let file = File::options().create(true).append(true).open(path).ok()?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Turn(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if !cancelled() => std::thread::sleep(WAIT),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_torn_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StepCache::open(dir.path()).unwrap();
        let (one, two) = (Key::of(&"one").unwrap(), Key::of(&"two").unwrap());
        assert_ne!(one, two);
        let layer = DiffId(teu_store::Digest::of(b"x"));
        cache.remember(&one, &layer);
        assert_eq!((cache.find(&one), cache.find(&two)), (Some(layer), None));
        std::fs::write(dir.path().join("steps").join(&one.0), "{").unwrap();
        assert_eq!(cache.find(&one), None);
    }

    #[test]
    fn turns_are_taken_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StepCache::open(dir.path()).unwrap();
        let key = Key::of(&"k").unwrap();
        let turn = cache.take_turn(&key, &|| false);
        assert!(turn.is_some());
        assert!(cache.take_turn(&key, &|| true).is_none());
        drop(turn);
        assert!(cache.take_turn(&key, &|| true).is_some());
    }
}
