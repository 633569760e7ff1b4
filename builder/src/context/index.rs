//! Hashes of the context's files, remembered between builds as git's index does.
//!
//! A hash counts only if everything that statx(2) says about its file is unchanged, ctime
//! included, which no program can set. A file changed within the clock's granularity of its
//! hashing might change again without a trace: its hash is not kept ("racily clean").
//! The file on disk is disposable: lost, torn or foreign, everything is hashed again.

use super::table::{Look, Table};
use crate::tree::{Kind, Meta, Root, Time, TreeError};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A sha256.
pub type Fingerprint = [u8; 32];

/// What a file or directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Print {
    /// Of its content; zero for a directory.
    pub content: Fingerprint,
    /// Of its extended attributes; none where it has none.
    pub xattrs: Option<Fingerprint>,
}

/// Files of a tree, by their numbers.
pub trait Files: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// Tells what each is, in the order of their numbers.
    fn each(&self, tell: &mut dyn FnMut(&Meta));
    /// Where the file of that number is, and what it is.
    fn place(&self, number: usize) -> Option<(PathBuf, Meta)>;
}

/// Largest index that is read, in bytes: some ten million files.
const INDEX_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Coarsest step of file times in nanoseconds: a jiffy at 100 Hz, doubled.
const GRANULARITY_NS: i128 = 20_000_000;

/// Bytes read at once while hashing.
const READ_BYTES: usize = 256 * 1024;

/// The place of what has no content and no attributes of its own.
const NOWHERE: u32 = u32::MAX;

/// The remembered hashes of one context.
#[derive(Debug, Default)]
pub struct HashIndex {
    /// Where they are on disk; nowhere if that is empty.
    file: PathBuf,
    table: RwLock<Table>,
    /// Held while files are hashed: several steps may want the same.
    hashing: Mutex<()>,
}

/// The fingerprints of [`Files`], by their numbers.
#[derive(Debug)]
pub struct Prints(Vec<u32>);

/// Reads [`Prints`]; nothing is learned meanwhile.
#[derive(Debug)]
pub struct Reading<'a> {
    prints: &'a Prints,
    table: RwLockReadGuard<'a, Table>,
}

impl Reading<'_> {
    /// The fingerprint of the file of that number; that of nothing for what has none.
    pub fn print(&self, number: usize) -> Print {
        match self.prints.0.get(number) {
            None | Some(&NOWHERE) => Print::default(),
            Some(position) => self.table.print(*position),
        }
    }
}

impl HashIndex {
    /// Loads what the folder `cache` remembers about the context at `path`; nothing if that is unusable.
    pub fn load(cache: &Path, path: &Path) -> Self {
        let name: String = Sha256::digest(path.as_os_str().as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let file = cache.join("contexts").join(name);
        let table = read(&file).and_then(|bytes| Table::read(&bytes));
        Self {
            file,
            table: RwLock::new(table.unwrap_or_default()),
            hashing: Mutex::default(),
        }
    }

    /// Remembers only as long as the build lasts.
    pub fn forgetful() -> Self {
        Self::default()
    }

    /// The fingerprints of files; hashes in parallel what is not remembered.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn fingerprints(&self, root: &Root, files: &dyn Files) -> Result<Prints, TreeError> {
        let mut prints = Prints(vec![NOWHERE; files.count()]);
        if self.look_up(files, &mut prints).is_empty() {
            return Ok(prints);
        }
        let _turn = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever had the turn before may have hashed them.
        let missing = self.look_up(files, &mut prints);
        self.hash_all(root, files, &missing, &mut prints)?;
        Ok(prints)
    }

    /// To read what [`HashIndex::fingerprints`] returned.
    pub fn reading<'a>(&'a self, prints: &'a Prints) -> Reading<'a> {
        Reading {
            prints,
            table: self.table(),
        }
    }

