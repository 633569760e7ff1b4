//! How a tree keeps one inode: 24 bytes, whatever it is.

use super::{Content, Directory, File};
use crate::tar::{Device, FileData, Odd, Time};

/// One inode. What does not fit stands in a table of the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// As `st_mode` of stat(2): the shape in the upper 4 bits, below it the permissions.
    shape_and_mode: u16,
    /// Of a file: which of the tree's tars holds the data.
    pub(super) layer: u16,
    /// Index of owner and attributes.
    pub(super) owner: u32,
    pub(super) time: PackedTime,
    /// By shape: first block of the data, index of the odd file, place of the target, major number, first entry.
    pub(super) a: u32,
    /// By shape: size in bytes, -, length of the target, minor number, count of entries.
    pub(super) b: u32,
}

/// What a record's last two numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shape {
    Directory,
    ImplicitDirectory,
    OpaqueDirectory,
    ImplicitOpaqueDirectory,
    File,
    /// A file whose padding is not zero.
    DirtyFile,
    /// A file that is sparse, or larger than 4 GiB, or lies beyond 2 TiB.
    OddFile,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Fifo,
    Whiteout,
    LowerLink,
}

/// By their number.
const SHAPES: [Shape; 13] = [
    Shape::Directory,
    Shape::ImplicitDirectory,
    Shape::OpaqueDirectory,
    Shape::ImplicitOpaqueDirectory,
    Shape::File,
    Shape::DirtyFile,
    Shape::OddFile,
    Shape::Symlink,
    Shape::CharacterDevice,
    Shape::BlockDevice,
    Shape::Fifo,
    Shape::Whiteout,
    Shape::LowerLink,
];
/// Where the shape starts in `shape_and_mode`.
const SHAPE_SHIFT: u16 = 12;

impl Record {
    pub(super) fn new(shape: Shape, mode: u16, owner: u32, time: PackedTime) -> Record {
        Record {
            shape_and_mode: (shape as u16) << SHAPE_SHIFT | mode & 0o7777,
            layer: 0,
            owner,
            time,
            a: 0,
            b: 0,
        }
    }

    pub(super) fn shape(self) -> Shape {
        SHAPES[usize::from(self.shape_and_mode >> SHAPE_SHIFT)]
    }

    pub(super) fn set_shape(&mut self, shape: Shape) {
        self.shape_and_mode = (shape as u16) << SHAPE_SHIFT | self.mode();
    }

    pub(super) fn mode(self) -> u16 {
        self.shape_and_mode & 0o7777
    }

    pub(super) fn set_mode(&mut self, mode: u16) {
        self.shape_and_mode = (self.shape() as u16) << SHAPE_SHIFT | mode & 0o7777;
    }

    pub(super) fn directory(self) -> Option<Directory> {
        let (implicit, opaque) = match self.shape() {
            Shape::Directory => (false, false),
            Shape::ImplicitDirectory => (true, false),
            Shape::OpaqueDirectory => (false, true),
            Shape::ImplicitOpaqueDirectory => (true, true),
            _ => return None,
        };
        Some(Directory { implicit, opaque })
    }
}

impl Shape {
    pub(super) fn of_directory(directory: Directory) -> Shape {
        match (directory.implicit, directory.opaque) {
            (false, false) => Shape::Directory,
            (true, false) => Shape::ImplicitDirectory,
            (false, true) => Shape::OpaqueDirectory,
            (true, true) => Shape::ImplicitOpaqueDirectory,
        }
    }
}

/// Seconds in 34 bits (until the year 2514), nanoseconds in 30; other times stand in a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedTime([u32; 2]);

/// In the place of the nanoseconds: the seconds are the index of a table.
const IN_TABLE: u64 = (1 << 30) - 1;

impl PackedTime {
    /// Packs `time`; what does not fit is added to `table`.
    pub(super) fn pack(time: Time, table: &mut Vec<Time>) -> PackedTime {
        let fits = u64::try_from(time.seconds).ok().filter(|s| s >> 34 == 0);
        let packed = match fits {
            Some(seconds) => seconds << 30 | u64::from(time.nanoseconds),
            None => {
                table.push(time);
                (table.len() as u64 - 1) << 30 | IN_TABLE
            }
        };
        PackedTime([packed as u32, (packed >> 32) as u32])
    }

    pub(super) fn unpack(self, table: &[Time]) -> Time {
        let packed = u64::from(self.0[1]) << 32 | u64::from(self.0[0]);
        match packed & IN_TABLE {
            IN_TABLE => table[(packed >> 30) as usize],
            nanoseconds => Time {
                seconds: (packed >> 30).cast_signed(),
                nanoseconds: nanoseconds as u32,
            },
        }
    }
}

/// The record's numbers and shape of a file, if it is an ordinary one: first block, size.
pub(super) fn plain_file(file: &File<'_>) -> Option<(Shape, u32, u32)> {
    let shape = match file.odd {
        None => Shape::File,
        Some(Odd::DirtyPadding) => Shape::DirtyFile,
        Some(Odd::Sparse(_)) => return None,
    };
    let block = u32::try_from(file.offset / crate::tar::BLOCK).ok()?;
    Some((shape, block, u32::try_from(file.size).ok()?))
}

/// The shape of what is no directory and no file, and its two numbers where they are no text.
pub(super) fn device(device: Device) -> (Shape, u32, u32) {
    let shape = if device.block {
        Shape::BlockDevice
    } else {
        Shape::CharacterDevice
    };
    (shape, device.major, device.minor)
}

impl Record {
    /// The content of a record whose text is `text` and whose odd file is in `odd`.
    pub(super) fn content<'t>(
        self,
        text: impl FnOnce((u32, u32)) -> &'t [u8],
        odd: &'t [FileData],
    ) -> Content<'t> {
        let plain = |odd| File {
            layer: self.layer,
            size: self.b.into(),
            offset: u64::from(self.a) * crate::tar::BLOCK,
            odd,
        };
        let device = |block| Device {
            block,
            major: self.a,
            minor: self.b,
        };
        match self.shape() {
            Shape::Directory
            | Shape::ImplicitDirectory
            | Shape::OpaqueDirectory
            | Shape::ImplicitOpaqueDirectory => {
                Content::Directory(self.directory().unwrap_or_default())
            }
            Shape::File => Content::File(plain(None)),
            Shape::DirtyFile => Content::File(plain(Some(&Odd::DirtyPadding))),
            Shape::OddFile => {
                let data = &odd[self.a as usize];
                Content::File(File {
                    layer: self.layer,
                    size: data.size,
                    offset: data.offset,
                    odd: data.odd.as_ref(),
                })
            }
            Shape::Symlink => Content::Symlink(text((self.a, self.b))),
            Shape::CharacterDevice => Content::Device(device(false)),
            Shape::BlockDevice => Content::Device(device(true)),
            Shape::Fifo => Content::Fifo,
            Shape::Whiteout => Content::Whiteout,
            Shape::LowerLink => Content::LowerLink(text((self.a, self.b))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 24);
    }

    #[test]
    fn all_times_come_back() {
        let mut table = Vec::new();
        for (seconds, nanoseconds, tabled) in [
            (0, 0, 0),
            (1_700_000_000, 999_999_999, 0),
            ((1 << 34) - 1, 1, 0),
            (1 << 34, 1, 1),
            (-1, 999_999_999, 2),
            (i64::MIN, 0, 3),
            (i64::MAX, 5, 4),
        ] {
            let time = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(PackedTime::pack(time, &mut table).unpack(&table), time);
            assert_eq!(table.len(), tabled);
        }
    }
}
