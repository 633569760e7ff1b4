//! Hashes of the context's files, remembered between builds as git's index does.
//!
//! ```text
//! cache/contexts/<sha256 of the context's path>
//!     "teu-hash-index 2\n"
//!     entries: path length (u32), path, device, inode, size (u64), mtime, ctime (i64 s, u32 ns),
//!              sha256 of the content, 1 and sha256 of the extended attributes or 0
//!     sha256 of all that
//! ```
//!
//! An entry counts only if everything that statx(2) says about the file is unchanged, ctime
//! included, which no program can set. A file changed within the clock's granularity of its
//! hashing might change again without a trace: such an entry is not kept ("racily clean").
//! The file is disposable: lost, torn or foreign, everything is hashed again.

use crate::tree::{Kind, Meta, Root, Time, TreeError};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

const MAGIC: &[u8] = b"teu-hash-index 2\n";

/// Largest index that is read, in bytes: some ten million files.
const INDEX_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Coarsest step of file times in nanoseconds: a jiffy at 100 Hz, doubled.
const GRANULARITY_NS: i128 = 20_000_000;

/// Bytes read at once while hashing.
const READ_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: (u64, u64),
    size: u64,
    mtime: Time,
    ctime: Time,
    hash: Print,
}

/// The remembered hashes of one context.
#[derive(Debug)]
pub struct HashIndex {
    file: PathBuf,
    known: HashMap<Vec<u8>, Entry>,
    /// Hashed by this build, and whether that will still be true in the next.
    learned: Mutex<HashMap<Vec<u8>, (Entry, bool)>>,
}

impl HashIndex {
    /// Loads what the folder `cache` remembers about the context at `path`; nothing if that is unusable.
    pub fn load(cache: &Path, path: &Path) -> Self {
        let name: String = Sha256::digest(path.as_os_str().as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let file = cache.join("contexts").join(name);
        let known = read(&file)
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Self {
            file,
            known,
            learned: Mutex::default(),
        }
    }

    /// Remembers only as long as the build lasts.
    pub fn forgetful() -> Self {
        Self {
            file: PathBuf::new(),
            known: HashMap::new(),
            learned: Mutex::default(),
        }
    }

    /// The fingerprints of files, in order; hashes in parallel what is not remembered.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn fingerprints(
        &self,
        root: &Root,
        files: &[(&Path, Meta)],
    ) -> Result<Vec<Print>, TreeError> {
        let mut found = vec![Print::default(); files.len()];
        let mut missing = Vec::new();
        for (index, (path, meta)) in files.iter().enumerate() {
            match self.remembered(path, meta) {
                Some(hash) => found[index] = hash,
                None => missing.push(index),
            }
        }
        let paths: Vec<&Path> = missing.iter().map(|index| files[*index].0).collect();
        let hashed = hash_all(root, &paths)?;
        let mut learned = self.learned();
        for (index, (hash, now, after)) in missing.iter().zip(hashed) {
            found[*index] = hash;
            let (path, meta) = &files[*index];
            if after == *meta {
                let lasting = !racy(meta, now);
                learned.insert(
                    path.as_os_str().as_bytes().to_vec(),
                    (Entry::new(meta, hash), lasting),
                );
            }
        }
        Ok(found)
    }

    fn remembered(&self, path: &Path, meta: &Meta) -> Option<Print> {
        let path = path.as_os_str().as_bytes();
        let fits = |entry: &Entry| entry.fits(meta).then_some(entry.hash);
        self.known
            .get(path)
            .and_then(fits)
            .or_else(|| self.learned().get(path).and_then(|(entry, _)| fits(entry)))
    }

    fn learned(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (Entry, bool)>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was learned, if anything was, without what `root` was seen not to hold any more.
    /// Failure costs only time in the next build.
    pub fn save(&self, root: &Root) {
        let learned = self.learned();
        let lasting = learned.iter().filter(|(_, (_, lasting))| *lasting);
        let mut entries: Vec<(&[u8], &Entry)> = lasting
            .map(|(path, (entry, _))| (path.as_slice(), entry))
            .collect();
        if entries.is_empty() || self.file.as_os_str().is_empty() {
            return;
        }
        let stays = |path: &[u8]| {
            !learned.contains_key(path)
                && root.was_seen(Path::new(OsStr::from_bytes(path))) != Some(false)
        };
        entries.extend(
            self.known
                .iter()
                .filter(|(path, _)| stays(path))
                .map(|(path, entry)| (path.as_slice(), entry)),
        );
        entries.sort_unstable_by_key(|(path, _)| *path);
        // Nobody waits for this file, and a torn one is noticed.
        let _ = write(&self.file, &encode(&entries));
    }
}

impl Entry {
    fn new(meta: &Meta, hash: Print) -> Self {
        Self {
            id: meta.id,
            size: meta.size,
            mtime: meta.mtime,
            ctime: meta.ctime,
            hash,
        }
    }

    fn fits(&self, meta: &Meta) -> bool {
        *self == Self::new(meta, self.hash)
    }
}

fn nanoseconds(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

/// Whether the file was changed so shortly before `now` that a change after it could look the same.
fn racy(meta: &Meta, now: Time) -> bool {
    nanoseconds(meta.ctime) + GRANULARITY_NS >= nanoseconds(now)
}

/// The fingerprints of files, in order, without remembering anything.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_files(root: &Root, files: &[(&Path, Meta)]) -> Result<Vec<Print>, TreeError> {
    let paths: Vec<&Path> = files.iter().map(|(path, _)| *path).collect();
    Ok(hash_all(root, &paths)?
        .into_iter()
        .map(|(hash, _, _)| hash)
        .collect())
}

type Hashed = (Print, Time, Meta);

/// Hashes files on all processors. Each result carries the time before reading and what the file was after.
fn hash_all(root: &Root, files: &[&Path]) -> Result<Vec<Hashed>, TreeError> {
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files.len())
        .max(1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; READ_BYTES];
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(path) = files.get(index) else {
                return Ok(done);
            };
            done.push((index, hash(root, path, &mut buffer)?));
        }
    };
    if workers == 1 {
        return Ok(work()?.into_iter().map(|(_, hashed)| hashed).collect());
    }
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Result<Vec<Vec<_>>, TreeError>>()
    })?;
    let mut all: Vec<_> = parts.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, hashed)| hashed).collect())
}

