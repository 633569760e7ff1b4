//! Writes EROFS images that hold metadata only: file data stays in the layers' tars, which are further devices.
//!
//! tree -> [`layout`] (where everything goes, pure) -> [`image`] (the bytes, in their order) -> a file -> [`crate::mount`].
//!
//! ```text
//! byte 0        nothing (boot sectors live here elsewhere)
//! byte 1024     superblock, 128 bytes
//! byte 1152     device table, 128 bytes a device
//! next block    shared extended attributes
//! next block    inodes, each with its own attributes and the tail of its data; the root first
//! next block    blocks of directories and long symbolic links
//! next block    spill: content of files that blocks of a tar cannot show
//! ```
//! The format is that of Linux, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. Blocks have 512 bytes,
//! so that every member of a tar starts at one.

mod image;
mod layout;
mod spill;
#[cfg(test)]
mod tests;
mod walk;
mod xattr;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use crate::tree::Tree;

/// Size of a block in bytes, and its binary logarithm.
pub(crate) const BLOCK: u64 = 512;
const BLOCK_BITS: u8 = 9;
/// What statfs(2) says of an EROFS mount; linux/magic.h.
pub(crate) const MAGIC: u32 = 0xe0f5_e1e2;
/// Most devices of one image; the table must leave room below the 16-bit root inode, and images have at most 128 layers.
const DEVICES_MAX: usize = 1024;

/// Why a tree does not become an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErofsError {
    /// Numbers of blocks have 32 bits: 2 TiB a device.
    #[error("the layer is larger than the 2 TiB that an EROFS index can address")]
    TooLarge,
    /// The attributes of one file take more than the 256 KiB that an inode can count.
    #[error("a file with more than 256 KiB of extended attributes")]
    TooManyXattrs,
    /// More than [`DEVICES_MAX`] layers.
    #[error("an image of more than {DEVICES_MAX} layers")]
    TooManyDevices,
    /// The output, or a tar.
    #[error("write the EROFS index")]
    Io(#[from] io::Error),
}

/// Writes the image of `tree` to `out`, an empty file. `tars` are the devices, by the number in the files' `layer`;
/// files that their blocks cannot show are read from them. `uuid` tells images apart for overlay file systems.
/// Deterministic: the same tree gives the same bytes.
pub(crate) fn write(
    tree: &Tree,
    tars: &[&File],
    uuid: [u8; 16],
    out: &mut File,
) -> Result<(), ErofsError> {
    if tars.len() > DEVICES_MAX {
        return Err(ErofsError::TooManyDevices);
    }
    let layout = layout::plan(tree, tars.len())?;
    let mut device_blocks = Vec::new();
    for tar in tars {
        let blocks = tar.metadata()?.len().div_ceil(BLOCK);
        device_blocks.push(u32::try_from(blocks).map_err(|_| ErofsError::TooLarge)?);
    }
    image::write(&layout, &device_blocks, uuid, out)?;
    image::copy_spill(&layout, tars, out)?;
    // Holes at the end of the last spilled file, too, are part of the image.
    let size = u64::from(layout.blocks) * BLOCK;
    out.seek(SeekFrom::Start(size))?;
    out.set_len(size)?;
    Ok(())
}
