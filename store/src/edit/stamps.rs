//! What an unpacked bundle looked like when it was unpacked: `unpacked`, a file of the bundle.
//!
//! ```text
//! {"version":1,"manifest":"sha256:...","stamps":N}\n      the image, and how many stamps follow
//! N times 20 bytes: inode, seconds and nanoseconds of its last change, little-endian
//! ```
//!
//! A file whose inode and time of last change (st_ctim, which no program can set) are what they were is the same file
//! with the same content: that costs one stat(2) a file, where comparing contents, or hashing them as mtree(8) does,
//! reads everything. Whatever a stamp does not vouch for is compared with the layers' tars, which are in the store:
//! so stamps save work and decide nothing, and a bundle that was copied elsewhere is only slower to repack.
//! The kernel's clock for these times ticks every few milliseconds; therefore unpacking ends only when it has moved
//! on, and every later change bears a later time (git's "racily clean" entries).
//!
//! Stamps are in the order of the directories' numbers in the image's tree, and of the names in each.

use std::fs;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use serde::{Deserialize, Serialize};

use crate::descent::Descent;
use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::tree::{NodeId, Tree};

/// The file's name in the bundle.
const FILE: &str = "unpacked";
/// Another number means another form.
const VERSION: u32 = 1;
/// Longest first line, in bytes; ours has under 200.
const HEAD_BYTES_MAX: u64 = 4096;
/// Bytes of a stamp.
const STAMP_BYTES: usize = 20;
/// How long to wait for the file system's clock to move on: the coarsest of Linux's own ticks every 10 ms.
/// One that counts seconds (ext3, some network file systems) is not waited for.
const TICK_TRIES: u32 = 60;

