//! The bytes of an image, from its layout.

use std::collections::HashMap;

use super::layout::{
    CHUNK_BYTES, Chunk, Data, ENTRY_BYTES, INODE_BYTES, Inode, Layout, SLOT_BYTES, entries, names,
};
use super::{BLOCK, BLOCK_BITS, ErofsError, MAGIC, xattr};
use crate::tree::{Content, NodeId, Tree};

/// Inodes say their own time.
const COMPAT_MTIME: u32 = 0x2;
/// Files are mapped by chunks, some of them on further devices.
const INCOMPAT_CHUNKS_AND_DEVICES: u32 = 0x4 | 0x8;
/// Chunks say their device, not only their block.
const CHUNK_WITH_DEVICE: u16 = 0x20;

/// How content is kept, in the bits of `i_format` above the lowest, which marks the extended form.
const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
const LAYOUT_CHUNKS: u16 = 4;

/// All of the image but the spill. `device_blocks` has a device's blocks each; `uuid` tells images apart.
pub(super) fn bytes(
    tree: &Tree,
    layout: &Layout<'_>,
    device_blocks: &[u32],
    uuid: [u8; 16],
) -> Result<Vec<u8>, ErofsError> {
    let end = layout
        .spill
        .first()
        .map_or(layout.blocks, |spill| spill.block);
    let size = usize::try_from(u64::from(end) * BLOCK).map_err(|_| ErofsError::TooLarge)?;
    let mut image = vec![0; size];
    put(&mut image, 1024, &superblock(layout, uuid));
    for (at, blocks) in device_blocks.iter().enumerate() {
        put(&mut image, 1152 + 128 * at + 64, &blocks.to_le_bytes());
    }
    put(&mut image, offset(layout.xattr_block), &layout.shared.bytes);
    let by_node = |id: NodeId| layout.inodes[id.index()].as_ref();
    for id in &layout.order {
        let Some(inode) = by_node(*id) else { continue };
        let start = offset(layout.meta_block)
            + usize::try_from(inode.slot * SLOT_BYTES).map_err(|_| ErofsError::TooLarge)?;
        put(&mut image, start, &inode_bytes(tree, *id, inode, layout));
        put(&mut image, start + INODE_BYTES as usize, &inode.xattrs);
        let behind = start + INODE_BYTES as usize + inode.xattrs.len();
        match &inode.data {
            Data::None => {}
            Data::Chunks { chunks, .. } => {
                let at = behind.next_multiple_of(CHUNK_BYTES as usize);
                let map: Vec<u8> = chunks
                    .iter()
                    .flat_map(|chunk| chunk_bytes(*chunk))
                    .collect();
                put(&mut image, at, &map);
            }
            Data::Flat {
                first,
                blocks,
                inline,
                ..
            } => {
                let content = match &tree.node(*id).content {
                    Content::Symlink(target) => target.to_vec(),
                    _ => directory_bytes(tree, *id, inode.parent, &|id| {
                        by_node(id).map_or(0, |inode| inode.slot)
                    }),
                };
                let whole = if *inline {
                    *blocks as usize * BLOCK as usize
                } else {
                    content.len()
                };
                put(
                    &mut image,
                    offset(layout.data_block + first),
                    &content[..whole],
                );
                put(&mut image, behind, &content[whole..]);
            }
        }
    }
    Ok(image)
}

