//! Content that blocks of a tar cannot show truly: sparse files, and files whose padding is not zero,
//! which a program that maps the file would see behind its end. It is copied into the image.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::layout::add;
use super::{BLOCK, ErofsError};
use crate::tar::{Extent, Odd};
use crate::tree::File;

/// Most chunks of a sparse file's map; each takes 8 bytes of the image.
const CHUNKS_MAX: u64 = 1 << 17;
/// Smallest chunk of a sparse file: 8 blocks, a page.
const CHUNK_BITS_MIN: u8 = 3;
/// Size of the pieces in which content is copied, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// Bytes of a tar that go into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which chunk.
    chunk: u64,
    /// Where in the chunk, in bytes.
    at: u64,
    /// Where in the tar, in bytes.
    from: u64,
    /// How many bytes.
    length: u64,
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

/// What of `file` is not zero, cut at the borders of its chunks; in order.
fn pieces<'f>(file: &'f File<'f>, chunk_bits: u8) -> impl Iterator<Item = Piece> + 'f {
    let whole = Extent {
        offset: 0,
        length: file.size,
    };
    let (whole, extents) = match file.odd {
        Some(Odd::Sparse(extents)) => (None, extents.as_ref()),
        Some(Odd::DirtyPadding) | None => (Some(whole), &[][..]),
    };
    let chunk_bytes = BLOCK << chunk_bits;
    let mut extents = whole.into_iter().chain(extents.iter().copied());
    let mut from = file.offset;
    let mut rest = Extent {
        offset: 0,
        length: 0,
    };
    std::iter::from_fn(move || {
        while rest.length == 0 {
            rest = extents.next()?;
        }
        let at = rest.offset % chunk_bytes;
        let piece = Piece {
            chunk: rest.offset / chunk_bytes,
            at,
            from,
            length: rest.length.min(chunk_bytes - at),
        };
        rest.offset += piece.length;
        rest.length -= piece.length;
        from += piece.length;
        Some(piece)
    })
}

/// The chunks of `file` that hold data, in order, and the blocks of each.
pub(super) fn chunks<'f>(
    file: &'f File<'f>,
    chunk_bits: u8,
) -> impl Iterator<Item = (u64, u64)> + 'f {
    let chunk_bytes = BLOCK << chunk_bits;
    let mut last = None;
    pieces(file, chunk_bits).filter_map(move |piece| {
        let is_new = last.replace(piece.chunk) != Some(piece.chunk);
        let length = chunk_bytes.min(file.size - piece.chunk * chunk_bytes);
        is_new.then_some((piece.chunk, length.div_ceil(BLOCK)))
    })
}

/// How many blocks of an image `file` takes.
pub(super) fn blocks(file: &File<'_>, chunk_bits: u8) -> Result<u32, ErofsError> {
    let mut blocks = chunks(file, chunk_bits);
    blocks.try_fold(0, |sum, (_, blocks)| {
        add(
            sum,
            u32::try_from(blocks).map_err(|_| ErofsError::TooLarge)?,
        )
    })
}

/// Copies the content of `file` to block `block` of the image, and on.
pub(super) fn copy(
    file: &File<'_>,
    chunk_bits: u8,
    block: u32,
    tars: &[&fs::File],
    out: &mut fs::File,
) -> io::Result<()> {
    let tar = tars
        .get(usize::from(file.layer))
        .ok_or(io::ErrorKind::NotFound)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut chunks = chunks(file, chunk_bits);
    let (mut chunk, mut start, mut next) = (None, 0, u64::from(block));
    for piece in pieces(file, chunk_bits) {
        if chunk != Some(piece.chunk) {
            chunk = Some(piece.chunk);
            start = next;
            next += chunks.next().map_or(0, |(_, blocks)| blocks);
        }
        out.seek(SeekFrom::Start(start * BLOCK + piece.at))?;
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
        let extents = [(100, 5000), (19_000, 10)].map(|(offset, length)| Extent { offset, length });
        let odd = Odd::Sparse(extents.into());
        let file = File {
            layer: 0,
            size: 20_000,
            offset: 1024,
            odd: Some(&odd),
        };
        let pieces: Vec<_> = pieces(&file, 3)
            .map(|piece| (piece.chunk, piece.at, piece.from, piece.length))
            .collect();
        let cut = [
            (0, 100, 1024, 3996),
            (1, 0, 5020, 1004),
            (4, 19_000 - 16_384, 6024, 10),
        ];
        assert_eq!(pieces, cut);
        // The last chunk ends with the file.
        assert_eq!(
            chunks(&file, 3).collect::<Vec<_>>(),
            [(0, 8), (1, 8), (4, 8)]
        );
        assert_eq!(
            chunks(
                &File {
                    size: 16_500,
                    ..file
                },
                3
            )
            .last(),
            Some((4, 1))
        );
        assert_eq!(blocks(&file, 3).unwrap(), 24);
    }

    #[test]
    fn maps_stay_short() {
        assert_eq!(chunk_bits(1), 3);
        let bits = chunk_bits(16 << 40);
        assert!(((16_u64 << 40) / BLOCK) >> bits <= CHUNKS_MAX);
    }
}
