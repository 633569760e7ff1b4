//! ADD's archives: recognized by their content, unpacked into the layer member by member.
//!
//! Plain, gzip, bzip2, xz and zstd tars, as docker does. Decoders are linked: no program of
//! the host or the image reads an archive.

use super::CopyError;
use super::items::Single;
use super::layer::clamp;
use crate::tree::owner::Owner;
use crate::tree::{Kind as FileKind, Root, Time};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use teu_store::tar::{Attributes, Entry, Extent, FileData, FileSource, Kind, Odd, Reader, Writer};

/// Largest archive after decompression, in bytes: a bomb shall fill no disk.
const ARCHIVE_BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;

/// Bytes by which compressions are told apart.
const MAGIC_BYTES: usize = 6;

/// Size of a tar header.
const HEADER_BYTES: usize = 512;

/// Whether a file is an archive that ADD unpacks.
///
/// # Errors
/// It cannot be opened.
pub fn is_archive(root: &Root, item: &Single) -> Result<bool, CopyError> {
    if item.meta.kind != FileKind::File {
        return Ok(false);
    }
    let mut header = [0; HEADER_BYTES];
    let file = root.open_file(&item.source)?;
    // What cannot be decompressed is a file like any other.
    let read = decoder(file).and_then(|mut decoder| decoder.read_exact(&mut header));
    Ok(read.is_ok() && is_tar_header(&header))
}

/// Whether a block's checksum is right; pax(1), "ustar header block".
fn is_tar_header(block: &[u8; HEADER_BYTES]) -> bool {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    let text = String::from_utf8_lossy(&block[148..156]);
    let written = u64::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    block[0] != 0 && written == Ok(sum)
}

/// Opens the decompressor that the first bytes ask for.
fn decoder(mut file: File) -> io::Result<Box<dyn Read>> {
    file.seek(SeekFrom::Start(0))?;
    decompressed(file)
}

/// The same for a stream that cannot be read twice.
fn decompressed<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = beginning(&mut stream, MAGIC_BYTES)?;
    let magic = start.clone();
    let stream = io::BufReader::new(io::Cursor::new(start).chain(stream));
    Ok(match &magic[..] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(lzma_rust2::XzReader::new(stream, true)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(stream)?),
        _ => Box::new(stream),
    })
}

/// Whether a stream is an archive, and all of it, decompressed.
///
/// # Errors
/// It cannot be read.
pub fn recognize<'a>(stream: impl Read + 'a) -> io::Result<(bool, Box<dyn Read + 'a>)> {
    let mut plain = decompressed(stream)?;
    let start = beginning(&mut plain, HEADER_BYTES)?;
    let header: Option<&[u8; HEADER_BYTES]> = start.as_slice().try_into().ok();
    let is_archive = header.is_some_and(is_tar_header);
    Ok((is_archive, Box::new(io::Cursor::new(start).chain(plain))))
}

/// The first bytes of a stream, fewer where it is shorter.
fn beginning(stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(length);
    stream.take(length as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// What becomes of an archive's members.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The directory that they go to.
    pub target: &'a Path,
    /// Whose all of them are, where it is not what the archive says.
    pub owner: Option<Owner>,
    /// No time of theirs is later.
    pub latest: Time,
}

/// Writes the members of the archive `source` where `place` says.
///
/// # Errors
/// An archive that is broken, leads out of the target or cannot be shown in a layer.
pub fn unpack(
    tar: &mut Writer<impl Write>,
    root: &Root,
    source: &Path,
    place: Place<'_>,
) -> Result<(), CopyError> {
    let fail = |error: io::Error| CopyError::Unpack {
        path: Path::new("/").join(source),
        source: error,
    };
    let plain = decompress(root.open_file(source)?).map_err(fail)?;
    let mut reader = Reader::new(FileSource::new(&plain).map_err(fail)?);
    loop {
        match reader
            .next(|| {})
            .map_err(|error| fail(io::Error::other(error)))?
        {
            None => return Ok(()),
            Some(entry) => member(tar, &plain, entry, place).map_err(fail)?,
        }
    }
}

/// The archive as a plain file: an unnamed one, where it has to be decompressed.
fn decompress(file: File) -> io::Result<File> {
    let mut plain = unnamed()?;
    let copied = io::copy(&mut decoder(file)?.take(ARCHIVE_BYTES_MAX), &mut plain)?;
    if copied == ARCHIVE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {ARCHIVE_BYTES_MAX} bytes after decompression"),
        ));
    }
    Ok(plain)
}

fn unnamed() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn member(
    tar: &mut Writer<impl Write>,
    archive: &File,
    entry: Entry,
    place: Place<'_>,
) -> io::Result<()> {
    let path = below(place.target, &entry.path)?;
    let name = path.as_os_str().as_bytes();
    let time = Time {
        seconds: entry.attributes.mtime.seconds,
        nanoseconds: entry.attributes.mtime.nanoseconds,
    };
    let mut attributes = Attributes {
        mtime: clamp(time, place.latest),
        ..entry.attributes
    };
    if let Some(owner) = place.owner {
        (attributes.uid, attributes.gid) = (owner.uid, owner.gid);
    }
    match entry.kind {
        Kind::Directory => tar.directory(name, &attributes),
        Kind::File(data) => tar.file(name, &attributes, data.size, content(archive, &data)),
        Kind::Symlink(link) => tar.symlink(name, &attributes, &link),
        Kind::HardLink(link) => tar.hard_link(
            name,
            &attributes,
            below(place.target, &link)?.as_os_str().as_bytes(),
        ),
        Kind::Device(device) => tar.device(name, &attributes, device),
        Kind::Fifo => tar.fifo(name, &attributes),
    }
}

