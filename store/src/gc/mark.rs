//! What is in use: all that transactions in flight, roots, the builder's cache and references name.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::blobs::read_checked;
use crate::digest::{ChainId, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::identity;
use crate::image::{DOCUMENT_BYTES_MAX, Document, RootFs};
use crate::lock::Lock;
use crate::processors::on_all_processors;
use crate::refs::RefRecord;
use crate::store::Store;

/// Largest file of the builder's cache that is searched for digests, in bytes; a step's record has some KiB.
const CACHE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest folder below the cache that is searched.
const CACHE_DEPTH_MAX: usize = 8;
/// A file directly below `tmp/` lives for the moment between its creation and its renaming; after a day its writer is dead.
const STRAY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Who asks what is in use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Own<'a> {
    /// The collector: its own folder below `tmp/` counts for nothing, and those of the dead are removed.
    Collector(&'a Path),
    /// Somebody who only looks.
    Looker,
}

/// Of an image's configuration, what names content of the store.
#[derive(Deserialize)]
struct Layers {
    rootfs: RootFs,
}

impl Own<'_> {
    fn is(self, path: &Path) -> bool {
        matches!(self, Own::Collector(own) if own == path)
    }

    fn removes(self) -> bool {
        matches!(self, Own::Collector(_))
    }
}

impl Store {
    /// All digests that are in use.
    pub(super) fn kept(&self, own: Own<'_>) -> Result<HashSet<Digest>, Error> {
        let mut kept = HashSet::new();
        for digest in self.wanted(own)? {
            // What a transaction has only begun to fetch cannot be read yet; it announces the rest itself.
            let _ = self.keep_all_of(&digest, &mut kept);
            kept.insert(digest);
        }
        for root in self.root_records()? {
            kept.extend(root.layers.iter().map(|layer| layer.0));
            kept.extend(ChainId::of(&root.layers).map(|chain| chain.0));
            if let Some(manifest) = root.manifest {
                self.keep_all_of(&manifest, &mut kept)?;
            }
        }
        let cache = self.folder("cache");
        search_cache(&cache, CACHE_DEPTH_MAX, &mut kept).context("read", &cache)?;
        let records = self.list_refs()?;
        for part in on_all_processors(&records, |part| self.named(part))? {
            kept = joined(kept, part);
        }
        Ok(kept)
    }

    /// All digests that references name.
    fn named(&self, records: &[RefRecord]) -> Result<HashSet<Digest>, Error> {
        let mut kept = HashSet::new();
        for record in records {
            // What was packed for a registry is kept for the next one, as far as it is here.
            if let Some(pushed) = &record.pushed {
                let _ = self.keep_all_of(&pushed.digest, &mut kept);
            }
            let named = self.keep_all_of(&record.target.digest, &mut kept);
            named.map_err(|source| Error::Name {
                name: record.name.familiar(),
                source: Box::new(source),
            })?;
        }
        Ok(kept)
    }

    /// What transactions in flight want. The folders of dead ones are removed.
    fn wanted(&self, own: Own<'_>) -> Result<Vec<Digest>, Error> {
        let folder = self.folder("tmp");
        let mut wanted = Vec::new();
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            let path = entry.path();
            if own.is(&path) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !metadata.is_dir() {
                let age = metadata
                    .modified()
                    .ok()
                    .and_then(|time| SystemTime::now().duration_since(time).ok());
                if own.removes() && age.is_some_and(|age| age > STRAY_AGE) {
                    dirs::remove(&path).context("remove", &path)?;
                }
                continue;
            }
            match Lock::try_exclusive(&path.join("lock")) {
                Ok(None) => wanted.extend(read_wants(&path.join("wants"))?),
                Ok(Some(_dead)) if own.removes() => match dirs::remove(&path) {
                    // It holds files of subordinate ids: the next build removes it, in a namespace that has them.
                    Err(err)
                        if err.kind() == io::ErrorKind::PermissionDenied
                            && !identity::own().is_root => {}
                    removed => removed.context("remove", &path)?,
                },
                Ok(Some(_dead)) => {}
                // It was ended while it was removing itself, or it is doing so now: two may.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    if own.removes() {
                        let _ = dirs::remove(&path);
                    }
                }
                // Who cannot be asked lives.
                Err(_) => {}
            }
        }
        Ok(wanted)
    }

    /// Adds document `digest` and everything it names that is here.
    pub(super) fn keep_all_of(
        &self,
        digest: &Digest,
        kept: &mut HashSet<Digest>,
    ) -> Result<(), Error> {
        if !kept.insert(*digest) {
            return Ok(());
        }
        let (file, size) = self.open_blob(digest)?;
        if size > DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        let bytes = read_checked(file, digest, size)?;
        let document = Document::parse(&bytes, None).map_err(|source| Error::Document {
            what: digest.to_string(),
            source,
        })?;
        match document {
            Document::Index(index) => {
                // Manifests of platforms that were not pulled are not here.
                let here = index
                    .manifests
                    .iter()
                    .filter(|manifest| self.has_blob(&manifest.digest));
                here.into_iter()
                    .try_for_each(|manifest| self.keep_all_of(&manifest.digest, kept))
            }
            Document::Manifest(manifest) => {
                kept.insert(manifest.config.digest);
                kept.extend(manifest.layers.iter().map(|layer| layer.digest));
                // What is no container image (an artifact) has no layers of ours.
                if !manifest.is_image() {
                    return Ok(());
                }
                let config = self.read_blob(&manifest.config.digest, manifest.config.size)?;
                let config: Layers =
                    serde_json::from_slice(&config).map_err(|source| Error::Json {
                        what: manifest.config.digest.to_string(),
                        source,
                    })?;
                let layers = &config.rootfs.diff_ids;
                kept.extend(layers.iter().map(|layer| layer.0));
                // Builds use the lower parts of a chain, too, but settle them again in a moment.
                kept.extend(ChainId::of(layers).map(|chain| chain.0));
                Ok(())
            }
        }
    }
}

/// Both sets as one; the larger one grows.
fn joined(a: HashSet<Digest>, b: HashSet<Digest>) -> HashSet<Digest> {
    let (mut larger, smaller) = if a.len() < b.len() { (b, a) } else { (a, b) };
    larger.extend(smaller);
    larger
}

fn read_wants(path: &PathBuf) -> Result<Vec<Digest>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(err).context("read", path),
    }
}

/// Finds all digests in the text of the builder's cache, whatever its format: a step's record names the layers it made.
fn search_cache(folder: &Path, depth: usize, kept: &mut HashSet<Digest>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() && depth > 0 {
            search_cache(&entry.path(), depth - 1, kept)?;
        } else if metadata.is_file() && metadata.len() <= CACHE_FILE_BYTES_MAX {
            let mut bytes = Vec::new();
            match fs::File::open(entry.path()) {
                Ok(file) => file.take(CACHE_FILE_BYTES_MAX).read_to_end(&mut bytes)?,
                // The builder replaces its files as it goes.
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err),
            };
            kept.extend(digests_in(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(())
}

fn digests_in(text: &str) -> impl Iterator<Item = Digest> {
    text.match_indices("sha256:")
        .filter_map(|(at, _)| text.get(at..at + 7 + 64)?.parse().ok())
}
