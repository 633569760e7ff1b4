//! Removes what nothing names.
//!
//! Holding the gc lock alone, it reads what everybody wants, in this order: transactions in flight, roots, the builder's
//! cache, references. A transaction sets its reference before it ends, and a new one cannot announce anything
//! meanwhile: so whatever is used stands in at least one of them when it is read. Then it unlinks the rest.
//! Killed on its way, the next one finishes.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::{Algorithm, ChainId, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::image::{DOCUMENT_BYTES_MAX, Document, ImageConfig, media_type};
use crate::lock::{Lock, Mode};
use crate::store::{self, Store};

/// A layer's record vouches for its other files, so it goes first.
const FOLDERS: [&str; 7] = [
    "layers", "images", "index", "dirs", "tars", "packed", "blobs",
];
/// Largest file of the builder's cache that is searched for digests, in bytes; a step's record has some KiB.
const CACHE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest folder below the cache that is searched.
const CACHE_DEPTH_MAX: usize = 8;
/// A file directly below `tmp/` lives for the moment between its creation and its renaming; after a day its writer is dead.
const STRAY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, and directories of layers.
    pub files: u64,
    /// Bytes of the files on disk.
    pub bytes: u64,
}

impl Store {
    /// Removes what no reference, root, transaction or cached build step names, and unmounts what no root names.
    /// Safe beside anything else that uses the store. An image that cannot be read stops it, because
    /// what belongs to that image is unknown then.
    pub fn gc(&self) -> Result<Removed, Error> {
        self.drop_views()?;
        // Taken before the lock, because taking it needs that lock; the trash goes when it is dropped, without the lock.
        let trash = self.begin()?;
        let removed = {
            let _gc = self.gc_lock(Mode::Exclusive)?;
            let kept = self.kept(trash.scratch())?;
            self.sweep(&kept, trash.scratch())?
        };
        Ok(removed)
    }

    /// As [`Store::gc`], and the builder's cache goes, too: the next build starts cold.
    pub fn gc_all(&self) -> Result<Removed, Error> {
        let cache = self.folder("cache");
        for entry in fs::read_dir(&cache).context("list", &cache)? {
            let path = entry.context("list", &cache)?.path();
            dirs::remove(&path).context("remove", &path)?;
        }
        self.gc()
    }

    /// All digests that are in use.
    fn kept(&self, own: &Path) -> Result<HashSet<Digest>, Error> {
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
        for record in self.list_refs()? {
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
    fn wanted(&self, own: &Path) -> Result<Vec<Digest>, Error> {
        let folder = self.folder("tmp");
        let mut wanted = Vec::new();
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            let path = entry.path();
            if path == own {
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
                if age.is_some_and(|age| age > STRAY_AGE) {
                    dirs::remove(&path).context("remove", &path)?;
                }
                continue;
            }
            match Lock::try_exclusive(&path.join("lock")) {
                Ok(None) => wanted.extend(read_wants(&path.join("wants"))?),
                Ok(Some(_dead)) => dirs::remove(&path).context("remove", &path)?,
                // It has just ended and is removing itself.
                Err(_) => {}
            }
        }
        Ok(wanted)
    }

    /// Adds document `digest` and everything it names that is here.
    fn keep_all_of(&self, digest: &Digest, kept: &mut HashSet<Digest>) -> Result<(), Error> {
        if !kept.insert(*digest) {
            return Ok(());
        }
        let (_, size) = self.open_blob(digest)?;
        if size > DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        let bytes = self.read_blob(digest, size)?;
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
                if !matches!(
                    &*manifest.config.media_type,
                    media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
                ) {
                    return Ok(());
                }
                let config = self.read_blob(&manifest.config.digest, manifest.config.size)?;
                let config: ImageConfig =
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

    fn sweep(&self, kept: &HashSet<Digest>, trash: &Path) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for folder in FOLDERS {
            for algorithm in Algorithm::ALL {
                let path = self.folder(folder).join(algorithm.name());
                for entry in fs::read_dir(&path).context("list", &path)? {
                    let entry = entry.context("list", &path)?;
                    if named(algorithm, &entry.file_name())
                        .is_some_and(|digest| kept.contains(&digest))
                    {
                        continue;
                    }
                    discard(&entry, trash, &mut removed)?;
                }
            }
        }
        Ok(removed)
    }
}

/// The digest that a file of a folder is named by; `.dir` at its end says that it is a directory.
fn named(algorithm: Algorithm, name: &std::ffi::OsStr) -> Option<Digest> {
    let hex = name.to_str()?;
    let hex = hex.strip_suffix(".dir").unwrap_or(hex);
    format!("{}:{hex}", algorithm.name()).parse().ok()
}

/// Removes a file; moves a directory to the trash, where it is removed without the lock.
fn discard(entry: &fs::DirEntry, trash: &Path, removed: &mut Removed) -> Result<(), Error> {
    let path = entry.path();
    let metadata = match entry.metadata() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.context("stat", &path)?,
    };
    removed.files += 1;
    if metadata.is_dir() {
        let target = trash.join(store::unique_name("trash")?);
        return fs::rename(&path, &target).context("move away", &path);
    }
    // A tar that is a blob, too, gives its space back only with its last name.
    if std::os::unix::fs::MetadataExt::nlink(&metadata) == 1 {
        removed.bytes += metadata.len();
    }
    fs::remove_file(&path).context("remove", &path)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use crate::tar::{Attributes, Writer};
    use crate::{Backend, Layer, Reference, Transaction};

