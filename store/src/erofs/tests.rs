//! The bytes of an image are part of what a store holds: the same tar must go on giving the same image.

use std::io::Read as _;

use super::*;
use crate::digest::Digest;
use crate::tar::{Attributes, Device, Time, Writer};
use crate::tree;

/// Digest of the image of [`everything`], as it has been since the first version that wrote one.
const KNOWN: &str = "sha256:8215a83e759ee20caed5b0bfadd1091884826c17659b7b9f5f2227150114cc3e";

fn attributes(mode: u16, seconds: i64, xattrs: &[(&str, &[u8])]) -> Attributes {
    let xattrs = xattrs.iter();
    Attributes {
        mode,
        uid: u32::from(mode) * 1000,
        gid: 7,
        mtime: Time {
            seconds,
            nanoseconds: 5,
        },
        xattrs: xattrs
            .map(|(name, value)| (name.as_bytes().into(), (*value).into()))
            .collect(),
    }
}

/// A tar with all that an index can hold.
fn everything() -> io::Result<Vec<u8>> {
    let plain = attributes(0o644, 1_700_000_000, &[]);
    let shared = attributes(0o4755, -5, &[("user.shared", &[3; 300])]);
    let own: Vec<(String, Vec<u8>)> = (0..40_u8)
        .map(|n| (format!("user.own{n}"), vec![n; 9]))
        .collect();
    let own: Vec<(&str, &[u8])> = own.iter().map(|(n, v)| (&**n, &**v)).collect();
    let own = attributes(0o600, 1 << 40, &own);
    let mut tar = Writer::new(Vec::new());
    tar.directory(b"", &attributes(0o700, 1, &[]))?;
    for number in 0..1000_u32 {
        let name = format!(
            "many/{:0width$}",
            number * 7919 % 1009,
            width = number as usize % 60
        );
        tar.file(name.as_bytes(), &plain, u64::from(number % 3), &[1; 2][..])?;
    }
    tar.file(b"many/!before", &shared, 513, &[2; 513][..])?;
    tar.file(b"implicit/below/file", &shared, 70_000, &[9; 70_000][..])?;
    tar.file(b"implicit/own", &own, 0, &b""[..])?;
    tar.hard_link(b"again", &shared, b"implicit/below/file")?;
    tar.hard_link(b"elsewhere", &shared, b"no/such/file")?;
    for length in [1, 100, 450, 512, 700, 1024, 4095] {
        let name = format!("link{length}");
        tar.symlink(name.as_bytes(), &shared, &vec![b'x'; length])?;
    }
    for (name, block, major, minor) in [("null", false, 1, 3), ("disk", true, 259, 70_000)] {
        let device = Device {
            block,
            major,
            minor,
        };
        tar.device(name.as_bytes(), &plain, device)?;
    }
    tar.fifo(b"pipe", &plain)?;
    tar.directory(b"opaque", &shared)?;
    tar.opaque(b"opaque", plain.mtime)?;
    tar.whiteout(b"many/gone", plain.mtime)?;
    tar.whiteout(b"gone", plain.mtime)?;
    // A sparse file whose map stands in the header, and what it holds: two pieces.
    let map = b"34 GNU.sparse.map=100,600,90000,7\n28 GNU.sparse.name=a/sparse\n26 GNU.sparse.size=100000\n";
    let mut bytes = tar.finish()?;
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(header(b'x', map.len()));
    bytes.extend(padded(map));
    bytes.extend(header(b'0', 607));
    bytes.extend(padded(&[4; 607]));
    // A file whose padding is not zero.
    bytes.extend(header(b'0', 600));
    bytes.extend([8; 1024]);
    bytes.resize(bytes.len() + 1024, 0);
    Ok(bytes)
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut out = content.to_vec();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn header(kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    block[..5].copy_from_slice(b"dirty");
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn the_bytes_of_an_image_do_not_change() {
    let bytes = everything().unwrap();
    let mut tar = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut tar, &bytes).unwrap();
    let (tree, _) = tree::scan(&bytes[..]).unwrap();
    let mut image = tempfile::tempfile().unwrap();
    write(&tree, &[&tar], Digest::of(&bytes).uuid(), &mut image).unwrap();
    image.seek(SeekFrom::Start(0)).unwrap();
    let mut written = Vec::new();
    image.read_to_end(&mut written).unwrap();
    assert_eq!(Digest::of(&written).to_string(), KNOWN);
}
