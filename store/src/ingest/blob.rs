//! The first half of the pipeline: the blob, checked and kept while it is inflated.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use super::early::{self, EarlyFile};
use super::sink::{PIECE_BYTES, TarSink};
use crate::digest::Hasher;
use crate::error::{Context, Error};
use crate::image::Descriptor;
use crate::image::media_type::Compression;
use crate::transaction::Transaction;

/// Largest window of a zstd frame, as the binary logarithm of bytes: 128 MiB. The decoder allocates it whole;
/// zstd's own command line takes no larger ones either unless asked to.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Hands the blob's bytes on, hashes and keeps them.
pub(super) struct BlobTee<'p, R> {
    transaction: &'p Transaction,
    inner: R,
    hasher: Hasher,
    kept: Option<(PathBuf, EarlyFile)>,
    expected: Descriptor,
    read: u64,
    progress: &'p mut dyn FnMut(u64),
    /// What stopped the blob; the inflater only sees a sign of it.
    failed: Option<Error>,
}

impl<'p, R: Read> BlobTee<'p, R> {
    pub(super) fn new(
        transaction: &'p Transaction,
        inner: R,
        expected: &Descriptor,
        keep: bool,
        progress: &'p mut dyn FnMut(u64),
    ) -> Result<BlobTee<'p, R>, Error> {
        let kept = if keep {
            let (path, file) = transaction.partial_file(&expected.digest)?;
            Some((path, EarlyFile::new(file)))
        } else {
            None
        };
        let hasher = Hasher::new(expected.digest.algorithm());
        Ok(BlobTee {
            transaction,
            inner,
            hasher,
            kept,
            expected: expected.clone(),
            read: 0,
            progress,
            failed: None,
        })
    }

    fn what(&self) -> String {
        format!("layer {}", self.expected.digest)
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let n = loop {
            match self.inner.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    break other.map_err(|source| Error::Read {
                        what: self.what(),
                        source,
                    })?;
                }
            }
        };
        self.read += n as u64;
        if self.read > self.expected.size {
            return Err(Error::SizeMismatch {
                what: self.what(),
                expected: self.expected.size,
                found: self.read,
            });
        }
        self.hasher.update(&buffer[..n]);
        if let Some((path, file)) = &mut self.kept {
            file.write_all(&buffer[..n]).context("write", path)?;
        }
        (self.progress)(self.read);
        Ok(n)
    }

    /// Reads what the inflater left and checks the whole. The blob's unfinished file, synced.
    pub(super) fn finish(mut self) -> Result<Option<PathBuf>, Error> {
        let mut buffer = vec![0; PIECE_BYTES];
        while self.failed.is_none() {
            if let Ok(0) = self.read(&mut buffer) {
                break;
            }
        }
        if let Some(err) = self.failed.take() {
            self.give_up(&err);
            return Err(err);
        }
        if let Err(err) = self.check() {
            self.give_up(&err);
            return Err(err);
        }
        let Some((path, file)) = self.kept else {
            return Ok(None);
        };
        let file = file.finish().context("sync", &path)?;
        early::forget(&file);
        Ok(Some(path))
    }

    /// What was kept of a blob that broke off is right as far as it goes; of any other it is worth nothing.
    fn give_up(&self, err: &Error) {
        let Some((path, _)) = &self.kept else {
            return;
        };
        let length = match err {
            Error::Read { .. } => self.read,
            _ => 0,
        };
        self.transaction.leave_partial(path, length);
    }

    /// The blob is as long, and has the digest, as promised.
    fn check(&mut self) -> Result<(), Error> {
        let (what, expected) = (self.what(), &self.expected);
        if self.read != expected.size {
            return Err(Error::SizeMismatch {
                what,
                expected: expected.size,
                found: self.read,
            });
        }
        let found = self.hasher.clone().finish();
        if found != expected.digest {
            return Err(Error::DigestMismatch {
                what,
                expected: Box::new(expected.digest),
                found: Box::new(found),
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for BlobTee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Err(io::Error::other("the blob ended early"));
        }
        self.step(buffer).map_err(|err| {
            self.failed = Some(err);
            io::Error::other("the blob ended early")
        })
    }
}

/// Inflates `blob` into `sink`, whole.
pub(super) fn inflate<R: Read>(
    compression: Compression,
    blob: &mut BlobTee<'_, R>,
    sink: &mut TarSink,
) -> io::Result<()> {
    match compression {
        Compression::None => sink.fill_from(blob),
        Compression::Gzip => sink.fill_from(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(PIECE_BYTES, blob),
        )),
        Compression::Zstd => {
            let mut blob = BufReader::with_capacity(PIECE_BYTES, blob);
            check_window(blob.fill_buf()?)?;
            let mut decoder = zstd::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            sink.fill_from(decoder)
        }
    }
}

/// Says how large a window is that is too large; the decoder, which refuses it too, only says that it is.
fn check_window(frame: &[u8]) -> io::Result<()> {
    match window_bytes(frame).filter(|bytes| *bytes > 1 << ZSTD_WINDOW_LOG_MAX) {
        None => Ok(()),
        Some(bytes) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the zstd frame needs a window of {bytes} bytes, more than {}",
                1 << ZSTD_WINDOW_LOG_MAX
            ),
        )),
    }
}

/// How much a zstd frame makes its decoder keep, in bytes (RFC 8878, 3.1.1.1); `None` where `frame` is none.
fn window_bytes(frame: &[u8]) -> Option<u64> {
    let (descriptor, header) = frame.strip_prefix(b"\x28\xb5\x2f\xfd")?.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *header.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window is the whole content, whose size stands behind the dictionary's id.
    let dictionary_id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = header.get(dictionary_id..)?;
    let number = |length: usize| {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(size.get(..length)?);
        Some(u64::from_le_bytes(bytes))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2).map(|size| size + 256),
        2 => number(4),
        _ => number(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &[u8]) -> Vec<u8> {
        [b"\x28\xb5\x2f\xfd", header].concat()
    }

    #[test]
    fn windows_are_read_from_the_frames_header() {
        let rows: [(&[u8], Option<u64>); 8] = [
            (&[0x00, 17 << 3], Some(128 << 20)),
            (&[0x00, 17 << 3 | 1], Some(144 << 20)),
            (&[0x00, 0xff], Some(15 << 38)),
            (&[0x20, 7], Some(7)),
            (&[0x61, 9, 1, 2], Some(0x0201 + 256)),
            (&[0xa0, 0, 0, 0, 0x80], Some(1 << 31)),
            (&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0], Some(1 << 32)),
            (&[0xe0, 0, 0], None),
        ];
        for (header, bytes) in rows {
            assert_eq!(window_bytes(&frame(header)), bytes, "{header:x?}");
        }
        assert_eq!(window_bytes(b"ustar"), None);
    }

    #[test]
    fn a_window_of_2_gib_is_refused_with_its_size() {
        let mut packed = Vec::new();
        let mut encoder = zstd::Encoder::new(&mut packed, 1).unwrap();
        encoder.window_log(31).unwrap();
        encoder.write_all(&[7; 1000]).unwrap();
        encoder.finish().unwrap();
        let refused = check_window(&packed).unwrap_err().to_string();
        assert!(refused.contains("2147483648 bytes"), "{refused}");
        let usual = zstd::encode_all(&b"x"[..], 19).unwrap();
        check_window(&usual).unwrap();
    }
}
