//! What takes room: by kind, and by image.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::kept::Kept;
use super::mark::Own;
use super::{FOLDERS, Store};
use crate::digest::{Algorithm, Digest};
use crate::error::{Context, Error};
use crate::lock::{Lock, Mode};
use crate::reference::Reference;

/// Bytes of a block as stat(2) counts them, whatever the file system's own are.
const STAT_BLOCK_BYTES: u64 = 512;

/// What one kind of content takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Which: `blobs`, `layers`, `indexes`, `directories`, `corrections`, `records`, `cache` (of builds),
    /// `unfinished` (transactions in flight, or dead).
    pub kind: &'static str,
    /// Files, and directories of layers.
    pub files: u64,
    /// Bytes on disk. A layer that was made here is tar and blob in one file, which counts once, as blob.
    pub size: u64,
    /// Files of these that `gc` would remove.
    pub garbage_files: u64,
    /// Bytes on disk that `gc` would free.
    pub garbage: u64,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its name.
    pub name: Reference,
    /// When the name was last given here; RFC 3339.
    pub updated: String,
    /// Whether a container uses it.
    pub in_use: bool,
    /// Bytes on disk of all that belongs to it.
    pub size: u64,
    /// Those that no other name needs, too: what its removal would free.
    pub unique: u64,
}

/// Files by device and inode, and their bytes on disk: names of one file count once.
pub(super) type Files = HashMap<(u64, u64), u64>;

/// The folders of the store, by the kinds that [`Usage`] names.
const KINDS: [(&str, &[&str]); 6] = [
    ("blobs", &["blobs"]),
    ("layers", &["tars"]),
    ("indexes", &["index"]),
    ("directories", &["dirs"]),
    ("corrections", &["images"]),
    ("records", &["layers", "packed"]),
];

impl Store {
    /// What takes room, and what of it `gc` would remove. Removes nothing. What comes and goes meanwhile may be missed.
    pub fn usage(&self) -> Result<Vec<Usage>, Error> {
        let kept = {
            let _gc = self.gc_lock(Mode::Exclusive)?;
            self.kept(Own::Looker)?
        };
        let mut seen = HashSet::new();
        let mut usages = Vec::new();
        for (kind, folders) in KINDS {
            let mut usage = Usage::new(kind);
            for folder in folders {
                self.each_file(folder, |entry, digest| {
                    let is_garbage = !digest.is_some_and(|digest| kept.contains(&digest));
                    let mut files = Files::new();
                    add(&entry.path(), &mut files).context("stat", entry.path())?;
                    usage.add(files, &mut seen, is_garbage);
                    Ok(())
                })?;
            }
            usages.push(usage);
        }
        usages.push(self.folder_usage("cache", "cache", &mut seen)?);
        usages.push(self.folder_usage("unfinished", "tmp", &mut seen)?);
        Ok(usages)
    }

    /// What lies in a folder that is not named by digests. Of transactions, the dead ones are garbage.
    fn folder_usage(
        &self,
        kind: &'static str,
        folder: &str,
        seen: &mut HashSet<(u64, u64)>,
    ) -> Result<Usage, Error> {
        let mut usage = Usage::new(kind);
        let folder = self.folder(folder);
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let path = entry.context("list", &folder)?.path();
            let is_dead = matches!(Lock::try_exclusive(&path.join("lock")), Ok(Some(_)));
            let mut files = Files::new();
            add(&path, &mut files).context("stat", &path)?;
            usage.add(files, seen, kind == "unfinished" && is_dead);
        }
        Ok(usage)
    }

    /// What each image takes, by name.
    pub fn image_usage(&self) -> Result<Vec<ImageUsage>, Error> {
        let mut usages = Vec::new();
        let mut users: HashMap<(u64, u64), usize> = HashMap::new();
        let mut all = Vec::new();
        for record in self.list_refs()? {
            let mut digests = Kept::default();
            let known = self.keep_all_of(&record.target.digest, &mut digests);
            let images = known.and_then(|()| self.images_of(&record.target));
            let Some(images) = self.unless_gone(&record, images)? else {
                continue;
            };
            let files = self.files_of(&digests)?;
            for file in files.keys() {
                *users.entry(*file).or_default() += 1;
            }
            all.push((record, images, files));
        }
        let in_use = self.manifests_in_use()?;
        for (record, images, files) in all {
            let unique = files
                .iter()
                .filter(|(file, _)| users.get(*file) == Some(&1));
            usages.push(ImageUsage {
                name: record.name,
                updated: record.updated,
                in_use: images
                    .iter()
                    .any(|image| in_use.contains(&image.manifest_digest())),
                size: files.values().sum(),
                unique: unique.map(|(_, bytes)| bytes).sum(),
            });
        }
        Ok(usages)
    }

    /// The manifests that containers were made from.
    pub(super) fn manifests_in_use(&self) -> Result<HashSet<Digest>, Error> {
        let roots = self.root_records()?;
        Ok(roots.into_iter().filter_map(|root| root.manifest).collect())
    }

    /// All files named by these digests.
    pub(super) fn files_of(&self, digests: &Kept) -> Result<Files, Error> {
        let mut files = Files::new();
        for folder in FOLDERS {
            for algorithm in Algorithm::ALL {
                let path = self.folder(folder).join(algorithm.name());
                let named = digests
                    .iter()
                    .filter(|digest| digest.algorithm() == algorithm);
                for digest in named {
                    for name in [digest.hex(), format!("{}.dir", digest.hex())] {
                        let path = path.join(name);
                        add(&path, &mut files).context("stat", &path)?;
                    }
                }
            }
        }
        Ok(files)
    }
}

impl Usage {
    fn new(kind: &'static str) -> Usage {
        Usage {
            kind,
            files: 0,
            size: 0,
            garbage_files: 0,
            garbage: 0,
        }
    }

    fn add(&mut self, files: Files, seen: &mut HashSet<(u64, u64)>, is_garbage: bool) {
        let new = files.into_iter().filter(|(file, _)| seen.insert(*file));
        let bytes: u64 = new.map(|(_, bytes)| bytes).sum();
        self.files += 1;
        self.size += bytes;
        if is_garbage {
            self.garbage_files += 1;
            self.garbage += bytes;
        }
    }
}

/// Adds what is at `path`, with all that is in it. What is gone meanwhile, or lies deeper than a path reaches, is nothing.
fn add(path: &Path, files: &mut Files) -> io::Result<()> {
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(err) if is_out_of_reach(&err) => continue,
            other => other?,
        };
        files.insert(
            (metadata.dev(), metadata.ino()),
            metadata.blocks() * STAT_BLOCK_BYTES,
        );
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Err(err) if is_out_of_reach(&err) => {}
                entries => {
                    for entry in entries? {
                        pending.push(entry?.path());
                    }
                }
            }
        }
    }
    Ok(())
}

fn is_out_of_reach(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidFilename
    )
}