/// A member's path below the target: no way out, and nothing that a layer would take for a whiteout.
fn below(target: &Path, path: &[u8]) -> io::Result<PathBuf> {
    let mut full = target.to_owned();
    for element in path.split(|byte| *byte == b'/') {
        let bad = |why: &str| {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("member {:?} {why}", String::from_utf8_lossy(path)),
            ))
        };
        match element {
            b"" | b"." => {}
            b".." => return bad("leads out of the archive"),
            name if name.starts_with(b".wh.") => {
                return bad("has a name that means a removal in a layer");
            }
            name => full.push(std::ffi::OsStr::from_bytes(name)),
        }
    }
    Ok(full)
}

/// A file's content, with zeros where the archive has holes.
fn content<'a>(archive: &'a File, data: &FileData) -> Box<dyn Read + 'a> {
    let Some(Odd::Sparse(extents)) = &data.odd else {
        return Box::new(
            At {
                file: archive,
                offset: data.offset,
            }
            .take(data.size),
        );
    };
    Box::new(Sparse {
        file: archive,
        extents: extents.to_vec(),
        next: 0,
        position: 0,
        data: data.offset,
    })
}

/// A sparse file: its pieces of data, zeros between them, without end.
struct Sparse<'a> {
    file: &'a File,
    extents: Vec<Extent>,
    /// The extent that `position` has not passed.
    next: usize,
    /// Where we are in the file.
    position: u64,
    /// Where that extent's data starts in the archive.
    data: u64,
}

impl Read for Sparse<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(done) = self
            .extents
            .get(self.next)
            .filter(|extent| extent.offset + extent.length <= self.position)
        {
            self.data += done.length;
            self.next += 1;
        }
        let wanted = buffer.len() as u64;
        let length = match self.extents.get(self.next) {
            Some(extent) if extent.offset <= self.position => {
                let inside = self.position - extent.offset;
                let length = usize::try_from(wanted.min(extent.length - inside)).unwrap_or(0);
                self.file
                    .read_at(&mut buffer[..length], self.data + inside)?
            }
            hole => {
                let end = hole.map_or(u64::MAX, |extent| extent.offset);
                let length = usize::try_from(wanted.min(end - self.position)).unwrap_or(0);
                buffer[..length].fill(0);
                length
            }
        };
        self.position += length as u64;
        Ok(length)
    }
}

/// Reads a file from a place on, without moving its position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_below_the_target() {
        let place = |path: &str| below(Path::new("t"), path.as_bytes()).ok();
        assert_eq!(place("./a//b/"), Some("t/a/b".into()));
        assert_eq!(place("/etc/passwd"), Some("t/etc/passwd".into()));
        assert_eq!(place("a/../../x"), None);
        assert_eq!(place("a/.wh.b"), None);
    }

    #[test]
    fn holes_are_zeros() {
        let mut file = unnamed().unwrap();
        file.write_all(b"ABCD").unwrap();
        let extents = vec![
            Extent {
                offset: 1,
                length: 2,
            },
            Extent {
                offset: 4,
                length: 2,
            },
        ];
        let sparse = Sparse {
            file: &file,
            extents,
            next: 0,
            position: 0,
            data: 0,
        };
        let mut text = Vec::new();
        sparse.take(8).read_to_end(&mut text).unwrap();
        assert_eq!(text, b"\0AB\0CD\0\0");
    }

    #[test]
    fn archives_are_known_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Writer::new(Vec::new());
        tar.file(
            b"f",
            &Attributes {
                mode: 0o644,
                ..Attributes::default()
            },
            2,
            &b"hi"[..],
        )
        .unwrap();
        let tar = tar.finish().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let files = [
            ("tar", tar.clone()),
            ("gz", gzip.finish().unwrap()),
            ("zst", zstd::encode_all(&tar[..], 1).unwrap()),
            ("text", b"hello".to_vec()),
        ];
        let root = Root::open(dir.path()).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let meta = root.meta(Path::new(name)).unwrap().unwrap();
            let item = Single {
                source: name.into(),
                meta,
            };
            assert_eq!(is_archive(&root, &item).unwrap(), name != "text", "{name}");
            if name == "text" {
                continue;
            }
            let mut out = Writer::new(Vec::new());
            unpack(
                &mut out,
                &root,
                Path::new(name),
                Place {
                    target: Path::new("d"),
                    owner: Some(Owner { uid: 5, gid: 6 }),
                    latest: Time::default(),
                },
            )
            .unwrap();
            let mut made = unnamed().unwrap();
            made.write_all(&out.finish().unwrap()).unwrap();
            let entry = Reader::new(FileSource::new(&made).unwrap())
                .next(|| {})
                .unwrap()
                .unwrap();
            assert_eq!(entry.path, b"d/f", "{name}");
            let owner = (entry.attributes.uid, entry.attributes.gid);
            assert_eq!(owner, (5, 6), "{name}");
        }
    }
}