/// Inode and time of the last change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl Stamp {
    /// Of a file as it is.
    pub(crate) fn of(stat: &Stat) -> Stamp {
        Stamp {
            inode: stat.st_ino,
            seconds: stat.st_ctime,
            nanoseconds: u32::try_from(stat.st_ctime_nsec).unwrap_or(0),
        }
    }

    fn time(&self) -> (i64, u32) {
        (self.seconds, self.nanoseconds)
    }

    fn bytes(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[16..].copy_from_slice(&self.nanoseconds.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Stamp> {
        Some(Stamp {
            inode: u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
            seconds: i64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?),
            nanoseconds: u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?),
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    manifest: Digest,
    stamps: usize,
}

/// A bundle's stamps.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// The image that was unpacked.
    manifest: Option<Digest>,
    stamps: Vec<Stamp>,
    /// For each directory of the tree, the number of its first name's stamp.
    first: Vec<usize>,
}

impl Stamps {
    /// No stamps: nothing is vouched for.
    pub(crate) fn none() -> Stamps {
        Stamps {
            manifest: None,
            stamps: Vec::new(),
            first: Vec::new(),
        }
    }

    /// Takes the stamps of `root`, into which `tree` has just been unpacked.
    /// `beside` is a directory on the same file system.
    pub(crate) fn take(
        tree: &Tree,
        root: BorrowedFd<'_>,
        beside: BorrowedFd<'_>,
        manifest: Digest,
    ) -> io::Result<Stamps> {
        let (first, count) = numbers(tree);
        let mut stamps = vec![Stamp::default(); count];
        let mut descent = Descent::new(root)?;
        let entries = |id: NodeId| -> Vec<(Vec<u8>, NodeId)> {
            let entries = tree.entries(id);
            entries.map(|(name, id)| (name.to_vec(), id)).collect()
        };
        let mut frames = vec![(NodeId::ROOT, entries(NodeId::ROOT).into_iter().enumerate())];
        while let Some((id, rest)) = frames.last_mut() {
            let Some((at, (name, child))) = rest.next() else {
                frames.pop();
                descent.leave()?;
                continue;
            };
            let stat = statat(descent.here(), &name, AtFlags::SYMLINK_NOFOLLOW)?;
            stamps[first[id.index()] + at] = Stamp::of(&stat);
            if tree.node(child).directory().is_some() {
                descent.enter(&name)?;
                frames.push((child, entries(child).into_iter().enumerate()));
            }
        }
        let latest = stamps.iter().map(Stamp::time).max().unwrap_or_default();
        if !clock_passes(beside, latest)? {
            // What may change without bearing another time is not vouched for.
            let vouched = |stamp: &Stamp| stamp.time() < latest;
            for stamp in &mut stamps {
                *stamp = Some(*stamp).filter(vouched).unwrap_or_default();
            }
        }
        Ok(Stamps {
            manifest: Some(manifest),
            stamps,
            first,
        })
    }

    /// Writes them into `bundle`.
    pub(crate) fn write(&self, bundle: &Path) -> Result<(), Error> {
        let Some(manifest) = self.manifest else {
            return Ok(());
        };
        let head = Head {
            version: VERSION,
            manifest,
            stamps: self.stamps.len(),
        };
        let mut bytes = super::config::json("the record of what was unpacked", &head)?;
        bytes.push(b'\n');
        bytes.extend(self.stamps.iter().flat_map(Stamp::bytes));
        let (path, unfinished) = (bundle.join(FILE), bundle.join("unpacked.new"));
        // Not synced: who finds it damaged compares everything.
        fs::write(&unfinished, bytes).context("write", &unfinished)?;
        fs::rename(&unfinished, &path).context("rename to", &path)
    }

    /// Reads those of `bundle`, for the image that `tree_of` gives; `None` stands for a stamp that vouches for nothing.
    pub(crate) fn read(
        bundle: &Path,
        tree_of: impl FnOnce(Digest) -> Result<Tree, Error>,
    ) -> Result<(Stamps, Tree), Error> {
        let path = bundle.join(FILE);
        let file = match fs::File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotUnpacked(bundle.to_owned()));
            }
            other => other.context("open", &path)?,
        };
        let mut file = io::BufReader::new(file);
        let mut line = Vec::new();
        file.by_ref()
            .take(HEAD_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .context("read", &path)?;
        let head: Head = serde_json::from_slice(&line).map_err(|source| Error::Json {
            what: path.display().to_string(),
            source,
        })?;
        if head.version != VERSION {
            return Err(Error::NotUnpacked(bundle.to_owned()));
        }
        let tree = tree_of(head.manifest)?;
        let (first, count) = numbers(&tree);
        let mut bytes = Vec::new();
        let length = u64::try_from(count * STAMP_BYTES).unwrap_or(u64::MAX);
        file.take(length)
            .read_to_end(&mut bytes)
            .context("read", &path)?;
        let mut stamps: Vec<Stamp> = bytes
            .chunks_exact(STAMP_BYTES)
            .filter_map(Stamp::from_bytes)
            .collect();
        stamps.resize(count, Stamp::default());
        let manifest = Some(head.manifest);
        Ok((
            Stamps {
                manifest,
                stamps,
                first,
            },
            tree,
        ))
    }

    /// Whether the file at place `at` of directory `parent` is the one that was unpacked there.
    pub(crate) fn vouches(&self, parent: NodeId, at: usize, stat: &Stat) -> bool {
        let number = self.first.get(parent.index()).map(|first| first + at);
        let stamp = number.and_then(|number| self.stamps.get(number));
        stamp.is_some_and(|stamp| stamp.inode != 0 && *stamp == Stamp::of(stat))
    }
}

/// For each node the number of the stamp of its first name (if it is a directory), and how many there are.
fn numbers(tree: &Tree) -> (Vec<usize>, usize) {
    let mut first = Vec::with_capacity(tree.len());
    let mut count = 0;
    for id in tree.ids() {
        first.push(count);
        count += tree.entries(id).count();
    }
    (first, count)
}

/// Waits until a change would bear a later time than `latest`; false where that takes too long.
fn clock_passes(folder: BorrowedFd<'_>, latest: (i64, u32)) -> io::Result<bool> {
    let name = crate::store::unique_name(".clock").map_err(io::Error::other)?;
    for _ in 0..TICK_TRIES {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = fs::File::from(openat(folder, &name, flags, Mode::RUSR)?);
        let written = file.write_all(b"x").and_then(|()| Ok(fstat(&file)?));
        unlinkat(folder, &name, AtFlags::empty())?;
        if Stamp::of(&written?).time() > latest {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}
