//! The bytes of an image, from its layout.

use std::fs;
use std::io::{self, BufWriter, Write};

use super::layout::{CHUNK_BYTES, Data, ENTRY_BYTES, INODE_BYTES, Inode, Layout, SLOT_BYTES};
use super::walk::names;
use super::{BLOCK, BLOCK_BITS, ErofsError, MAGIC, spill, xattr};
use crate::tree::{Content, File, NodeId};

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

/// How much is written at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Nowhere; it is all zero.
    Hole,
    /// From this block of a tar.
    Device { device: u16, block: u32 },
    /// From this block of the image.
    Spill(u32),
}

/// A file written from its start to its end; what is left out is zero.
struct Output<'f> {
    file: BufWriter<&'f mut fs::File>,
    at: u64,
}

impl Output<'_> {
    /// Writes `bytes` at `place`, behind what was written before.
    fn put(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        io::copy(
            &mut io::Read::take(io::repeat(0), place - self.at),
            &mut self.file,
        )?;
        self.at = place + bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// Writes all of the image but the spill. `device_blocks` has a device's blocks each; `uuid` tells images apart.
pub(super) fn write(
    layout: &Layout<'_>,
    device_blocks: &[u32],
    uuid: [u8; 16],
    out: &mut fs::File,
) -> Result<(), ErofsError> {
    let mut out = Output {
        file: BufWriter::with_capacity(BUFFER_BYTES, out),
        at: 0,
    };
    out.put(1024, &superblock(layout, uuid))?;
    for (at, blocks) in (0..).zip(device_blocks) {
        out.put(1152 + 128 * at + 64, &blocks.to_le_bytes())?;
    }
    out.put(offset(layout.xattr_block), &layout.shared.bytes)?;
    for inode in layout.placed() {
        put_inode(layout, &inode?, &mut out)?;
    }
    for inode in layout.placed() {
        put_blocks(layout, &inode?, &mut out)?;
    }
    out.put(offset(layout.spill_block), b"")?;
    Ok(out.file.flush()?)
}

/// Copies what blocks of the tars cannot show.
pub(super) fn copy_spill(
    layout: &Layout<'_>,
    tars: &[&fs::File],
    out: &mut fs::File,
) -> Result<(), ErofsError> {
    if layout.spill_block == layout.blocks {
        return Ok(());
    }
    for inode in layout.placed() {
        let inode = inode?;
        if let Data::Chunks { bits, spill, .. } = inode.data
            && let Content::File(file) = layout.tree.node(inode.id).content
            && file.odd.is_some()
        {
            spill::copy(&file, bits, layout.spill_block + spill, tars, out)?;
        }
    }
    Ok(())
}

/// An inode with all that stands behind it.
fn put_inode(layout: &Layout<'_>, inode: &Inode, out: &mut Output<'_>) -> Result<(), ErofsError> {
    let content = layout.tree.node(inode.id).content;
    let start = offset(layout.meta_block) + inode.slot * SLOT_BYTES;
    out.put(start, &inode_bytes(layout, inode))?;
    out.put(start + INODE_BYTES, &inode.xattrs)?;
    match (inode.data, content) {
        (Data::Chunks { bits, count, spill }, Content::File(file)) => {
            let mut at = out.at.next_multiple_of(CHUNK_BYTES);
            let spill = layout.spill_block + spill;
            let mut put = |chunk| {
                out.put(at, &chunk_bytes(chunk))?;
                at += CHUNK_BYTES;
                Ok(())
            };
            match file.odd {
                None => put_plain_map(&file, bits, count, &mut put),
                Some(_) => put_spilled_map(&file, bits, count, spill, &mut put),
            }
        }
        (
            Data::Flat {
                size, inline: true, ..
            },
            Content::Symlink(target),
        ) => {
            let whole = size - size % BLOCK;
            Ok(out.put(out.at, &target[usize::try_from(whole).unwrap_or(0)..])?)
        }
        (Data::Flat { inline: true, .. }, _) => {
            let last = directory_blocks(layout, inode).last();
            Ok(out.put(out.at, &last.unwrap_or_default())?)
        }
        _ => Ok(()),
    }
}

/// The map of a file that lies in its tar as it is.
fn put_plain_map(
    file: &File<'_>,
    bits: u8,
    count: u64,
    put: &mut dyn FnMut(Chunk) -> Result<(), ErofsError>,
) -> Result<(), ErofsError> {
    (0..count).try_for_each(|chunk| {
        let block = u32::try_from(file.offset / BLOCK + (chunk << bits));
        put(Chunk::Device {
            device: file.layer + 1,
            block: block.map_err(|_| ErofsError::TooLarge)?,
        })
    })
}

/// The map of a file whose content is copied to block `spill` of the image, and on.
fn put_spilled_map(
    file: &File<'_>,
    bits: u8,
    count: u64,
    mut spill: u32,
    put: &mut dyn FnMut(Chunk) -> Result<(), ErofsError>,
) -> Result<(), ErofsError> {
    let mut copied = spill::chunks(file, bits).peekable();
    (0..count).try_for_each(|chunk| {
        let Some((_, blocks)) = copied.next_if(|(copied, _)| *copied == chunk) else {
            return put(Chunk::Hole);
        };
        put(Chunk::Spill(spill))?;
        spill += u32::try_from(blocks).map_err(|_| ErofsError::TooLarge)?;
        Ok(())
    })
}

/// The blocks of a directory or a long link that do not stand behind its inode.
fn put_blocks(layout: &Layout<'_>, inode: &Inode, out: &mut Output<'_>) -> Result<(), ErofsError> {
    let Data::Flat { first, blocks, .. } = inode.data else {
        return Ok(());
    };
    if blocks == 0 {
        return Ok(());
    }
    let first = offset(layout.data_block + first);
    if let Content::Symlink(target) = layout.tree.node(inode.id).content {
        let length = target.len().min(blocks as usize * BLOCK as usize);
        return Ok(out.put(first, &target[..length])?);
    }
    let content = directory_blocks(layout, inode).take(blocks as usize);
    for (at, block) in (0..).zip(content) {
        out.put(first + at * BLOCK, &block)?;
    }
    Ok(())
}

fn offset(block: u32) -> u64 {
    u64::from(block) * BLOCK
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn superblock(layout: &Layout<'_>, uuid: [u8; 16]) -> [u8; 128] {
    let mut block = [0; 128];
    put(&mut block, 0, &MAGIC.to_le_bytes());
    put(&mut block, 8, &COMPAT_MTIME.to_le_bytes());
    block[12] = BLOCK_BITS;
    // The root is the first inode, so its number is small.
    put(
        &mut block,
        14,
        &u16::try_from(layout.slot(NodeId::ROOT))
            .unwrap_or(0)
            .to_le_bytes(),
    );
    put(&mut block, 16, &layout.inodes.to_le_bytes());
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

fn inode_bytes(layout: &Layout<'_>, inode: &Inode) -> [u8; 64] {
    let node = layout.tree.node(inode.id);
    let (kind, size) = match node.content {
        Content::Directory(_) => (0o040_000, 0),
        Content::File(file) => (0o100_000, file.size),
        Content::Symlink(_) => (0o120_000, 0),
        Content::Device(device) => (if device.block { 0o060_000 } else { 0o020_000 }, 0),
        Content::Fifo => (0o010_000, 0),
        Content::Whiteout | Content::LowerLink(_) => (0o020_000, 0),
    };
    let (format, size, union) = match inode.data {
        Data::None => (LAYOUT_PLAIN, size, device_number(&node.content)),
        Data::Chunks { bits, .. } => (
            LAYOUT_CHUNKS,
            size,
            u32::from(CHUNK_WITH_DEVICE | u16::from(bits)),
        ),
        Data::Flat {
            size,
            first,
            inline,
            ..
        } => (
            if inline { LAYOUT_INLINE } else { LAYOUT_PLAIN },
            size,
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
    put(&mut bytes, 44, &layout.links.of(inode.id).to_le_bytes());
    bytes
}

/// Linux's packing of device numbers; a whiteout is device 0:0.
fn device_number(content: &Content<'_>) -> u32 {
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

/// The blocks of a directory, the last one cut where its names end. In each, the entries stand first,
/// then their names in the same order.
fn directory_blocks<'l>(
    layout: &'l Layout<'_>,
    inode: &Inode,
) -> impl Iterator<Item = Vec<u8>> + 'l {
    let tree = layout.tree;
    let mut names = names(tree, inode.id, inode.parent).peekable();
    std::iter::from_fn(move || {
        let mut used = 0;
        let mut block: Vec<(&[u8], NodeId)> = Vec::new();
        while let Some((name, id)) = names.next_if(|(name, _)| {
            used += ENTRY_BYTES as usize + name.len();
            used <= BLOCK as usize
        }) {
            block.push((name, id));
        }
        (!block.is_empty()).then(|| directory_block(layout, &block))
    })
}

fn directory_block(layout: &Layout<'_>, entries: &[(&[u8], NodeId)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK as usize);
    let mut name_at = entries.len() * ENTRY_BYTES as usize;
    for (name, child) in entries {
        out.extend_from_slice(&layout.slot(*child).to_le_bytes());
        out.extend_from_slice(&u16::try_from(name_at).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&[file_type(&layout.tree.node(*child).content), 0]);
        name_at += name.len();
    }
    for (name, _) in entries {
        out.extend_from_slice(name);
    }
    out
}

/// The kind of an entry as readdir(3) says it, in the kernel's own numbers.
fn file_type(content: &Content<'_>) -> u8 {
    match content {
        Content::File(_) => 1,
        Content::Directory(_) => 2,
        Content::Device(device) if device.block => 4,
        Content::Device(_) | Content::Whiteout | Content::LowerLink(_) => 3,
        Content::Fifo => 5,
        Content::Symlink(_) => 7,
    }
}
