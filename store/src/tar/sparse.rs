//! Sparse members: GNU's old header ('S') and PAX versions 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").

use super::fields::number;
use super::pax::SparseKeys;
use super::{Extent, FileData, Odd};

/// Most pieces of one sparse file. Each costs 16 bytes of memory while the layer is read; a disk image of 256 GiB
/// in 4 MiB pieces has as many.
pub(super) const PIECES_MAX: usize = 65_536;
/// Largest sparse file, in bytes: ext4's own limit with 4 KiB blocks.
const SIZE_BYTES_MAX: u64 = 16 << 40;

/// How a sparse member's data is to be read.
#[derive(Debug, PartialEq)]
pub(super) struct Sparse {
    pub(super) real_size: u64,
    pub(super) extents: Vec<Extent>,
}

/// The pieces in a block of an old GNU header: `count` pairs of 12-byte numbers from `start`, ended by an empty one.
pub(super) fn old_gnu_pieces(
    block: &[u8; 512],
    start: usize,
    count: usize,
    out: &mut Vec<Extent>,
) -> Result<(), String> {
    for pair in block[start..start + 24 * count].chunks_exact(24) {
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        let value = |field: &[u8]| {
            number(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or("bad sparse piece")
        };
        push(out, value(&pair[..12])?, value(&pair[12..])?)?;
    }
    Ok(())
}

/// The pieces of PAX versions 0.0 and 0.1.
pub(super) fn pax_pieces(numbers: &[u64]) -> Result<Vec<Extent>, String> {
    if !numbers.len().is_multiple_of(2) {
        return Err("sparse map has an offset without a length".into());
    }
    let mut extents = Vec::new();
    for pair in numbers.chunks_exact(2) {
        push(&mut extents, pair[0], pair[1])?;
    }
    Ok(extents)
}

/// Reads the map of PAX version 1.0, which precedes the data: decimal numbers, a line each, the first their count.
/// `next_block` yields the member's blocks; the map fills whole blocks. Returns the pieces and the map's size in bytes.
pub(super) fn pax_1_0(
    mut next_block: impl FnMut() -> Result<[u8; 512], String>,
) -> Result<(Vec<Extent>, u64), String> {
    let mut blocks = 0;
    let mut block = [0; 512];
    let mut at = 512;
    let mut next_number = || -> Result<(u64, u64), String> {
        let mut value: u64 = 0;
        let mut any = false;
        loop {
            if at == 512 {
                block = next_block()?;
                blocks += 1;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'0'..=b'9' => {
                    value = value
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                        .ok_or("sparse number too large")?;
                    any = true;
                }
                b'\n' if any => return Ok((value, blocks)),
                _ => return Err("bad sparse map".into()),
            }
        }
    };
    let (count, mut used) = next_number()?;
    if count > PIECES_MAX as u64 {
        return Err(too_many());
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        let offset = next_number()?.0;
        let (length, blocks) = next_number()?;
        push(&mut extents, offset, length)?;
        used = blocks;
    }
    Ok((extents, used * 512))
}

/// What the keys of a PAX header say of a member that has no map in its data; `None`: it is not sparse.
pub(super) fn from_keys(keys: &SparseKeys, tape_size: u64) -> Result<Option<Sparse>, String> {
    match &keys.map {
        None if keys.is_used() => Err("sparse member without a map".into()),
        None => Ok(None),
        Some(map) => Ok(Some(Sparse {
            real_size: keys.real_size.unwrap_or(tape_size),
            extents: pax_pieces(map)?,
        })),
    }
}

fn push(extents: &mut Vec<Extent>, offset: u64, length: u64) -> Result<(), String> {
    if extents.len() == PIECES_MAX {
        return Err(too_many());
    }
    extents.push(Extent { offset, length });
    Ok(())
}

fn too_many() -> String {
    format!("a sparse file of more than {PIECES_MAX} pieces")
}

impl Sparse {
    /// Checks the map against the data's size on tape: in order, without overlap, inside the file, complete.
    pub(super) fn check(self, data_offset: u64, data_size: u64) -> Result<FileData, String> {
        if self.real_size > SIZE_BYTES_MAX {
            return Err(format!(
                "a sparse file of {} bytes, more than any file system holds",
                self.real_size
            ));
        }
        let mut end = 0_u64;
        let mut total = 0_u64;
        for extent in &self.extents {
            let next = extent
                .offset
                .checked_add(extent.length)
                .filter(|next| extent.offset >= end && *next <= self.real_size);
            end = next.ok_or("sparse pieces overlap or leave the file")?;
            total += extent.length;
        }
        if total != data_size {
            return Err(format!(
                "sparse pieces of {total} bytes in a member of {data_size}"
            ));
        }
        // A piece of no bytes only marks the file's end.
        let extents: Vec<Extent> = self
            .extents
            .into_iter()
            .filter(|extent| extent.length > 0)
            .collect();
        Ok(FileData {
            size: self.real_size,
            offset: data_offset,
            odd: Some(Odd::Sparse(extents.into())),
        })
    }
}
