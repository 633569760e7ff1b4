//! Removes what nothing names.
//!
//! 1. Collectors take turns: each holds `lock/collect` from its start to its end.
//! 2. Holding the gc lock alone, it asks for announcements (see [`announced`]) and reads what everybody wants, in this
//!    order: transactions in flight, roots, the builder's cache, references. A transaction sets its reference before it
//!    ends, and a new one cannot announce anything meanwhile: so whatever is used stands in at least one of them when
//!    it is read. What is found there, and all that it names, is *kept*.
//! 3. Without the lock it looks for files that are not kept, and removes them by batches, each under the lock (see [`sweep`]).
//!    Before each batch, what was announced meanwhile is kept, too, with all that it names.
//!
//! Whoever uses something announces it *before* looking whether it is here: by 2 or 3 the collector has heard of it before
//! it removes anything more. So what is here after it was announced stays. That holds for each file: a document that is here
//! may name another that is not, because that went in an earlier batch. Who gives such a document a name looks for all that it
//! names (`Transaction::finish_image`), or for another name that it still has, whose content stays for that reason
//! (`Store::tag`). A layer's files cannot be parted like this: its record goes first, and vouches for the others.
//!
//! Killed at any point, what it has removed nobody needed, and the next one goes on with the rest.

mod announced;
mod kept;
mod mark;
mod prune;
mod sweep;
mod usage;

use std::fs;
use std::path::Path;

use crate::digest::{Algorithm, Digest};
use crate::dirs;
use crate::error::{Context, Error};
use crate::identity;
use crate::lock::{Lock, Mode};
use crate::store::{OWNED, Store};
use crate::transaction::Transaction;

use announced::Announced;
use mark::Own;
use sweep::Sweep;

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
        let _alone = Lock::acquire(&self.lock_path("collect"), Mode::Exclusive)?;
        // Taken before the lock, because taking it needs that lock; the trash goes when it is dropped, without the lock.
        let trash = match self.begin() {
            // The disk has no room for a folder, and is about to get some.
            Err(error) if error.is_full_disk() => None,
            other => Some(other?),
        };
        let trash = trash.as_ref().map(Transaction::scratch);
        let (announced, kept) = {
            let _gc = self.gc_lock(Mode::Exclusive)?;
            let announced = Announced::ask(self)?;
            (announced, self.kept(Own::Collector(trash))?)
        };
        let sweep = Sweep {
            store: self,
            kept,
            announced,
            trash,
            removed: Removed::default(),
            is_lent: identity::own().is_lent,
        };
        sweep.run()
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
    Digest::from_hex(algorithm, hex)
}

/// Whether a chain's corrections belong to subordinate ids.
fn is_owned(name: &std::ffi::OsStr) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == OWNED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use crate::image::ImageConfig;

    use crate::tar::{Attributes, Writer};
    use crate::{Backend, Layer, Reference};

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
