//! Reading blobs.

use std::fs::File;
use std::io::{self, Read};

use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, Document};
use crate::store::Store;

impl Store {
    /// Whether blob `digest` is here now. Only a [`crate::Transaction`] keeps it here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Opens blob `digest`; its size in bytes. Its content is not checked: wrap it in a [`Verified`] reader.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchBlob(*digest));
            }
            other => other.context("open", &path)?,
        };
        let size = file.metadata().context("stat", &path)?.len();
        Ok((file, size))
    }

    /// Reads a document blob whole and checks it against its digest and `size`.
    pub fn read_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let what = || format!("blob {digest}");
        if size > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: what(),
                size,
                max: DOCUMENT_BYTES_MAX,
            });
        }
        let (file, found) = self.open_blob(digest)?;
        if found != size {
            return Err(Error::SizeMismatch {
                what: what(),
                expected: size,
                found,
            });
        }
        read_checked(file, digest, size)
    }

    /// Reads a manifest or index and checks it.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        let bytes = self.read_blob(&descriptor.digest, descriptor.size)?;
        Document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| Error::Document {
            what: descriptor.digest.to_string(),
            source,
        })
    }
}

/// Reads blob `digest` of `size` bytes whole, from its open file, and checks it.
pub(crate) fn read_checked(file: File, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
    let what = || format!("blob {digest}");
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let read = file.take(size).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read {
        what: what(),
        source,
    })?;
    let mut hasher = crate::digest::Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    match hasher.finish() {
        found if found == *digest => Ok(bytes),
        found => Err(Error::DigestMismatch {
            what: what(),
            expected: Box::new(*digest),
            found: Box::new(found),
        }),
    }
}

/// Reads a blob and fails at its end unless size and digest match.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: crate::digest::Hasher,
    expected: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Expects `inner` to yield `size` bytes of digest `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Verified<R> {
        Verified {
            inner,
            hasher: crate::digest::Hasher::new(expected.algorithm()),
            expected,
            left: size,
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let corrupt = |why: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("blob {} is corrupt: {why}", self.expected),
            )
        };
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| corrupt("it is too long"))?;
        if n == 0 && !buffer.is_empty() {
            if self.left > 0 {
                return Err(corrupt("it is too short"));
            }
            if self.hasher.clone().finish() != self.expected {
                return Err(corrupt("its digest is another"));
            }
        }
        Ok(n)
    }
}