fn hash(root: &Root, path: &Path, buffer: &mut [u8]) -> Result<Hashed, TreeError> {
    let now = clock_gettime(ClockId::Realtime);
    let now = Time {
        seconds: now.tv_sec,
        nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0),
    };
    let failed = |error: std::io::Error| {
        let source = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        crate::tree::TreeError {
            action: "read",
            path: Path::new("/").join(path),
            source,
        }
    };
    let mut file = root.open_file(path)?;
    let is_directory = file.metadata().map_err(failed)?.is_dir();
    let content = if is_directory {
        Fingerprint::default()
    } else {
        content_of(&mut file, buffer).map_err(failed)?
    };
    let hash = Print {
        content,
        xattrs: attributes_of(&root.xattrs(path)?),
    };
    let after = root.meta(path)?;
    let none = Meta {
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time::default(),
        ctime: Time::default(),
        id: (0, 0),
        links: 0,
    };
    Ok((hash, now, after.unwrap_or(none)))
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
pub(crate) fn attributes_of(xattrs: &[(std::ffi::OsString, Vec<u8>)]) -> Option<Fingerprint> {
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

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::File::create(&unfinished)?.write_all(bytes)?;
    std::fs::rename(&unfinished, path)
}

fn encode(entries: &[(&[u8], &Entry)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for (path, entry) in entries {
        out.extend(u32::try_from(path.len()).unwrap_or(0).to_le_bytes());
        out.extend(*path);
        out.extend(
            [entry.id.0, entry.id.1, entry.size]
                .iter()
                .flat_map(|number| number.to_le_bytes()),
        );
        for time in [entry.mtime, entry.ctime] {
            out.extend(time.seconds.to_le_bytes());
            out.extend(time.nanoseconds.to_le_bytes());
        }
        out.extend(entry.hash.content);
        out.push(u8::from(entry.hash.xattrs.is_some()));
        out.extend(entry.hash.xattrs.iter().flatten());
    }
    let sum: [u8; 32] = Sha256::digest(&out).into();
    out.extend(sum);
    out
}

fn decode(bytes: &[u8]) -> Option<HashMap<Vec<u8>, Entry>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *sum {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut entries = HashMap::with_capacity(rest.len() / 120);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let mut number = || Some(u64::from_le_bytes(take(&mut rest)?));
        let (device, inode, size) = (number()?, number()?, number()?);
        let (mtime, ctime) = (time(&mut rest)?, time(&mut rest)?);
        entries.insert(
            path.to_vec(),
            Entry {
                id: (device, inode),
                size,
                mtime,
                ctime,
                hash: print(&mut rest)?,
            },
        );
    }
    Some(entries)
}

fn print(rest: &mut &[u8]) -> Option<Print> {
    let content = take(rest)?;
    let xattrs = match take(rest)? {
        [0] => None,
        [1] => Some(take(rest)?),
        _ => return None,
    };
    Some(Print { content, xattrs })
}

fn time(rest: &mut &[u8]) -> Option<Time> {
    Some(Time {
        seconds: i64::from_le_bytes(take(rest)?),
        nanoseconds: u32::from_le_bytes(take(rest)?),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_at_checked(N)?;
    *rest = tail;
    head.try_into().ok()
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

    fn print(context: &Path, cache: &Path) -> (Print, bool) {
        let index = HashIndex::load(cache, context);
        let root = Root::open(context).unwrap();
        let meta = root.meta(Path::new("f")).unwrap().unwrap();
        let remembered = index
            .known
            .get(b"f".as_slice())
            .is_some_and(|entry| entry.fits(&meta));
        let print = index
            .fingerprints(&root, &[(Path::new("f"), meta)])
            .unwrap()[0];
        index.save(&root);
        (print, remembered)
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
    fn files_that_are_gone_are_forgotten() {
        let (_dir, context, cache) = scene();
        std::fs::write(context.join("g"), "g").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let all = || {
            let (index, root) = (
                HashIndex::load(&cache, &context),
                Root::open(&context).unwrap().remembering(),
            );
            let listing = root.list(Path::new("")).unwrap();
            let files: Vec<(&Path, Meta)> = listing
                .iter()
                .map(|(name, meta)| (Path::new(name), *meta))
                .collect();
            index.fingerprints(&root, &files).unwrap();
            index.save(&root);
            HashIndex::load(&cache, &context).known.len()
        };
        assert_eq!(all(), 2);
        std::fs::remove_file(context.join("g")).unwrap();
        std::fs::write(context.join("h"), "h").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(all(), 2);
    }

    #[test]
    fn a_torn_index_is_no_index() {
        let (_dir, context, cache) = scene();
        std::thread::sleep(std::time::Duration::from_millis(50));
        print(&context, &cache);
        let file = HashIndex::load(&cache, &context).file;
        let bytes = std::fs::read(&file).unwrap();
        assert!(decode(&bytes).is_some());
        for cut in [0, 10, MAGIC.len(), bytes.len() - 1] {
            assert!(decode(&bytes[..cut]).is_none());
        }
        std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
        assert!(!print(&context, &cache).1);
    }
}
