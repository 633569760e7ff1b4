//! Content that blocks of a tar cannot show truly: sparse files, and files whose padding is not zero,
//! which a program that maps the file would see behind its end. It is copied into the image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::BLOCK;
use crate::tar::{Extent, FileData};

/// Most chunks of a sparse file's map; each takes 8 bytes of the image.
const CHUNKS_MAX: u64 = 1 << 17;
/// Smallest chunk of a sparse file: 8 blocks, a page.
const CHUNK_BITS_MIN: u8 = 3;
/// Size of the pieces in which content is copied, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// Content of one chunk, to be copied.
#[derive(Debug)]
pub(super) struct Spill {
    /// Which tar.
    pub(super) tar: u16,
    /// Where the chunk goes: a block of the image.
    pub(super) block: u32,
    /// What of it is not zero.
    pub(super) pieces: Vec<Piece>,
}

/// Bytes of a tar that go into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where in the chunk, in bytes.
    pub(super) at: u64,
    /// Where in the tar, in bytes.
    pub(super) from: u64,
    /// How many bytes.
    pub(super) length: u64,
}

/// Size of a sparse file's chunks: the smallest that keeps its map short. A large chunk with little data costs nothing,
/// as the image file itself has holes.
pub(super) fn chunk_bits(size: u64) -> u8 {
    let blocks = size
        .div_ceil(BLOCK)
        .div_ceil(CHUNKS_MAX)
        .next_power_of_two();
    u8::try_from(blocks.trailing_zeros())
        .unwrap_or(31)
        .clamp(CHUNK_BITS_MIN, 31)
}

/// A file in a single chunk.
pub(super) fn whole_file(data: &FileData) -> BTreeMap<u64, Vec<Piece>> {
    BTreeMap::from([(
        0,
        vec![Piece {
            at: 0,
            from: data.offset,
            length: data.size,
        }],
    )])
}

/// Cuts the pieces of a sparse file at the borders of its chunks, by chunk.
pub(super) fn pieces(
    data: &FileData,
    extents: &[Extent],
    chunk_bits: u8,
) -> BTreeMap<u64, Vec<Piece>> {
    let chunk_bytes = BLOCK << chunk_bits;
    let mut out: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
    let mut from = data.offset;
    for extent in extents {
        let (mut offset, mut left) = (extent.offset, extent.length);
        while left > 0 {
            let at = offset % chunk_bytes;
            let length = left.min(chunk_bytes - at);
            out.entry(offset / chunk_bytes)
                .or_default()
                .push(Piece { at, from, length });
            offset += length;
            from += length;
            left -= length;
        }
    }
    out
}

/// Copies one chunk's content.
pub(super) fn copy(spill: &Spill, tars: &[&File], out: &mut File) -> io::Result<()> {
    let tar = tars
        .get(usize::from(spill.tar))
        .ok_or(io::ErrorKind::NotFound)?;
    let mut buffer = vec![0; COPY_BYTES];
    for piece in &spill.pieces {
        out.seek(SeekFrom::Start(u64::from(spill.block) * BLOCK + piece.at))?;
        let mut done = 0;
        while done < piece.length {
            let n = usize::try_from(piece.length - done)
                .unwrap_or(COPY_BYTES)
                .min(COPY_BYTES);
            tar.read_exact_at(&mut buffer[..n], piece.from + done)?;
            out.write_all(&buffer[..n])?;
            done += n as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_at_chunks() {
        let data = FileData {
            size: 20_000,
            offset: 1024,
            odd: None,
        };
        let extents = [
            Extent {
                offset: 100,
                length: 5000,
            },
            Extent {
                offset: 19_000,
                length: 10,
            },
        ];
        let pieces = pieces(&data, &extents, 3);
        assert_eq!(
            pieces[&0],
            [Piece {
                at: 100,
                from: 1024,
                length: 3996
            }]
        );
        assert_eq!(
            pieces[&1],
            [Piece {
                at: 0,
                from: 5020,
                length: 1004
            }]
        );
        assert_eq!(
            pieces[&4],
            [Piece {
                at: 19_000 - 16_384,
                from: 6024,
                length: 10
            }]
        );
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn maps_stay_short() {
        assert_eq!(chunk_bits(1), 3);
        let bits = chunk_bits(16 << 40);
        assert!(((16_u64 << 40) / BLOCK) >> bits <= CHUNKS_MAX);
    }
}
