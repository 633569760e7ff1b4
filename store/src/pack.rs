//! Deterministic gzip and zstd with all processors: the same tar gives the same bytes,
//! on any machine and with any number of processors.
//!
//! The tar is cut into blocks of a fixed length. For gzip each is deflated for itself
//! and ends at a byte boundary (RFC 1951, an empty stored block), so that the
//! blocks in their order are one deflate stream in one gzip member (RFC 1952)
//! without name and time. For zstd each is a frame of its own, and frames one
//! behind the other are one stream (RFC 8878). Independent blocks cost 1 to 2 % of size.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Length of a block of the tar. It is part of the format: another length gives other digests.
const BLOCK_BYTES: usize = 1 << 20;

/// The same for zstd: the window of its default level, beyond which it would not look back anyway.
const FRAME_BYTES: usize = 2 << 20;

/// zlib's own default level, as everyone else's. Part of the format, too.
pub const GZIP_LEVEL: u32 = 6;

/// zstd's own default level.
pub const ZSTD_LEVEL: i32 = 3;

/// Blocks in flight for each processor, so that none waits.
const BLOCKS_PER_WORKER: usize = 2;

/// Header of RFC 1952: deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block of the tar, or what became of it, with its place.
type Numbered<T> = (u64, T);

/// A packed block, and what gzip's trailer needs of its content.
struct Packed {
    bytes: Vec<u8>,
    crc: Option<Crc>,
}

/// How blocks are packed, and at which level.
#[derive(Clone, Copy)]
enum Method {
    Gzip(u32),
    Zstd(i32),
}

/// Writes `content` to `out` as gzip; the number of bytes of `content`.
///
/// # Errors
/// The first of reading or writing.
pub fn gzip(content: impl Read + Send, out: &mut impl Write) -> io::Result<u64> {
    gzip_at(content, out, GZIP_LEVEL)
}

/// Writes `content` to `out` as zstd of `level`, 1 to 22; the number of bytes of `content`.
/// The library's version decides about the bytes, the processor does not.
///
/// # Errors
/// The first of reading or writing.
pub fn zstd(content: impl Read + Send, out: &mut impl Write, level: i32) -> io::Result<u64> {
    packed(content, Method::Zstd(level), |blocks| {
        let mut blocks = blocks.peekable();
        if blocks.peek().is_none() {
            out.write_all(&frame(&mut encoder(level)?, &[])?.bytes)?;
        }
        blocks.try_for_each(|block| out.write_all(&block?.bytes))
    })
}

/// As [`gzip`], at a `level` from 0 to 9.
///
/// # Errors
/// As [`gzip`].
pub fn gzip_at(content: impl Read + Send, out: &mut impl Write, level: u32) -> io::Result<u64> {
    packed(content, Method::Gzip(level), |blocks| member(blocks, out))
}

/// Packs `content` on all processors; `write` is given the blocks in their order.
fn packed(
    content: impl Read + Send,
    method: Method,
    write: impl FnOnce(&mut dyn Iterator<Item = io::Result<Packed>>) -> io::Result<()>,
) -> io::Result<u64> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let depth = workers * BLOCKS_PER_WORKER;
    let (block_in, block_out) = mpsc::sync_channel::<Numbered<Vec<u8>>>(depth);
    let (done_in, done_out) = mpsc::sync_channel::<Numbered<io::Result<Packed>>>(depth);
    let block_out = Arc::new(Mutex::new(block_out));
    thread::scope(|scope| {
        let reader = scope.spawn(move || cut(content, method.block_bytes(), &block_in));
        for _ in 0..workers {
            let (blocks, done) = (Arc::clone(&block_out), done_in.clone());
            scope.spawn(move || pack_all(&blocks, &done, method));
        }
        // Only the workers hold these now: when they end, or when the writer
        // fails and drops its end, the others notice.
        drop((block_out, done_in));
        let written = write(&mut in_order(done_out));
        let read = reader
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")));
        written?;
        read
    })
}

impl Method {
    fn block_bytes(self) -> usize {
        match self {
            Method::Gzip(_) => BLOCK_BYTES,
            Method::Zstd(_) => FRAME_BYTES,
        }
    }
}

/// Cuts `content` into blocks; all but the last have the full length.
fn cut(
    mut content: impl Read,
    block_bytes: usize,
    blocks: &SyncSender<Numbered<Vec<u8>>>,
) -> io::Result<u64> {
    let mut total = 0;
    for number in 0.. {
        let mut block = Vec::with_capacity(block_bytes);
        content
            .by_ref()
            .take(block_bytes as u64)
            .read_to_end(&mut block)?;
        let is_last = block.len() < block_bytes;
        total += block.len() as u64;
        // An error means that the writer gave up; it says why.
        if (!block.is_empty() && blocks.send((number, block)).is_err()) || is_last {
            break;
        }
    }
    Ok(total)
}

