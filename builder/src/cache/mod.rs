//! The step cache: what a step does and sees -> the layer it made.
//!
//! ```text
//! cache/steps/<key>         {"layer": "sha256:..."}; replaced by rename; its time is that of its last use
//! cache/steps/<key>.inputs  what the key was made of, for `why`: JSON, zstd
//! cache/steps/<key>.lock    flock while the step runs: two builds do not do the same work at once
//! cache/near/<sha256>       the latest keys of one instruction's text, or of one place in a Dockerfile
//! cache/mounts/<sha256>/    the directories of a cache mount: its copies 0, 1, ..., a lock each, and its name
//! cache/builds/<sha256>     what the last build of a context did with each step
//! ```
//!
//! Every file may vanish at any time; a record whose layer is gone is no record. No secret's
//! value is in a key or a record.

mod difference;
mod history;
mod inputs;
mod mounts;
mod usage;

pub use difference::{Cause, Change, causes};
pub use history::{BuildLog, LoggedStep, Outcome};
pub use inputs::{Below, FileInput, FileInputs, Inputs};
pub use mounts::{CacheMount, MountError};
pub use usage::{Kind, PruneError, Pruned, Usage, prune, usage};

use crate::exchange::Exchange;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use teu_store::DiffId;

/// Changes when keys or records change their meaning: older ones are then never found.
const VERSION: u32 = 3;

/// Largest record, in bytes: a digest and its braces.
const RECORD_BYTES_MAX: u64 = 4096;

/// How often a build that waits for another's step looks whether it was cancelled.
const WAIT: Duration = Duration::from_millis(20);

/// Both times of a file become the present; utimensat(2).
const NOW: Timestamps = Timestamps {
    last_access: PRESENT,
    last_modification: PRESENT,
};
const PRESENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW,
};

/// Tells the unfinished files of this process apart.
static UNFINISHED: AtomicUsize = AtomicUsize::new(0);

/// Most keys remembered of one text or place: enough for the branches that people switch between.
const NEAR_MAX: usize = 8;

/// Largest list of near keys, in bytes.
const NEAR_BYTES_MAX: u64 = 4096;

/// What identifies a step's result: a sha256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(String);

impl TryFrom<String> for Key {
    type Error = &'static str;

    /// Keys become file names, so nothing else passes for one.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err("not a key")
        }
    }
}

/// The sha256 of some text in hexadecimal digits: a file name for anything.
pub(crate) fn name_of(text: &[u8]) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Key {
    /// The key of everything in `material`, which must serialize deterministically (no hash maps).
    ///
    /// # Errors
    /// The material cannot be serialized.
    pub fn of(material: &impl Serialize) -> Result<Self, serde_json::Error> {
        let bytes = serde_json::to_vec(&(VERSION, material))?;
        Ok(Self(name_of(&bytes)))
    }
}

/// The folder of records.
#[derive(Debug)]
pub struct StepCache {
    cache: PathBuf,
    folder: PathBuf,
    /// What is read from and written to elsewhere.
    pub exchange: Exchange,
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
        std::fs::create_dir_all(cache.join("near"))?;
        Ok(Self {
            cache: cache.to_owned(),
            folder,
            exchange: Exchange::default(),
        })
    }

    /// The layer that a step of this key made.
    pub fn find(&self, key: &Key) -> Option<DiffId> {
        let mut text = String::new();
        let file = File::open(self.folder.join(&key.0)).ok()?;
        (&file)
            .take(RECORD_BYTES_MAX)
            .read_to_string(&mut text)
            .ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        // What is used is pruned last.
        let _ = futimens(&file, &NOW);
        Some(record.layer)
    }

    /// Remembers what a key was made of, and that it is the latest of its text and its place.
    /// Failure costs only an explanation.
    pub fn explain(&self, key: &Key, inputs: &Inputs, files: &[Box<dyn FileInputs + '_>]) {
        let path = self.folder.join(format!("{}.inputs", key.0));
        self.replace_with(&path, |out| inputs.write(files, out));
        for path in self.near_files(inputs) {
            let mut keys = read_near(&path);
            keys.retain(|other| other != key);
            keys.insert(0, key.clone());
            keys.truncate(NEAR_MAX);
            if let Ok(bytes) = serde_json::to_vec(&keys) {
                self.replace(&path, &bytes);
            }
        }
    }

    /// What the key was made of, if that is still known.
    pub fn inputs(&self, key: &Key) -> Option<Inputs> {
        Inputs::decode(File::open(self.folder.join(format!("{}.inputs", key.0))).ok()?)
    }

    /// Earlier keys of the same text or the same place, without `key` itself; latest first.
    pub fn near(&self, key: &Key, inputs: &Inputs) -> Vec<Key> {
        let mut near = Vec::new();
        for path in self.near_files(inputs) {
            for other in read_near(&path) {
                if other != *key && !near.contains(&other) {
                    near.push(other);
                }
            }
        }
        near
    }

    fn near_files(&self, inputs: &Inputs) -> [PathBuf; 2] {
        let names = [
            format!("text\0{}", inputs.text),
            format!("place\0{}\0{}", inputs.dockerfile, inputs.place),
        ];
        names.map(|name| self.cache.join("near").join(name_of(name.as_bytes())))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) {
        self.replace_with(path, |mut file| file.write_all(bytes));
    }

    fn replace_with(&self, path: &Path, write: impl FnOnce(&File) -> io::Result<()>) {
        let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
        let unfinished = self
            .folder
            .join(format!("{}-{number}.tmp", std::process::id()));
        let written = File::create(&unfinished).and_then(|file| write(&file));
        if written.is_err() || std::fs::rename(&unfinished, path).is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
    }

    /// Remembers the layer of a key. Failure costs only time in a later build.
    pub fn remember(&self, key: &Key, layer: &DiffId) {
        if let Ok(bytes) = serde_json::to_vec(&Record { layer: *layer }) {
            self.replace(&self.folder.join(&key.0), &bytes);
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

fn read_near(path: &Path) -> Vec<Key> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(NEAR_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => serde_json::from_str(&text).unwrap_or_default(),
        Err(_) => Vec::new(),
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
