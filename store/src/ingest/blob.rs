//! The first half of the pipeline: the blob, checked and kept while it is inflated.

use std::io::{self, BufReader, Read, Write};
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
            let mut decoder =
                zstd::Decoder::with_buffer(BufReader::with_capacity(PIECE_BYTES, blob))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            sink.fill_from(decoder)
        }
    }
}
