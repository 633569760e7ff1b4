//! The reader against another one, and against noise.

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, Parser};

use super::{Attributes, Device, Kind, Odd, Reader, TarError, Time, Writer};

/// A member as both readers can tell it: path, link, mode, uid, gid, seconds, size, xattrs, pieces of a sparse file.
type Told = (
    Vec<u8>,
    Option<Vec<u8>>,
    u32,
    u64,
    u64,
    u64,
    u64,
    Vec<(Vec<u8>, Vec<u8>)>,
    Option<Vec<(u64, u64)>>,
);

fn ours(tar: &[u8]) -> Result<Vec<Told>, TarError> {
    let mut reader = Reader::new(tar);
    let mut out = Vec::new();
    while let Some(entry) = reader.next(|| {})? {
        let (link, size, pieces) = match &entry.kind {
            Kind::File(data) => match &data.odd {
                Some(Odd::Sparse(extents)) => (
                    None,
                    data.size,
                    Some(
                        extents
                            .iter()
                            .map(|extent| (extent.offset, extent.length))
                            .collect(),
                    ),
                ),
                _ => (None, data.size, None),
            },
            Kind::Symlink(target) | Kind::HardLink(target) => (Some(target.clone()), 0, None),
            Kind::Directory | Kind::Device(_) | Kind::Fifo => (None, 0, None),
        };
        let attributes = entry.attributes;
        let seconds = u64::try_from(attributes.mtime.seconds).unwrap_or(0);
        let xattrs = attributes
            .xattrs
            .into_iter()
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect();
        let ids = (attributes.uid.into(), attributes.gid.into());
        out.push((
            entry.path,
            link,
            attributes.mode.into(),
            ids.0,
            ids.1,
            seconds,
            size,
            xattrs,
            pieces,
        ));
    }
    Ok(out)
}

fn theirs(tar: &[u8]) -> Result<Vec<Told>, String> {
    let mut parser = Parser::new(Limits::default());
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let input = tar.get(at..).ok_or("the data is cut off")?;
        let (consumed, entry, sparse) = match parser.parse(input).map_err(|err| err.to_string())? {
            ParseEvent::NeedData { .. } if input.is_empty() => return Ok(out),
            ParseEvent::NeedData { .. } => return Err("cut off".into()),
            ParseEvent::GlobalExtensions { consumed, .. } => {
                at += consumed;
                continue;
            }
            ParseEvent::End { .. } => return Ok(out),
            ParseEvent::Entry { consumed, entry } => (consumed, entry, None),
            ParseEvent::SparseEntry {
                consumed,
                entry,
                sparse_map,
                real_size,
            } => {
                let pieces: Vec<(u64, u64)> = sparse_map
                    .iter()
                    .map(|piece| (piece.offset, piece.length))
                    .collect();
                (
                    consumed,
                    entry,
                    Some((
                        real_size,
                        pieces.into_iter().filter(|piece| piece.1 > 0).collect(),
                    )),
                )
            }
        };
        let is_file = entry.is_file() || entry.entry_type == EntryType::Continuous;
        let is_link = entry.is_symlink() || entry.is_hard_link();
        let (size, pieces) = match sparse {
            Some((size, pieces)) => (size, Some(pieces)),
            None => (if is_file { entry.size } else { 0 }, None),
        };
        let mut xattrs: Vec<_> = entry
            .xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        xattrs.sort();
        let link = entry
            .link_target
            .as_ref()
            .filter(|_| is_link)
            .map(|link| link.to_vec());
        out.push((
            entry.path.to_vec(),
            link,
            entry.mode & 0o7777,
            entry.uid,
            entry.gid,
            entry.mtime,
            size,
            xattrs,
            pieces,
        ));
        let data = if is_file || entry.entry_type == EntryType::GnuSparse {
            entry.size
        } else {
            0
        };
        at += consumed
            + usize::try_from(data.next_multiple_of(512)).map_err(|err| err.to_string())?;
    }
}

/// An archive with something of everything.
fn written() -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    let plain = Attributes {
        mode: 0o644,
        uid: 5,
        gid: 6,
        mtime: Time {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        ..Attributes::default()
    };
    let mut rich = Attributes {
        mode: 0o4755,
        uid: 4_000_000_000,
        gid: 3_000_000,
        mtime: Time {
            seconds: 1,
            nanoseconds: 5,
        },
        ..plain.clone()
    };
    rich.xattrs
        .insert(b"user.a"[..].into(), b"1\n2\0"[..].into());
    tar.directory(b"d", &plain).unwrap();
    tar.file(b"d/file", &rich, 700, &[1; 700][..]).unwrap();
    tar.file(&[b'x'; 150], &plain, 0, &b""[..]).unwrap();
    tar.symlink(b"link", &plain, &[b'y'; 200]).unwrap();
    tar.hard_link(b"hard", &plain, b"d/file").unwrap();
    tar.device(
        b"dev",
        &plain,
        Device {
            block: true,
            major: 8,
            minor: 300,
        },
    )
    .unwrap();
    tar.fifo(b"pipe", &plain).unwrap();
    tar.whiteout(b"d/gone", Time::default()).unwrap();
    tar.finish().unwrap()
}

#[test]
fn what_we_write_both_read() {
    let tar = written();
    let told = ours(&tar).unwrap();
    assert_eq!(told.len(), 8);
    assert_eq!(theirs(&tar).unwrap(), told);
    assert_eq!((told[1].3, told[1].6), (4_000_000_000, 700));
    assert_eq!(tar, written());
}

/// xorshift64*: the same noise every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0)
    }
}

fn fix_checksums(tar: &mut [u8]) {
    for block in tar
        .chunks_exact_mut(512)
        .filter(|block| &block[257..262] == b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

// Where we accept an archive, the other reader sees the same members: no byte means two things.
#[test]
fn noise_is_an_error_or_means_one_thing() {
    let clean = written();
    let mut noise = Noise(42);
    let mut accepted = 0;
    for _ in 0..5_000 {
        let mut tar = clean.clone();
        for _ in 0..=noise.next() % 3 {
            let at = noise.next() % tar.len();
            tar[at] = match noise.next() % 4 {
                0 => 0,
                1 => b'0' + u8::try_from(noise.next() % 10).unwrap_or(0),
                2 => tar[at].wrapping_add(1),
                _ => u8::try_from(noise.next() % 256).unwrap_or(0),
            };
        }
        if noise.next().is_multiple_of(8) {
            tar.truncate(noise.next() % tar.len());
        }
        fix_checksums(&mut tar);
        let Ok(told) = ours(&tar) else { continue };
        accepted += 1;
        match theirs(&tar) {
            Ok(other) => {
                let first = told
                    .iter()
                    .zip(&other)
                    .find(|(ours, theirs)| ours != theirs);
                assert!(
                    told == other,
                    "{} and {} members, {first:?}",
                    told.len(),
                    other.len()
                );
            }
            // It is stricter about numbers and text that we do not use.
            Err(why) => assert!(
                ["octal", "UTF-8", "cut off", "magic", "PAX", "EOF"]
                    .iter()
                    .any(|known| why.contains(known)),
                "{why}"
            ),
        }
    }
    assert!(accepted > 250, "{accepted}");
}
