//! Tar archives as layers use them (image-spec, layer.md): a strict reader and a deterministic writer.

pub(crate) mod content;
mod fields;
mod pax;
mod reader;
mod source;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::Reader;
pub use source::FileSource;
pub use source::Source;
pub use writer::Writer;

use std::collections::BTreeMap;

/// Size of a tar block in bytes; every member starts at a multiple.
pub(crate) const BLOCK: u64 = 512;

/// Extended attributes by full name (`user.comment`); names and values are bytes.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// A point in time since 1970, to the nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What every member has, whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky: at most 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// A member of an archive. Paths are byte-exact, as they stand in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: Vec<u8>,
    /// What every member has.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A further name of the member at this path.
    HardLink(Vec<u8>),
    /// A device node.
    Device(Device),
    /// A named pipe.
    Fifo,
}

/// A device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// A block device, else a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Where a file's content lies in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// The file's length in bytes, holes included.
    pub size: u64,
    /// Where its data starts in the archive, in bytes; a multiple of the block size.
    pub offset: u64,
    /// What a plain map of blocks cannot show.
    pub odd: Option<Odd>,
}

/// Why a file is not simply its blocks of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Odd {
    /// The bytes between its end and the next block are not all zero.
    DirtyPadding,
    /// It has holes: the pieces that are data, in order; in the archive they lie one after another.
    Sparse(Box<[Extent]>),
}

/// A piece of data of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub length: u64,
}

/// Why bytes are not an archive that we take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream failed.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// A header that means nothing, several things, or something dangerous.
    #[error("tar member at byte {offset}{}: {why}", path.as_deref().map(|path| format!(" ({:?})", String::from_utf8_lossy(path))).unwrap_or_default())]
    Member {
        /// Where its header starts.
        offset: u64,
        /// Its name, as far as known.
        path: Option<Vec<u8>>,
        /// What is wrong.
        why: String,
    },
}