fn pack_all(
    blocks: &Mutex<Receiver<Numbered<Vec<u8>>>>,
    done: &SyncSender<Numbered<io::Result<Packed>>>,
    method: Method,
) {
    let mut encoder = match method {
        Method::Gzip(_) => None,
        Method::Zstd(level) => Some(encoder(level)),
    };
    loop {
        let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = next else { return };
        let packed = match (method, &mut encoder) {
            (Method::Gzip(level), _) => Ok(deflate(&block, level)),
            (Method::Zstd(_), Some(Ok(encoder))) => frame(encoder, &block),
            (Method::Zstd(_), _) => Err(io::Error::other("no memory for a zstd encoder")),
        };
        if done.send((number, packed)).is_err() {
            return;
        }
    }
}

fn encoder(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut encoder = zstd::bulk::Compressor::new(level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// One block as a frame, which says its length and its checksum.
fn frame(encoder: &mut zstd::bulk::Compressor<'_>, block: &[u8]) -> io::Result<Packed> {
    let bytes = encoder.compress(block)?;
    Ok(Packed { bytes, crc: None })
}

/// What is done, by its number.
fn in_order(
    done: Receiver<Numbered<io::Result<Packed>>>,
) -> impl Iterator<Item = io::Result<Packed>> {
    let mut waiting = BTreeMap::new();
    (0..).map_while(move |next| {
        while !waiting.contains_key(&next) {
            let (number, block) = done.recv().ok()?;
            waiting.insert(number, block);
        }
        waiting.remove(&next)
    })
}

/// One block as a piece of a deflate stream that ends at a byte boundary.
fn deflate(block: &[u8], level: u32) -> Packed {
    let mut compress = Compress::new(Compression::new(level), false);
    // Incompressible data grows by 5 bytes for each 16 KiB, and the boundary takes 5.
    let mut bytes = Vec::with_capacity(block.len() + block.len() / 1024 + 64);
    loop {
        let consumed = compress.total_in() as usize;
        let status = compress.compress_vec(&block[consumed..], &mut bytes, FlushCompress::Full);
        let everything = compress.total_in() as usize == block.len();
        match status {
            Ok(Status::Ok | Status::StreamEnd) if everything && bytes.len() < bytes.capacity() => {
                break;
            }
            // More room and once more; deflate cannot fail in another way.
            _ => bytes.reserve(BLOCK_BYTES / 4),
        }
    }
    let mut crc = Crc::new();
    crc.update(block);
    Packed {
        bytes,
        crc: Some(crc),
    }
}

/// Writes blocks as one gzip member, between header and trailer.
fn member(
    blocks: &mut dyn Iterator<Item = io::Result<Packed>>,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(&HEADER)?;
    let mut crc = Crc::new();
    for block in blocks {
        let block = block?;
        out.write_all(&block.bytes)?;
        block.crc.iter().for_each(|part| crc.combine(part));
    }
    // The last block of the stream: final, fixed codes, empty.
    out.write_all(&[0x03, 0x00])?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(gzip(content, &mut out).unwrap(), content.len() as u64);
        out
    }

    /// Bytes that deflate neither well nor badly.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let step = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*state >> 24) as u8
        };
        (0..length)
            .map(|at| {
                if at / 4096 % 3 == 0 {
                    7
                } else {
                    step(&mut state)
                }
            })
            .collect()
    }

    #[test]
    fn every_length_inflates_to_what_it_was() {
        for length in [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            3 * BLOCK_BYTES + 77,
        ] {
            let content = noise(length);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzipped(&content)[..])
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == content, "{length}");
        }
        for length in [0, 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES + 77] {
            let content = noise(length);
            let mut packed = Vec::new();
            assert_eq!(
                zstd(&content[..], &mut packed, ZSTD_LEVEL).unwrap(),
                length as u64
            );
            assert!(
                zstd::decode_all(&packed[..]).unwrap() == content,
                "{length}"
            );
        }
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let content = noise(3 * BLOCK_BYTES + 5);
        let first = gzipped(&content);
        assert!((0..2).all(|_| gzipped(&content) == first));
        let zstd = || {
            let mut out = Vec::new();
            zstd(&content[..], &mut out, ZSTD_LEVEL).map(|_| out)
        };
        assert_eq!(zstd().unwrap(), zstd().unwrap());
        assert_eq!(first[..10], HEADER);
    }

    #[test]
    fn errors_end_all_threads() {
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad"))
            }
        }
        impl Write for Bad {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let content = noise(3 * BLOCK_BYTES);
        let error = gzip(Read::chain(&content[..], Bad), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "bad");
        let full = [
            gzip(&content[..], &mut Bad),
            zstd(&content[..], &mut Bad, ZSTD_LEVEL),
        ];
        for failed in full {
            assert_eq!(failed.unwrap_err().to_string(), "full");
        }
    }
}
