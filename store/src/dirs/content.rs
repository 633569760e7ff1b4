//! A file's content, copied out of a tar within the kernel where the file systems can.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

use super::{Doing, Done};
use crate::tar::{Extent, Odd};
use crate::tree;

/// Size of the pieces in which content is copied by reading and writing, in bytes.
const COPY_BYTES: usize = 128 * 1024;

/// Copies the content of `file` out of `tar` into the empty file `out`, then calls `describe`.
pub(super) fn copy(
    file: tree::File<'_>,
    tar: &File,
    out: &File,
    describe: impl FnOnce(&File) -> Done,
) -> Done {
    match file.odd {
        None | Some(Odd::DirtyPadding) => {
            let whole = Extent {
                offset: 0,
                length: file.size,
            };
            copy_extent(tar, file.offset, out, whole)?;
        }
        Some(Odd::Sparse(extents)) => {
            out.set_len(file.size).doing("extend")?;
            let mut from = file.offset;
            for extent in extents {
                copy_extent(tar, from, out, *extent)?;
                from += extent.length;
            }
        }
    }
    describe(out)
}

fn copy_extent(tar: &File, from: u64, out: &File, extent: Extent) -> Done {
    let mut done = 0;
    while done < extent.length {
        let (mut read_at, mut write_at) = (from + done, extent.offset + done);
        let left = usize::try_from(extent.length - done)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match copy_file_range(tar, Some(&mut read_at), out, Some(&mut write_at), left) {
            Ok(0) => return Err(("read", io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => done += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(
                    tar,
                    from + done,
                    out,
                    Extent {
                        offset: extent.offset + done,
                        length: extent.length - done,
                    },
                );
            }
            Err(errno) => return Err(errno).doing("write"),
        }
    }
    Ok(())
}

fn copy_by_hand(tar: &File, from: u64, out: &File, extent: Extent) -> Done {
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while done < extent.length {
        let n = usize::try_from(extent.length - done)
            .unwrap_or(COPY_BYTES)
            .min(COPY_BYTES);
        tar.read_exact_at(&mut buffer[..n], from + done)
            .doing("read")?;
        out.write_all_at(&buffer[..n], extent.offset + done)
            .doing("write")?;
        done += n as u64;
    }
    Ok(())
}
