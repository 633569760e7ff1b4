//! A file's content as a stream, holes and all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::{Extent, Odd};

/// Reads what a member of an archive says a file's content is.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    tar: &'a File,
    /// The file's length in bytes.
    size: u64,
    /// Where its data starts in the archive.
    offset: u64,
    odd: Option<&'a Odd>,
    /// How far the file was read, in bytes.
    at: u64,
    /// The piece of a sparse file that is being read or comes next.
    piece: usize,
    /// Where that piece lies in the archive.
    from: u64,
}

impl<'a> Content<'a> {
    /// The content of a file of `size` bytes whose data starts at `offset` of `tar`; as [`super::FileData`] has them.
    pub(crate) fn new(tar: &'a File, size: u64, offset: u64, odd: Option<&'a Odd>) -> Content<'a> {
        Content {
            tar,
            size,
            offset,
            odd,
            at: 0,
            piece: 0,
            from: offset,
        }
    }

    /// How many bytes come next, and where they lie in the archive; nowhere for a hole.
    fn run(&mut self) -> (u64, Option<u64>) {
        let left = self.size.saturating_sub(self.at);
        let Some(Odd::Sparse(pieces)) = self.odd else {
            return (left, Some(self.offset + self.at));
        };
        while let Some(Extent { offset, length }) = pieces.get(self.piece) {
            if self.at < *offset {
                return ((offset - self.at).min(left), None);
            }
            let inside = self.at - offset;
            if inside < *length {
                return ((length - inside).min(left), Some(self.from + inside));
            }
            self.piece += 1;
            self.from += length;
        }
        (left, None)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, from) = self.run();
        let n = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if n == 0 {
            return Ok(0);
        }
        match from {
            Some(from) => self.tar.read_exact_at(&mut buffer[..n], from)?,
            None => buffer[..n].fill(0),
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// Whether two streams have the same bytes.
pub(crate) fn same(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    /// Size of the pieces compared, in bytes.
    const PIECE_BYTES: usize = 128 * 1024;
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let (n, m) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n < PIECE_BYTES {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::FileData;

    fn content<'a>(tar: &'a File, data: &'a FileData) -> Content<'a> {
        Content::new(tar, data.size, data.offset, data.odd.as_ref())
    }

    fn archive(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn read(tar: &File, data: &FileData) -> Vec<u8> {
        let mut out = Vec::new();
        content(tar, data).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn plain_and_sparse_files() {
        let tar = archive(b"....abcdef");
        let plain = FileData {
            size: 3,
            offset: 4,
            odd: None,
        };
        assert_eq!(read(&tar, &plain), b"abc");
        let extent = |offset, length| Extent { offset, length };
        let sparse = FileData {
            size: 12,
            offset: 4,
            odd: Some(Odd::Sparse(
                [extent(2, 2), extent(4, 0), extent(6, 4)].into(),
            )),
        };
        assert_eq!(read(&tar, &sparse), b"\0\0ab\0\0cdef\0\0");
        let beyond = FileData {
            size: 20,
            offset: 4,
            odd: None,
        };
        assert!(content(&tar, &beyond).read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn streams_are_compared_to_their_ends() {
        let long = vec![7; 300_000];
        assert!(same(&long[..], &long[..]).unwrap());
        assert!(!same(&long[..], &long[1..]).unwrap());
        assert!(!same(&b""[..], &b"x"[..]).unwrap());
        assert!(same(&b""[..], &b""[..]).unwrap());
    }
}
