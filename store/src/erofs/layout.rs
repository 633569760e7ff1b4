//! Decides where everything of an image goes. Touches nothing.

use std::collections::BTreeMap;

use super::spill::{self, Spill};
use super::xattr::Shared;
use super::{BLOCK, ErofsError};
use crate::tar::Odd;
use crate::tree::{Content, NodeId, Tree};

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
#[derive(Debug)]
pub(super) struct Layout<'t> {
    /// The nodes that have names, the root first, parents before children.
    pub(super) order: Vec<NodeId>,
    /// By node; `None` for nodes without a name.
    pub(super) inodes: Vec<Option<Inode>>,
    /// Attributes of several inodes.
    pub(super) shared: Shared<'t>,
    /// First block of the shared attributes.
    pub(super) xattr_block: u32,
    /// First block of the inodes.
    pub(super) meta_block: u32,
    /// First block of directories and long links.
    pub(super) data_block: u32,
    /// Content to copy from the tars.
    pub(super) spill: Vec<Spill>,
    /// All blocks of the image.
    pub(super) blocks: u32,
    /// How many devices there are.
    pub(super) devices: usize,
}

/// Where one inode goes.
#[derive(Debug)]
pub(super) struct Inode {
    /// Its number: slots from the start of the inode area.
    pub(super) slot: u64,
    /// How many names it has; of a directory, with `.` and the `..` of its children.
    pub(super) links: u32,
    /// Its parent directory; of the root itself.
    pub(super) parent: NodeId,
    /// The attributes behind it.
    pub(super) xattrs: Vec<u8>,
    /// Its content.
    pub(super) data: Data,
}

/// Where an inode's content goes.
#[derive(Debug)]
pub(super) enum Data {
    /// None: devices, pipes, empty files.
    None,
    /// A file's map: chunks of `1 << chunk_bits` blocks.
    Chunks { chunk_bits: u8, chunks: Vec<Chunk> },
    /// A directory's or a link's bytes: `blocks` whole blocks from `first` of the data area, and a tail behind the inode.
    Flat {
        size: u64,
        first: u32,
        blocks: u32,
        inline: bool,
    },
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Nowhere; it is all zero.
    Hole,
    /// From this block of a tar.
    Device { device: u16, block: u32 },
    /// From this block of the spill.
    Spill(u32),
}

/// Plans the image of `tree` over `devices` tars.
pub(super) fn plan(tree: &Tree, devices: usize) -> Result<Layout<'_>, ErofsError> {
    let walk = walk(tree);
    let order: Vec<NodeId> = walk.iter().map(|(id, _)| *id).collect();
    let shared = Shared::collect(tree, &order);
    let xattr_block = blocks(1024 + 128 + 128 * devices as u64)?;
    let meta_block = xattr_block + blocks(shared.bytes.len() as u64)?;
    let links = links(tree, &order);
    let mut planner = Planner {
        tree,
        cursor: FIRST_SLOT * SLOT_BYTES,
        data_blocks: 0,
        spill_blocks: 0,
        spill: Vec::new(),
    };
    let mut inodes: Vec<Option<Inode>> = (0..tree.len()).map(|_| None).collect();
    for (id, parent) in &walk {
        let xattrs = shared.body(tree.node(*id))?;
        let (slot, data) = planner.place(*id, xattrs.len() as u64)?;
        inodes[id.index()] = Some(Inode {
            slot,
            links: links[id.index()],
            parent: *parent,
            xattrs,
            data,
        });
    }
    let data_block = add(meta_block, blocks(planner.cursor)?)?;
    let spill_block = add(data_block, planner.data_blocks)?;
    let blocks = add(spill_block, planner.spill_blocks)?;
    // Until now counted from the start of the spill.
    let mut spill = planner.spill;
    for copy in &mut spill {
        copy.block = add(copy.block, spill_block)?;
    }
    for inode in inodes.iter_mut().flatten() {
        if let Data::Chunks { chunks, .. } = &mut inode.data {
            for chunk in chunks {
                if let Chunk::Spill(block) = chunk {
                    *block = add(*block, spill_block)?;
                }
            }
        }
    }
    Ok(Layout {
        order,
        inodes,
        shared,
        xattr_block,
        meta_block,
        data_block,
        spill,
        blocks,
        devices,
    })
}

fn blocks(bytes: u64) -> Result<u32, ErofsError> {
    u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| ErofsError::TooLarge)
}

fn add(a: u32, b: u32) -> Result<u32, ErofsError> {
    a.checked_add(b).ok_or(ErofsError::TooLarge)
}

/// Whether a node stands in the image; hard links into lower layers are settled by the corrections.
fn stands(tree: &Tree, id: NodeId) -> bool {
    !matches!(tree.node(id).content, Content::LowerLink(_))
}

/// The entries of a directory that stand in the image.
pub(super) fn entries(tree: &Tree, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
    tree.entries(id).filter(|(_, id)| stands(tree, *id))
}

/// Every node once, with the directory it was met in; a directory's children stay together.
fn walk(tree: &Tree) -> Vec<(NodeId, NodeId)> {
    let mut seen = vec![false; tree.len()];
    seen[NodeId::ROOT.index()] = true;
    let mut out = vec![(NodeId::ROOT, NodeId::ROOT)];
    let mut pending = vec![NodeId::ROOT];
    while let Some(parent) = pending.pop() {
        let first = out.len();
        for (_, id) in entries(tree, parent) {
            if !std::mem::replace(&mut seen[id.index()], true) {
                out.push((id, parent));
            }
        }
        let directories = out[first..].iter().rev().map(|(id, _)| *id);
        pending.extend(directories.filter(|id| tree.node(*id).directory().is_some()));
    }
    out
}

