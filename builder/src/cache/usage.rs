//! How much room the cache takes, and what of it goes.

use super::CacheMount;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use teu_store::{DiffId, Removed, Store};

/// Bytes of a block as `stat(2)` counts them.
const BLOCK_BYTES: u64 = 512;

/// A part of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Records of steps, with the layers that they name.
    Steps,
    /// Directories of `--mount=type=cache`.
    Mounts,
    /// Hashes of contexts, fetched sources, and what builds did.
    Sources,
}

/// What a part has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Which part.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// Bytes on disk. Layers that images have too are counted.
    pub bytes: u64,
}

/// What of the cache went, and of the store with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records and mounts.
    pub entries: u64,
    /// Files of the store that nothing names any more.
    pub removed: Removed,
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The store, while it removes what has no name any more.
    #[error(transparent)]
    Store(Box<teu_store::Error>),
}

/// What is in a folder; nothing where it is not.
pub(super) fn entries(folder: &Path) -> impl Iterator<Item = std::fs::DirEntry> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten()
}

/// The room that each part takes.
pub fn usage(store: &Store) -> Vec<Usage> {
    let cache = store.root_path().join("cache");
    let mut layers = std::collections::BTreeSet::new();
    let mut steps = Usage {
        kind: Kind::Steps,
        count: 0,
        bytes: on_disk(&cache.join("steps")) + on_disk(&cache.join("near")),
    };
    for entry in entries(&cache.join("steps")) {
        if let Some(layer) = record(&entry.path()) {
            steps.count += 1;
            if layers.insert(layer)
                && let Ok((file, _)) = store.layer_tar(&layer)
            {
                steps.bytes += file
                    .metadata()
                    .map_or(0, |meta| meta.blocks() * BLOCK_BYTES);
            }
        }
    }
    let mounts = Usage {
        kind: Kind::Mounts,
        count: CacheMount::list(&cache).len() as u64,
        bytes: on_disk(&cache.join("mounts")),
    };
    let others: Vec<_> = entries(&cache)
        .map(|entry| entry.path())
        .filter(|path| {
            !["steps", "near", "mounts"]
                .iter()
                .any(|name| path.ends_with(name))
        })
        .collect();
    let sources = Usage {
        kind: Kind::Sources,
        count: others.iter().map(|path| entries(path).count() as u64).sum(),
        bytes: others.iter().map(|path| on_disk(path)).sum(),
    };
    vec![steps, mounts, sources]
}

/// The layer that a step's record names, if the file is one.
fn record(path: &Path) -> Option<DiffId> {
    if path.extension().is_some() {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice::<super::Record>(&text)
        .ok()
        .map(|record| record.layer)
}

/// Bytes that a file or a tree takes on disk.
pub(crate) fn on_disk(path: &Path) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    let own = meta.blocks() * BLOCK_BYTES;
    if meta.is_dir() {
        own + entries(path)
            .map(|entry| on_disk(&entry.path()))
            .sum::<u64>()
    } else {
        own
    }
}

/// Removes what was not used for `unused`, of `kinds`, and then what the store holds for nobody.
/// Mounts in use stay. Safe beside builds: they lose only what they could have reused.
///
/// # Errors
/// The store refuses.
pub fn prune(store: &Store, kinds: &[Kind], unused: Duration) -> Result<Pruned, PruneError> {
    let cache = store.root_path().join("cache");
    let mut pruned = Pruned::default();
    let now = SystemTime::now();
    let is_old = |path: &Path| {
        let used = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
        used.is_ok_and(|used| now.duration_since(used).unwrap_or_default() >= unused)
    };
    for kind in kinds {
        pruned.entries += match kind {
            Kind::Steps => steps(&cache, &is_old),
            Kind::Mounts => mounts(&cache, &is_old),
            Kind::Sources => sources(&cache, &is_old),
        };
    }
    pruned.removed = store
        .gc()
        .map_err(|error| PruneError::Store(Box::new(error)))?;
    Ok(pruned)
}

/// Records go before what belongs to them; a lock goes only while nobody holds it.
fn steps(cache: &Path, is_old: &dyn Fn(&Path) -> bool) -> u64 {
    let mut count = 0;
    for folder in ["steps", "near"] {
        for entry in entries(&cache.join(folder)) {
            let path = entry.path();
            let extension = path.extension().and_then(|text| text.to_str());
            if extension == Some("lock") {
                remove_unlocked(&path);
            } else if is_old(&path) && std::fs::remove_file(&path).is_ok() {
                count += u64::from(folder == "steps" && extension.is_none());
            }
        }
    }
    count
}

/// Who waits for a lock that is removed runs its step twice, and that is all.
fn remove_unlocked(path: &Path) {
    use rustix::fs::{FlockOperation, flock};
    if let Ok(file) = std::fs::File::open(path)
        && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        let _ = std::fs::remove_file(path);
    }
}

fn mounts(cache: &Path, is_old: &dyn Fn(&Path) -> bool) -> u64 {
    let old = |mount: &CacheMount| is_old(&mount.last_use(cache));
    let list = CacheMount::list(cache);
    let removed = list
        .iter()
        .filter(|mount| old(mount) && mount.remove(cache).is_ok());
    removed.count() as u64
}

fn sources(cache: &Path, is_old: &dyn Fn(&Path) -> bool) -> u64 {
    let mut count = 0;
    for folder in ["contexts", "builds"] {
        for entry in entries(&cache.join(folder)) {
            count += u64::from(is_old(&entry.path()) && std::fs::remove_file(entry.path()).is_ok());
        }
    }
    count
}