    /// Finds what is remembered; the numbers of the other files.
    fn look_up(&self, files: &dyn Files, prints: &mut Prints) -> Vec<u32> {
        let mut table = self.table_to_change();
        let mut missing = Vec::new();
        let mut number = 0;
        files.each(&mut |meta| {
            if matches!(meta.kind, Kind::File | Kind::Directory) {
                match table.find(&Look::of(meta)) {
                    Some(position) => {
                        table.touch(position);
                        prints.0[number] = position;
                    }
                    // As many as a table has places for.
                    None => missing.extend(u32::try_from(number)),
                }
            }
            number += 1;
        });
        missing
    }

    /// Hashes files on all processors.
    fn hash_all(
        &self,
        root: &Root,
        files: &dyn Files,
        missing: &[u32],
        prints: &mut Prints,
    ) -> Result<(), TreeError> {
        let workers = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(missing.len())
            .max(1);
        let next = AtomicUsize::new(0);
        let positions = Mutex::new(&mut prints.0);
        let work = || {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(number) = missing.get(index).map(|number| *number as usize) else {
                    return Ok(());
                };
                let Some((path, meta)) = files.place(number) else {
                    continue;
                };
                let hashed = hash(root, &path, meta.kind, &mut buffer)?;
                let position = self.learn(&path, &meta, hashed)?;
                lock(&positions)[number] = position;
            }
        };
        if workers == 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut ends = threads.into_iter().map(|thread| {
                let joined = thread.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            ends.try_for_each(|end| end)
        })
    }

    fn learn(&self, path: &Path, meta: &Meta, hashed: Hashed) -> Result<u32, TreeError> {
        // What changed while it was read is known to this step alone.
        let look = (hashed.after == *meta).then(|| Look::of(meta));
        let mut table = self.table_to_change();
        let position = table.add(hashed.print, look, !racy(meta, hashed.before));
        position.ok_or_else(|| TreeError {
            action: "remember",
            path: Path::new("/").join(path),
            source: rustix::io::Errno::OVERFLOW,
        })
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_to_change(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was learned, if anything was. Failure costs only time in the next build.
    pub fn save(&self) {
        let table = self.table();
        if table.has_news() && !self.file.as_os_str().is_empty() {
            // Nobody waits for this file, and a torn one is noticed.
            let _ = write(&self.file, &table);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

/// Whether the file was changed so shortly before `now` that a change after it could look the same.
fn racy(meta: &Meta, now: Time) -> bool {
    nanoseconds(meta.ctime) + GRANULARITY_NS >= nanoseconds(now)
}

/// What was read of a file, when that began, and what the file was after it.
struct Hashed {
    print: Print,
    before: Time,
    after: Meta,
}

fn hash(root: &Root, path: &Path, kind: Kind, buffer: &mut [u8]) -> Result<Hashed, TreeError> {
    let now = clock_gettime(ClockId::Realtime);
    let before = Time {
        seconds: now.tv_sec,
        nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0),
    };
    let failed = |error: std::io::Error| TreeError {
        action: "read",
        path: Path::new("/").join(path),
        source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    };
    let mut file = root.open_file(path)?;
    let content = match kind {
        Kind::Directory => Fingerprint::default(),
        _ => content_of(&mut file, buffer).map_err(failed)?,
    };
    Ok(Hashed {
        print: Print {
            content,
            xattrs: attributes_of(&root.xattrs_of(&file, path)?),
        },
        before,
        after: root.meta_of(&file, path)?,
    })
}

fn content_of(content: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<Fingerprint> {
    let mut sum = Sha256::new();
    loop {
        match content.read(buffer)? {
            0 => return Ok(sum.finalize().into()),
            n => sum.update(&buffer[..n]),
        }
    }
}

/// Hashes extended attributes, each with its length, so that none can pass for another.
pub(crate) fn attributes_of(xattrs: &[(OsString, Vec<u8>)]) -> Option<Fingerprint> {
    if xattrs.is_empty() {
        return None;
    }
    let mut sum = Sha256::new();
    for (name, value) in xattrs {
        for part in [name.as_bytes(), value.as_slice()] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
    }
    Some(sum.finalize().into())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(INDEX_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

fn write(path: &Path, table: &Table) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut out = BufWriter::new(std::fs::File::create(&unfinished)?);
    table.write(&mut out)?;
    out.flush()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (context, cache) = (dir.path().join("context"), dir.path().join("cache"));
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("f"), "one").unwrap();
        (dir, context, cache)
    }

    /// Names in a context.
    struct Named<'a>(&'a Root, &'a [&'a str]);

    impl Files for Named<'_> {
        fn count(&self) -> usize {
            self.1.len()
        }

        fn each(&self, tell: &mut dyn FnMut(&Meta)) {
            for number in 0..self.count() {
                tell(&self.place(number).unwrap().1);
            }
        }

        fn place(&self, number: usize) -> Option<(PathBuf, Meta)> {
            let path = Path::new(self.1[number]);
            Some((path.to_owned(), self.0.meta(path).unwrap().unwrap()))
        }
    }

    fn print(context: &Path, cache: &Path) -> (Print, bool) {
        let index = HashIndex::load(cache, context);
        let root = Root::open(context).unwrap();
        let meta = root.meta(Path::new("f")).unwrap().unwrap();
        let remembered = index.table().find(&Look::of(&meta)).is_some();
        let prints = index.fingerprints(&root, &Named(&root, &["f"])).unwrap();
        index.save();
        (index.reading(&prints).print(0), remembered)
    }

    #[test]
    fn a_fresh_file_is_not_remembered_and_an_old_one_is() {
        let (_dir, context, cache) = scene();
        let (first, _) = print(&context, &cache);
        // Written anew each time: on a busy machine the granularity may be over already.
        let fresh = (0..50).any(|_| {
            std::fs::write(context.join("f"), "one").unwrap();
            !print(&context, &cache).1
        });
        assert!(fresh, "changed within the clock's granularity");
        std::thread::sleep(std::time::Duration::from_millis(50));
        print(&context, &cache);
        assert_eq!(print(&context, &cache), (first, true));
    }

    #[test]
    fn same_size_and_mtime_is_not_enough() {
        let (_dir, context, cache) = scene();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (first, _) = print(&context, &cache);
        let modified = std::fs::metadata(context.join("f"))
            .unwrap()
            .modified()
            .unwrap();
        std::fs::write(context.join("f"), "two").unwrap();
        std::fs::File::options()
            .write(true)
            .open(context.join("f"))
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let (second, remembered) = print(&context, &cache);
        assert!(!remembered && first != second);
    }

    #[test]
    fn files_are_hashed_by_their_numbers() {
        let (_dir, context, cache) = scene();
        let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        for name in &names {
            std::fs::write(context.join(name), name).unwrap();
        }
        std::fs::create_dir(context.join("d")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let root = Root::open(&context).unwrap();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.insert(50, "d");
        for is_known in [false, true] {
            let index = HashIndex::load(&cache, &context);
            assert_eq!(index.table().len(), if is_known { 101 } else { 0 });
            let prints = index.fingerprints(&root, &Named(&root, &names)).unwrap();
            for (number, name) in names.iter().enumerate() {
                let content = match *name {
                    "d" => Fingerprint::default(),
                    name => Sha256::digest(name).into(),
                };
                let expected = Print {
                    content,
                    xattrs: None,
                };
                assert_eq!(index.reading(&prints).print(number), expected, "{name}");
            }
            index.save();
        }
        let index = HashIndex::forgetful();
        let prints = index.fingerprints(&root, &Named(&root, &["5"])).unwrap();
        assert_ne!(index.reading(&prints).print(0), Print::default());
        index.save();
    }

    #[test]
    fn a_torn_index_is_no_index() {
        let (_dir, context, cache) = scene();
        std::thread::sleep(std::time::Duration::from_millis(50));
        print(&context, &cache);
        let file = HashIndex::load(&cache, &context).file;
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
        assert!(!print(&context, &cache).1);
    }
}