    fn layer(work: &Transaction, content: &str) -> Layer {
        let mut tar = Writer::new(work.layer_writer().unwrap());
        tar.file(
            content.as_bytes(),
            &Attributes::default(),
            content.len() as u64,
            content.as_bytes(),
        )
        .unwrap();
        let mut writer = tar.finish().unwrap();
        writer.flush().unwrap();
        writer.finish().unwrap()
    }

    fn store(dir: &Path) -> Option<Store> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED gc: needs root");
            return None;
        }
        let mut store = Store::open(dir.join("store")).unwrap();
        store.force_backend(Backend::Directory);
        Some(store)
    }

    fn files(store: &Store) -> usize {
        let folders = FOLDERS
            .iter()
            .flat_map(|folder| fs::read_dir(store.folder(folder).join("sha256")).unwrap());
        folders.count()
    }

    #[test]
    fn only_what_is_named_stays() {
        let dir = tempfile::tempdir().unwrap();
        let Some(store) = store(dir.path()) else {
            return;
        };
        let name: Reference = "a".parse().unwrap();
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..ImageConfig::default()
        };
        let (named, rooted, cached);
        {
            let work = store.begin().unwrap();
            named = layer(&work, "named").diff_id;
            let lost = layer(&work, "lost").diff_id;
            rooted = layer(&work, "rooted").diff_id;
            cached = layer(&work, "cached").diff_id;
            work.put_image(config, &[work.layer(&named).unwrap().unwrap()], Some(&name))
                .unwrap();
            store.root("r", &[rooted]).unwrap();
            fs::write(
                store.folder("cache").join("step"),
                format!("{{\"layer\":\"{cached}\"}}"),
            )
            .unwrap();
            // A living transaction keeps what it made.
            store.gc().unwrap();
            assert!(store.has_layer(&lost).unwrap());
        }
        assert!(store.gc().unwrap().files > 0);
        assert!(
            [named, rooted, cached]
                .iter()
                .all(|layer| store.has_layer(layer).unwrap())
        );
        store.image(&name).unwrap();
        store.release_root("r").unwrap();
        store.gc_all().unwrap();
        assert!(store.has_layer(&named).unwrap());
        assert!(!store.has_layer(&rooted).unwrap() && !store.has_layer(&cached).unwrap());
        store.remove_ref(&name).unwrap();
        store.gc().unwrap();
        assert_eq!(files(&store), 0);
        assert_eq!(fs::read_dir(store.folder("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_the_dead_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let Some(store) = store(dir.path()) else {
            return;
        };
        let dead = store.folder("tmp").join("work-dead");
        fs::create_dir_all(dead.join("dir/deep")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("wants"), format!("{}\n", Digest::of(b"x"))).unwrap();
        store.gc().unwrap();
        assert!(!dead.exists());
    }
}
