//! What a directory holds, kept small: a context may have a million files, and each is in a listing.

use super::root::{Kind, Meta, Time};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The names in a directory, sorted by their bytes, and what they stand for. Copies share it.
#[derive(Debug, Clone)]
pub struct Listing(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// All names, one after the other.
    text: Box<[u8]>,
    entries: Box<[Entry]>,
}

/// A [`Meta`] in 60 bytes, and where its name ends.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of a device its numbers: it has no size.
    size: u64,
    mtime_seconds: i64,
    ctime_seconds: i64,
    device: u64,
    inode: u64,
    mtime_nanoseconds: u32,
    ctime_nanoseconds: u32,
    uid: u32,
    gid: u32,
    name_end: u32,
    /// The kind's number above twelve permission bits.
    kind_and_mode: u16,
    /// At most the largest that fits: it only counts whether there are several.
    links: u16,
}

/// The names of a directory that is being listed.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: Vec<u8>,
    /// Beginning and end of each in the text.
    places: Vec<(u32, u32)>,
}

impl Names {
    /// Adds a name; `None` where the text is too long for its places, which no directory's is.
    pub(super) fn push(&mut self, name: &[u8]) -> Option<()> {
        let begin = u32::try_from(self.text.len()).ok()?;
        let end = u32::try_from(self.text.len() + name.len()).ok()?;
        self.text.extend(name);
        self.places.push((begin, end));
        Some(())
    }

    /// Makes the listing of all names for which `meta` has something, in the order of their bytes.
    pub(super) fn list<E>(
        mut self,
        mut meta: impl FnMut(&OsStr) -> Result<Option<Meta>, E>,
    ) -> Result<Listing, E> {
        let text = &self.text;
        let name = |place: &(u32, u32)| &text[place.0 as usize..place.1 as usize];
        self.places.sort_unstable_by_key(name);
        let mut sorted = Vec::with_capacity(text.len());
        let mut entries = Vec::with_capacity(self.places.len());
        for place in &self.places {
            if let Some(meta) = meta(OsStr::from_bytes(name(place)))? {
                sorted.extend(name(place));
                // Not longer than the text, whose places fit.
                let end = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
                entries.push(Entry::new(&meta, end));
            }
        }
        Ok(Listing(Arc::new(Held {
            text: sorted.into(),
            entries: entries.into(),
        })))
    }
}

impl Listing {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name at that position, which must be below [`Listing::len`], and what it stands for.
    pub fn get(&self, index: usize) -> (&OsStr, Meta) {
        let entries = &self.0.entries;
        let begin = match index.checked_sub(1) {
            Some(before) => entries[before].name_end as usize,
            None => 0,
        };
        let end = entries[index].name_end as usize;
        let name = OsStr::from_bytes(&self.0.text[begin..end]);
        (name, entries[index].meta())
    }

    /// All names and what they stand for.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, Meta)> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The listing of one name, as tests need it.
    #[cfg(test)]
    pub(crate) fn of_one(name: &OsStr, meta: Meta) -> Self {
        let mut names = Names::default();
        names.push(name.as_bytes()).unwrap();
        let listed = names.list(|_| Ok::<_, std::convert::Infallible>(Some(meta)));
        listed.unwrap()
    }
}

impl Entry {
    fn new(meta: &Meta, name_end: u32) -> Self {
        let (kind, size) = match meta.kind {
            Kind::File => (0, meta.size),
            Kind::Directory => (1, meta.size),
            Kind::Symlink => (2, meta.size),
            Kind::Fifo => (3, meta.size),
            Kind::Socket => (4, meta.size),
            Kind::Block(major, minor) => (5, numbers(major, minor)),
            Kind::Character(major, minor) => (6, numbers(major, minor)),
        };
        Self {
            size,
            mtime_seconds: meta.mtime.seconds,
            ctime_seconds: meta.ctime.seconds,
            device: meta.id.0,
            inode: meta.id.1,
            mtime_nanoseconds: meta.mtime.nanoseconds,
            ctime_nanoseconds: meta.ctime.nanoseconds,
            uid: meta.uid,
            gid: meta.gid,
            name_end,
            kind_and_mode: kind << 12 | u16::try_from(meta.mode & 0o7777).unwrap_or(0),
            links: u16::try_from(meta.links).unwrap_or(u16::MAX),
        }
    }

    fn meta(&self) -> Meta {
        let (major, minor) = ((self.size >> 32) as u32, self.size as u32);
        let kind = match self.kind_and_mode >> 12 {
            0 => Kind::File,
            1 => Kind::Directory,
            2 => Kind::Symlink,
            3 => Kind::Fifo,
            4 => Kind::Socket,
            5 => Kind::Block(major, minor),
            _ => Kind::Character(major, minor),
        };
        let is_device = matches!(kind, Kind::Block(..) | Kind::Character(..));
        Meta {
            kind,
            mode: u32::from(self.kind_and_mode & 0o7777),
            uid: self.uid,
            gid: self.gid,
            size: if is_device { 0 } else { self.size },
            mtime: Time {
                seconds: self.mtime_seconds,
                nanoseconds: self.mtime_nanoseconds,
            },
            ctime: Time {
                seconds: self.ctime_seconds,
                nanoseconds: self.ctime_nanoseconds,
            },
            id: (self.device, self.inode),
            links: u32::from(self.links),
        }
    }
}

fn numbers(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_all_and_is_small() {
        assert_eq!(size_of::<Entry>(), 64);
        let kinds = [
            Kind::File,
            Kind::Directory,
            Kind::Symlink,
            Kind::Fifo,
            Kind::Socket,
            Kind::Block(8, 1 << 20 | 3),
            Kind::Character(u32::MAX, 7),
        ];
        for kind in kinds {
            let is_device = matches!(kind, Kind::Block(..) | Kind::Character(..));
            let meta = Meta {
                kind,
                mode: 0o7755,
                uid: u32::MAX - 1,
                gid: 5,
                size: if is_device { 0 } else { 1 << 40 },
                mtime: Time {
                    seconds: -5,
                    nanoseconds: 999_999_999,
                },
                ctime: Time {
                    seconds: 1 << 40,
                    nanoseconds: 1,
                },
                id: (u64::MAX, u64::MAX - 1),
                links: 2,
            };
            let listing = Listing::of_one(OsStr::new("name"), meta);
            assert_eq!(listing.get(0), (OsStr::new("name"), meta));
        }
    }

    #[test]
    fn names_are_sorted_and_those_that_are_gone_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = super::super::Root::open(dir.path()).unwrap();
        let meta = root.meta("".as_ref()).unwrap().unwrap();
        let mut names = Names::default();
        for name in ["b", "", "c.d", "a", "gone"] {
            names.push(name.as_bytes()).unwrap();
        }
        let kept = |name: &OsStr| Ok::<_, ()>((name != "gone").then_some(meta));
        let listing = names.list(kept).unwrap();
        let found: Vec<_> = listing.iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["", "a", "b", "c.d"]);
        assert!(listing.len() == 4 && !listing.is_empty());
    }
}