fn links(tree: &Tree, order: &[NodeId]) -> Vec<u32> {
    let mut links = vec![0; tree.len()];
    links[NodeId::ROOT.index()] = 1;
    for id in order
        .iter()
        .filter(|id| tree.node(**id).directory().is_some())
    {
        links[id.index()] += 1;
        for (_, child) in entries(tree, *id) {
            links[child.index()] += 1;
            if tree.node(child).directory().is_some() {
                links[id.index()] += 1;
            }
        }
    }
    links
}

struct Planner<'t> {
    tree: &'t Tree,
    /// The next free byte of the inode area.
    cursor: u64,
    data_blocks: u32,
    spill_blocks: u32,
    spill: Vec<Spill>,
}

impl Planner<'_> {
    /// The slot and the content's place of node `id` with `xattrs` bytes of attributes.
    fn place(&mut self, id: NodeId, xattrs: u64) -> Result<(u64, Data), ErofsError> {
        match &self.tree.node(id).content {
            Content::Directory(_) => self.place_flat(directory_size(self.tree, id), xattrs),
            Content::Symlink(target) => self.place_flat(target.len() as u64, xattrs),
            Content::File(file) if file.data.size > 0 => {
                let (chunk_bits, chunks) = self.chunks(file)?;
                // The map is aligned to its entries.
                let behind = (INODE_BYTES + xattrs).next_multiple_of(CHUNK_BYTES) - INODE_BYTES;
                let slot = self.take(behind + chunks.len() as u64 * CHUNK_BYTES);
                Ok((slot, Data::Chunks { chunk_bits, chunks }))
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
        match starts.into_iter().find(|start| tail > 0 && fits(*start)) {
            Some(start) => {
                self.cursor = start;
                let slot = self.take(xattrs + tail);
                self.data_blocks = add(first, whole)?;
                Ok((
                    slot,
                    Data::Flat {
                        size,
                        first,
                        blocks: whole,
                        inline: true,
                    },
                ))
            }
            None => {
                let slot = self.take(xattrs);
                let blocks = whole + u32::from(tail > 0);
                self.data_blocks = add(first, blocks)?;
                Ok((
                    slot,
                    Data::Flat {
                        size,
                        first,
                        blocks,
                        inline: false,
                    },
                ))
            }
        }
    }

    /// The map of a file. One chunk reaches up to 2^31 blocks, so nearly all files have a single one.
    fn chunks(&mut self, file: &crate::tree::File) -> Result<(u8, Vec<Chunk>), ErofsError> {
        let data = &file.data;
        let file_blocks = data.size.div_ceil(BLOCK);
        let whole = u8::try_from(file_blocks.next_power_of_two().trailing_zeros())
            .unwrap_or(31)
            .min(31);
        let (bits, pieces) = match &data.odd {
            None => (whole, None),
            Some(Odd::DirtyPadding) => (whole, Some(spill::whole_file(data))),
            Some(Odd::Sparse(extents)) => {
                let bits = spill::chunk_bits(data.size);
                (bits, Some(spill::pieces(data, extents, bits)))
            }
        };
        let chunk_blocks = 1_u64 << bits;
        let count = file_blocks.div_ceil(chunk_blocks);
        let Some(pieces) = pieces else {
            let device = file.layer + 1;
            let block = |chunk: u64| {
                u32::try_from(data.offset / BLOCK + chunk * chunk_blocks)
                    .map_err(|_| ErofsError::TooLarge)
            };
            let chunks = (0..count).map(|chunk| {
                Ok(Chunk::Device {
                    device,
                    block: block(chunk)?,
                })
            });
            return Ok((bits, chunks.collect::<Result<_, ErofsError>>()?));
        };
        self.spill_chunks(file, &pieces, bits, count)
    }

    /// Gives every chunk that holds data its place in the spill, and the data of each.
    fn spill_chunks(
        &mut self,
        file: &crate::tree::File,
        pieces: &BTreeMap<u64, Vec<spill::Piece>>,
        bits: u8,
        count: u64,
    ) -> Result<(u8, Vec<Chunk>), ErofsError> {
        let chunk_bytes = BLOCK << bits;
        let mut chunks = Vec::new();
        for chunk in 0..count {
            let Some(pieces) = pieces.get(&chunk) else {
                chunks.push(Chunk::Hole);
                continue;
            };
            let block = self.spill_blocks;
            let length = chunk_bytes.min(file.data.size - chunk * chunk_bytes);
            self.spill_blocks = add(block, blocks(length)?)?;
            self.spill.push(Spill {
                tar: file.layer,
                block,
                pieces: pieces.clone(),
            });
            chunks.push(Chunk::Spill(block));
        }
        Ok((bits, chunks))
    }
}

/// The bytes of a directory: blocks of entries and names, the last one cut where its names end.
fn directory_size(tree: &Tree, id: NodeId) -> u64 {
    let names = names(tree, id);
    let mut whole = 0;
    let mut last = 0;
    for name in names {
        let bytes = ENTRY_BYTES + name.len() as u64;
        if last + bytes > BLOCK {
            whole += 1;
            last = 0;
        }
        last += bytes;
    }
    whole * BLOCK + last
}

/// All names of a directory in the order of their bytes, `.` and `..` among them: readers search for a name by halving.
pub(super) fn names(tree: &Tree, id: NodeId) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = entries(tree, id)
        .map(|(name, _)| name)
        .chain([&b"."[..], &b".."[..]])
        .collect();
    names.sort_unstable();
    names
}