fn offset(block: u32) -> usize {
    block as usize * BLOCK as usize
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn superblock(layout: &Layout<'_>, uuid: [u8; 16]) -> [u8; 128] {
    let mut block = [0; 128];
    let root = layout.inodes[NodeId::ROOT.index()]
        .as_ref()
        .map_or(0, |inode| inode.slot);
    put(&mut block, 0, &MAGIC.to_le_bytes());
    put(&mut block, 8, &COMPAT_MTIME.to_le_bytes());
    block[12] = BLOCK_BITS;
    // The root is the first inode, so its number is small.
    put(
        &mut block,
        14,
        &u16::try_from(root).unwrap_or(0).to_le_bytes(),
    );
    put(&mut block, 16, &(layout.order.len() as u64).to_le_bytes());
    put(&mut block, 36, &layout.blocks.to_le_bytes());
    put(&mut block, 40, &layout.meta_block.to_le_bytes());
    put(&mut block, 44, &layout.xattr_block.to_le_bytes());
    put(&mut block, 48, &uuid);
    put(&mut block, 64, b"teu");
    put(&mut block, 80, &INCOMPAT_CHUNKS_AND_DEVICES.to_le_bytes());
    put(
        &mut block,
        86,
        &u16::try_from(layout.devices).unwrap_or(0).to_le_bytes(),
    );
    // The device table starts behind the superblock, counted in its own 128-byte slots.
    put(&mut block, 88, &9_u16.to_le_bytes());
    block
}

fn inode_bytes(tree: &Tree, id: NodeId, inode: &Inode, layout: &Layout<'_>) -> [u8; 64] {
    let node = tree.node(id);
    let (kind, size) = match &node.content {
        Content::Directory(_) => (0o040_000, 0),
        Content::File(file) => (0o100_000, file.data.size),
        Content::Symlink(_) => (0o120_000, 0),
        Content::Device(device) => (if device.block { 0o060_000 } else { 0o020_000 }, 0),
        Content::Fifo => (0o010_000, 0),
        Content::Whiteout | Content::LowerLink(_) => (0o020_000, 0),
    };
    let (format, size, union) = match &inode.data {
        Data::None => (LAYOUT_PLAIN, size, device_number(&node.content)),
        Data::Chunks { chunk_bits, .. } => (
            LAYOUT_CHUNKS,
            size,
            u32::from(CHUNK_WITH_DEVICE | u16::from(*chunk_bits)),
        ),
        Data::Flat {
            size,
            first,
            inline,
            ..
        } => (
            if *inline { LAYOUT_INLINE } else { LAYOUT_PLAIN },
            *size,
            layout.data_block + first,
        ),
    };
    let attributes = &node.attributes;
    let mut bytes = [0; 64];
    put(&mut bytes, 0, &(format << 1 | 1).to_le_bytes());
    put(
        &mut bytes,
        2,
        &xattr::count(inode.xattrs.len()).to_le_bytes(),
    );
    put(&mut bytes, 4, &(kind | attributes.mode).to_le_bytes());
    put(&mut bytes, 8, &size.to_le_bytes());
    put(&mut bytes, 16, &union.to_le_bytes());
    // Only for 32-bit stat(2).
    put(
        &mut bytes,
        20,
        &u32::try_from(inode.slot).unwrap_or(u32::MAX).to_le_bytes(),
    );
    put(&mut bytes, 24, &attributes.uid.to_le_bytes());
    put(&mut bytes, 28, &attributes.gid.to_le_bytes());
    put(&mut bytes, 32, &attributes.mtime.seconds.to_le_bytes());
    put(&mut bytes, 40, &attributes.mtime.nanoseconds.to_le_bytes());
    put(&mut bytes, 44, &inode.links.to_le_bytes());
    bytes
}

/// Linux's packing of device numbers; a whiteout is device 0:0.
fn device_number(content: &Content) -> u32 {
    match content {
        Content::Device(device) => {
            (device.minor & 0xff) | device.major << 8 | (device.minor & !0xff) << 12
        }
        _ => 0,
    }
}

fn chunk_bytes(chunk: Chunk) -> [u8; 8] {
    let (device, block) = match chunk {
        Chunk::Hole => (0, u32::MAX),
        Chunk::Device { device, block } => (device, block),
        Chunk::Spill(block) => (0, block),
    };
    let mut bytes = [0; 8];
    put(&mut bytes, 2, &device.to_le_bytes());
    put(&mut bytes, 4, &block.to_le_bytes());
    bytes
}

/// The blocks of a directory. In each, the entries stand first, then their names in the same order.
fn directory_bytes(
    tree: &Tree,
    id: NodeId,
    parent: NodeId,
    slot: &dyn Fn(NodeId) -> u64,
) -> Vec<u8> {
    let mut children: HashMap<&[u8], NodeId> = entries(tree, id).collect();
    children.insert(b".", id);
    children.insert(b"..", parent);
    let mut out = Vec::new();
    let mut block: Vec<&[u8]> = Vec::new();
    let mut used = 0;
    let names = names(tree, id);
    for name in names {
        let bytes = ENTRY_BYTES as usize + name.len();
        if used + bytes > BLOCK as usize {
            write_block(tree, &block, &children, slot, &mut out);
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
            block.clear();
            used = 0;
        }
        used += bytes;
        block.push(name);
    }
    write_block(tree, &block, &children, slot, &mut out);
    out
}

fn write_block(
    tree: &Tree,
    names: &[&[u8]],
    children: &HashMap<&[u8], NodeId>,
    slot: &dyn Fn(NodeId) -> u64,
    out: &mut Vec<u8>,
) {
    let mut name_at = names.len() * ENTRY_BYTES as usize;
    for name in names {
        let child = children.get(name).copied().unwrap_or(NodeId::ROOT);
        out.extend_from_slice(&slot(child).to_le_bytes());
        out.extend_from_slice(&u16::try_from(name_at).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&[file_type(&tree.node(child).content), 0]);
        name_at += name.len();
    }
    for name in names {
        out.extend_from_slice(name);
    }
}

/// The kind of an entry as readdir(3) says it, in the kernel's own numbers.
fn file_type(content: &Content) -> u8 {
    match content {
        Content::File(_) => 1,
        Content::Directory(_) => 2,
        Content::Device(device) if device.block => 4,
        Content::Device(_) | Content::Whiteout | Content::LowerLink(_) => 3,
        Content::Fifo => 5,
        Content::Symlink(_) => 7,
    }
}
