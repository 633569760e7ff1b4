//! Decides where everything of an image goes. Touches nothing.
//!
//! A layer may have a million nodes, so only the number of each inode is kept; all else is decided again,
//! in the same order and so with the same result, whenever it is written ([`Layout::placed`]).

use super::spill;
use super::walk::{Links, Walk, names};
use super::xattr::Shared;
use super::{BLOCK, ErofsError};
use crate::tar::Odd;
use crate::tree::{Content, File, NodeId, Tree};

/// Bytes of an inode of the extended form: 32-bit ids, times to the nanosecond.
pub(super) const INODE_BYTES: u64 = 64;
/// Inode numbers count slots of 32 bytes from the start of the inode area.
pub(super) const SLOT_BYTES: u64 = 32;
/// Bytes of one entry of a directory block, without its name.
pub(super) const ENTRY_BYTES: u64 = 12;
/// Bytes of one chunk of a file's map.
pub(super) const CHUNK_BYTES: u64 = 8;
/// The first inode number used. Number 0 would be taken for "no file" by readers of directories.
const FIRST_SLOT: u64 = 2;

/// Where everything goes.
pub(super) struct Layout<'t> {
    pub(super) tree: &'t Tree,
    /// Attributes of several inodes.
    pub(super) shared: Shared<'t>,
    pub(super) links: Links<'t>,
    /// The number of each inode, by node: slots from the start of the inode area. 0 for nodes without a name.
    slots: Vec<u32>,
    /// How many inodes there are.
    pub(super) inodes: u64,
    /// First block of the shared attributes.
    pub(super) xattr_block: u32,
    /// First block of the inodes.
    pub(super) meta_block: u32,
    /// First block of directories and long links.
    pub(super) data_block: u32,
    /// First block of the content copied from the tars.
    pub(super) spill_block: u32,
    /// All blocks of the image.
    pub(super) blocks: u32,
    /// How many devices there are.
    pub(super) devices: usize,
}

/// Where one inode goes.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) id: NodeId,
    /// Its directory; of the root itself.
    pub(super) parent: NodeId,
    /// Its number.
    pub(super) slot: u64,
    /// The attributes behind it.
    pub(super) xattrs: Vec<u8>,
    pub(super) data: Data,
}

/// Where an inode's content goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data {
    /// None: devices, pipes, empty files.
    None,
    /// A file's map: `count` chunks of `1 << bits` blocks. What is copied goes from block `spill` of the spill on.
    Chunks { bits: u8, count: u64, spill: u32 },
    /// A directory's or a link's bytes: `blocks` whole blocks from `first` of the data area, and a tail behind the inode.
    Flat {
        size: u64,
        first: u32,
        blocks: u32,
        inline: bool,
    },
}

/// Plans the image of `tree` over `devices` tars.
pub(super) fn plan(tree: &Tree, devices: usize) -> Result<Layout<'_>, ErofsError> {
    let shared = Shared::collect(tree);
    let xattr_block = blocks(1024 + 128 + 128 * devices as u64)?;
    let meta_block = xattr_block + blocks(shared.bytes.len() as u64)?;
    let mut layout = Layout {
        tree,
        shared,
        links: Links::count(tree),
        slots: vec![0; tree.len()],
        inodes: 0,
        xattr_block,
        meta_block,
        data_block: 0,
        spill_block: 0,
        blocks: 0,
        devices,
    };
    let mut placer = Placer::new(tree);
    let mut slots = std::mem::take(&mut layout.slots);
    for (id, _) in Walk::new(tree) {
        let xattrs = layout.shared.body(&tree.node(id))?;
        let (slot, _) = placer.place(id, xattrs.len() as u64)?;
        slots[id.index()] = u32::try_from(slot).map_err(|_| ErofsError::TooLarge)?;
        layout.inodes += 1;
    }
    layout.slots = slots;
    layout.data_block = add(meta_block, blocks(placer.cursor)?)?;
    layout.spill_block = add(layout.data_block, placer.data_blocks)?;
    layout.blocks = add(layout.spill_block, placer.spill_blocks)?;
    Ok(layout)
}

impl<'t> Layout<'t> {
    /// The number of node `id`.
    pub(super) fn slot(&self, id: NodeId) -> u64 {
        self.slots[id.index()].into()
    }

    /// Where each inode goes, in ascending order.
    pub(super) fn placed(&self) -> impl Iterator<Item = Result<Inode, ErofsError>> + use<'_, 't> {
        let mut placer = Placer::new(self.tree);
        Walk::new(self.tree).map(move |(id, parent)| {
            let xattrs = self.shared.body(&self.tree.node(id))?;
            let (slot, data) = placer.place(id, xattrs.len() as u64)?;
            Ok(Inode {
                id,
                parent,
                slot,
                xattrs,
                data,
            })
        })
    }
}

