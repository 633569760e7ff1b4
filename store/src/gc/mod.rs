//! Removes what nothing names.
//!
//! Holding the gc lock alone, it reads what everybody wants, in this order: transactions in flight, roots, the builder's
//! cache, references. A transaction sets its reference before it ends, and a new one cannot announce anything
//! meanwhile: so whatever is used stands in at least one of them when it is read. Then it unlinks the rest.
//! Killed on its way, the next one finishes.

mod mark;
mod prune;
mod usage;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::digest::{Algorithm, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::identity;
use crate::lock::Mode;
use crate::store::{self, OWNED, Store};

use mark::Own;

pub use prune::{PrunePolicy, Pruned};
pub use usage::{ImageUsage, Usage};

/// A layer's record vouches for its other files, so it goes first.
const FOLDERS: [&str; 7] = [
    "layers", "images", "index", "dirs", "tars", "packed", "blobs",
];

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
            let kept = self.kept(Own::Collector(trash.scratch()))?;
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

    fn sweep(&self, kept: &HashSet<Digest>, trash: &Path) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        // Only within a namespace that has their ids can these be removed, too.
        let is_lent = identity::own().is_lent;
        let folders = FOLDERS.iter().chain(is_lent.then_some(&OWNED));
        for folder in folders {
            self.each_file(folder, |entry, digest| {
                let is_kept = digest.is_some_and(|digest| kept.contains(&digest));
                let is_out_of_reach = !is_lent && is_owned(&entry.file_name());
                match is_kept || is_out_of_reach {
                    true => Ok(()),
                    false => discard(entry, trash, &mut removed),
                }
            })?;
        }
        Ok(removed)
    }

    /// Calls `each` for all that is in one of [`FOLDERS`], with the digest that it is named by.
    fn each_file(
        &self,
        folder: &str,
        mut each: impl FnMut(&fs::DirEntry, Option<Digest>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for algorithm in Algorithm::ALL {
            let path = self.folder(folder).join(algorithm.name());
            for entry in fs::read_dir(&path).context("list", &path)? {
                let entry = entry.context("list", &path)?;
                each(&entry, named(algorithm, &entry.file_name()))?;
            }
        }
        Ok(())
    }
}

/// The digest that a file of a folder is named by; `.dir` or `.owned` at its end says that it is a directory.
fn named(algorithm: Algorithm, name: &std::ffi::OsStr) -> Option<Digest> {
    let hex = name.to_str()?;
    let hex = hex.split_once('.').map_or(hex, |(hex, _)| hex);
    format!("{}:{hex}", algorithm.name()).parse().ok()
}

/// Whether a chain's corrections belong to subordinate ids.
fn is_owned(name: &std::ffi::OsStr) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == OWNED)
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
        return store::rename_directory(&path, &target, rustix::fs::RenameFlags::empty())
            .context("move away", &path);
    }
    // A tar that is a blob, too, gives its space back only with its last name.
    if std::os::unix::fs::MetadataExt::nlink(&metadata) == 1 {
        removed.bytes += metadata.len();
    }
    fs::remove_file(&path).context("remove", &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use crate::image::ImageConfig;

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
