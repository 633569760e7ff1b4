//! What is in use: all that transactions in flight, roots, the builder's cache and references name.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use rustix::fs::RenameFlags;

use super::announced::Lines;
use super::kept::Kept;
use crate::blobs::read_checked;
use crate::digest::{ChainId, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::identity;
use crate::image::{DOCUMENT_BYTES_MAX, Names, RootFs};
use crate::lock::{Lock, Mode};
use crate::processors::on_all_processors;
use crate::refs::{RefTargets, read_record};
use crate::store::{self, Store};

/// Largest file of the builder's cache that is searched for digests, in bytes; a step's record has some KiB.
const CACHE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest folder below the cache that is searched.
const CACHE_DEPTH_MAX: usize = 8;
/// A file directly below `tmp/` lives for the moment between its creation and its renaming; after a day its writer is dead.
const STRAY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Who asks what is in use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Own<'a> {
    /// The collector: its own folder below `tmp/`, if it has one, counts for nothing, and those of the dead are removed.
    Collector(Option<&'a Path>),
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
        matches!(self, Own::Collector(Some(own)) if own == path)
    }

    fn removes(self) -> bool {
        matches!(self, Own::Collector(_))
    }

    /// Moves what a dead transaction left out of the way; it is removed when nobody waits for that.
    fn throw_away(self, path: &Path) -> Result<(), Error> {
        let Own::Collector(own) = self else {
            return Ok(());
        };
        if let Some(own) = own.filter(|_| identity::own().is_root) {
            let target = own.join(store::unique_name("trash")?);
            return store::rename_directory(path, &target, RenameFlags::empty())
                .context("move away", path);
        }
        match dirs::remove(path) {
            // It holds files of subordinate ids: the next build removes it, in a namespace that has them.
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            removed => removed.context("remove", path),
        }
    }
}

impl Store {
    /// All digests that are in use.
    pub(super) fn kept(&self, own: Own<'_>) -> Result<Kept, Error> {
        let mut kept = Kept::default();
        for digest in self.wanted(own)? {
            // What a transaction has only begun to fetch cannot be read yet; it announces the rest itself.
            let _ = self.keep_all_of(&digest, &mut kept);
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
        let paths = {
            // While names are replaced, a list of them may miss one.
            let _renaming = Lock::acquire(&self.lock_path("refs"), Mode::Exclusive)?;
            self.ref_paths()?
        };
        let parts = on_all_processors(&paths, |part| self.named(part))?;
        Ok(parts.into_iter().fold(kept, Kept::joined))
    }

    /// All digests that the references at `paths` name.
    fn named(&self, paths: &[PathBuf]) -> Result<Kept, Error> {
        let mut kept = Kept::default();
        for path in paths {
            let Some(record) = read_record::<RefTargets>(path)? else {
                continue;
            };
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
                Ok(Some(_dead)) => own.throw_away(&path)?,
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
    pub(super) fn keep_all_of(&self, digest: &Digest, kept: &mut Kept) -> Result<(), Error> {
        if !kept.insert(digest) {
            return Ok(());
        }
        let (file, size) = self.open_blob(digest)?;
        if size > DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        let bytes = read_checked(file, digest, size)?;
        let names = Names::parse(&bytes).map_err(|source| Error::Document {
            what: digest.to_string(),
            source,
        })?;
        match names {
            Names::Index(manifests) => {
                // Manifests of platforms that were not pulled are not here.
                let mut here = manifests.iter().filter(|manifest| self.has_blob(manifest));
                here.try_for_each(|manifest| self.keep_all_of(manifest, kept))
            }
            // What is no container image has no layers of ours.
            Names::Artifact(blobs) => {
                kept.extend(blobs);
                Ok(())
            }
            Names::Image { config, layers } => {
                kept.insert(&config);
                kept.extend(layers);
                self.keep_layers_of(&config, kept)
            }
        }
    }

    /// Adds the layers of configuration `digest`.
    fn keep_layers_of(&self, digest: &Digest, kept: &mut Kept) -> Result<(), Error> {
        let (file, size) = self.open_blob(digest)?;
        if size > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: format!("blob {digest}"),
                size,
                max: DOCUMENT_BYTES_MAX,
            });
        }
        let config = read_checked(file, digest, size)?;
        let config: Layers = serde_json::from_slice(&config).map_err(|source| Error::Json {
            what: digest.to_string(),
            source,
        })?;
        let layers = &config.rootfs.diff_ids;
        kept.extend(layers.iter().map(|layer| layer.0));
        // Builds use the lower parts of a chain, too, but settle them again in a moment.
        kept.extend(ChainId::of(layers).map(|chain| chain.0));
        Ok(())
    }
}

fn read_wants(path: &PathBuf) -> Result<Vec<Digest>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Lines::read(&text).collect()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(err).context("read", path),
    }
}

/// Finds all digests in the text of the builder's cache, whatever its format: a step's record names the layers it made.
fn search_cache(folder: &Path, depth: usize, kept: &mut Kept) -> io::Result<()> {
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