fn blocks(bytes: u64) -> Result<u32, ErofsError> {
    u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| ErofsError::TooLarge)
}

pub(super) fn add(a: u32, b: u32) -> Result<u32, ErofsError> {
    a.checked_add(b).ok_or(ErofsError::TooLarge)
}

/// Gives inodes and contents their places, one after another.
struct Placer<'t> {
    tree: &'t Tree,
    /// The next free byte of the inode area.
    cursor: u64,
    data_blocks: u32,
    spill_blocks: u32,
}

impl<'t> Placer<'t> {
    fn new(tree: &'t Tree) -> Placer<'t> {
        Placer {
            tree,
            cursor: FIRST_SLOT * SLOT_BYTES,
            data_blocks: 0,
            spill_blocks: 0,
        }
    }

    /// The slot and the content's place of node `id` with `xattrs` bytes of attributes.
    fn place(&mut self, id: NodeId, xattrs: u64) -> Result<(u64, Data), ErofsError> {
        match self.tree.node(id).content {
            Content::Directory(_) => self.place_flat(directory_size(self.tree, id), xattrs),
            Content::Symlink(target) => self.place_flat(target.len() as u64, xattrs),
            Content::File(file) if file.size > 0 => {
                let (bits, count) = chunks(&file);
                let spill = self.spill_blocks;
                if file.odd.is_some() {
                    self.spill_blocks = add(spill, spill::blocks(&file, bits)?)?;
                }
                // The map is aligned to its entries.
                let behind = (INODE_BYTES + xattrs).next_multiple_of(CHUNK_BYTES) - INODE_BYTES;
                let slot = self.take(behind + count * CHUNK_BYTES);
                Ok((slot, Data::Chunks { bits, count, spill }))
            }
            _ => Ok((self.take(xattrs), Data::None)),
        }
    }

    /// Takes the next place whose inode itself lies in one block, with `behind` bytes behind it.
    fn take(&mut self, behind: u64) -> u64 {
        if self.cursor % BLOCK > BLOCK - INODE_BYTES {
            self.cursor = self.cursor.next_multiple_of(BLOCK);
        }
        let start = self.cursor;
        self.cursor = (start + INODE_BYTES + behind).next_multiple_of(SLOT_BYTES);
        start / SLOT_BYTES
    }

    /// A tail that fits is kept behind its inode; it must lie within one block.
    fn place_flat(&mut self, size: u64, xattrs: u64) -> Result<(u64, Data), ErofsError> {
        let tail = size % BLOCK;
        let whole = u32::try_from(size / BLOCK).map_err(|_| ErofsError::TooLarge)?;
        let fits = |start: u64| {
            start % BLOCK <= BLOCK - INODE_BYTES
                && (start + INODE_BYTES + xattrs) % BLOCK + tail <= BLOCK
        };
        let starts = (0..BLOCK / SLOT_BYTES).map(|skip| self.cursor + skip * SLOT_BYTES);
        let first = self.data_blocks;
        let found = starts.into_iter().find(|start| tail > 0 && fits(*start));
        let (slot, blocks) = match found {
            Some(start) => {
                self.cursor = start;
                (self.take(xattrs + tail), whole)
            }
            None => (self.take(xattrs), whole + u32::from(tail > 0)),
        };
        self.data_blocks = add(first, blocks)?;
        let data = Data::Flat {
            size,
            first,
            blocks,
            inline: found.is_some(),
        };
        Ok((slot, data))
    }
}

/// Size and number of a file's chunks. One reaches up to 2^31 blocks, so nearly all files have a single one.
fn chunks(file: &File<'_>) -> (u8, u64) {
    let file_blocks = file.size.div_ceil(BLOCK);
    let whole = u8::try_from(file_blocks.next_power_of_two().trailing_zeros()).unwrap_or(31);
    let bits = match file.odd {
        None | Some(Odd::DirtyPadding) => whole.min(31),
        Some(Odd::Sparse(_)) => spill::chunk_bits(file.size),
    };
    (bits, file_blocks.div_ceil(1 << bits))
}

/// The bytes of a directory: blocks of entries and names, the last one cut where its names end.
fn directory_size(tree: &Tree, id: NodeId) -> u64 {
    let mut whole = 0;
    let mut last = 0;
    for (name, _) in names(tree, id, id) {
        let bytes = ENTRY_BYTES + name.len() as u64;
        if last + bytes > BLOCK {
            whole += 1;
            last = 0;
        }
        last += bytes;
    }
    whole * BLOCK + last
}
