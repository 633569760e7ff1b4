//! What a file is, told from its first bytes.

use std::io::{self, BufReader, Read};

/// How much of an archive is looked at: some headers, extended ones among them.
const PEEK_BYTES: usize = 64 * 1024;

/// How much of a file tells its packing.
const MAGIC_BYTES: usize = 6;

/// Largest window of a zstd frame (binary logarithm of bytes), as for layers: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout as a directory (image-spec, image-layout.md).
    OciDir,
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// A root filesystem.
    Rootfs,
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Something known that is not read here; its name.
    Foreign(&'static str),
}

/// Tells the packing from the first bytes of a file.
pub(crate) fn packing(start: &[u8]) -> Packing {
    match start {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd, // a skippable frame
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Packing::Foreign("xz"),
        [b'B', b'Z', b'h', ..] => Packing::Foreign("bzip2"),
        [b'P', b'K', 3, 4, ..] => Packing::Foreign("zip"),
        _ => Packing::Plain,
    }
}

/// A stream that was looked into: its first bytes, and all of it.
pub(crate) struct Peeked<R> {
    pub(crate) start: Vec<u8>,
    pub(crate) whole: io::Chain<io::Cursor<Vec<u8>>, R>,
}

/// Looks at up to `length` bytes; a pipe may give them in small pieces.
fn peek<R: Read>(mut stream: R, length: usize) -> io::Result<Peeked<R>> {
    let mut start = Vec::new();
    stream
        .by_ref()
        .take(length as u64)
        .read_to_end(&mut start)?;
    Ok(Peeked {
        whole: io::Cursor::new(start.clone()).chain(stream),
        start,
    })
}

/// Unpacks a stream of whatever packing while it is read, and looks into what comes out.
///
/// # Errors
/// A packing that we do not read.
pub(crate) fn unpack<'r>(
    stream: impl Read + Send + 'r,
) -> io::Result<(Packing, Peeked<Box<dyn Read + Send + 'r>>)> {
    let stream = peek(stream, MAGIC_BYTES)?;
    let packing = packing(&stream.start);
    let stream = BufReader::with_capacity(PEEK_BYTES, stream.whole);
    let inner: Box<dyn Read + Send + 'r> = match packing {
        Packing::Plain => Box::new(stream),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Packing::Foreign(name) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is packed by {name}: unpack it first"),
            ));
        }
    };
    Ok((packing, peek(inner, PEEK_BYTES)?))
}

/// Guesses what a tar is from its first bytes: archives of images have names
/// of their own, and nothing else among their first members.
pub(crate) fn guess(start: &[u8]) -> Format {
    let mut at = 0;
    while let Some(header) = start.get(at..at + 512) {
        let kind = header[156];
        let name = header[..100]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches("./").trim_end_matches('/');
        let is_member = !matches!(kind, b'x' | b'g' | b'L' | b'K');
        if is_member && !name.is_empty() {
            return of_member(name);
        }
        let size = header[124..136]
            .iter()
            .filter(|byte| (b'0'..=b'7').contains(*byte))
            .fold(0_usize, |size, digit| {
                size.saturating_mul(8)
                    .saturating_add(usize::from(digit - b'0'))
            });
        at = at
            .saturating_add(512)
            .saturating_add(size.div_ceil(512).saturating_mul(512));
    }
    Format::Rootfs
}

/// What an archive with this first member is.
fn of_member(name: &str) -> Format {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let first = name.split('/').next().unwrap_or_default();
    match name {
        "blobs" | "blobs/sha256" | "blobs/sha512" | "oci-layout" | "index.json" => {
            Format::OciArchive
        }
        _ if name.starts_with("blobs/sha") => Format::OciArchive,
        "manifest.json" | "repositories" => Format::DockerArchive,
        _ if is_hex(first) => Format::DockerArchive,
        _ => match first.strip_suffix(".json").or(first.strip_suffix(".tar")) {
            Some(stem) if is_hex(stem) => Format::DockerArchive,
            _ => Format::Rootfs,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Attributes, Writer};

    fn tar(names: &[&str]) -> Vec<u8> {
        let mut out = Writer::new(Vec::new());
        for name in names {
            if name.ends_with('/') {
                out.directory(name.as_bytes(), &Attributes::default())
                    .unwrap();
            } else {
                out.file(name.as_bytes(), &Attributes::default(), 0, io::empty())
                    .unwrap();
            }
        }
        out.finish().unwrap()
    }

    #[test]
    fn archives_are_told_by_their_first_names() {
        let hex = "a".repeat(64);
        let rows = [
            (tar(&["blobs/", "blobs/sha256/"]), Format::OciArchive),
            (tar(&["./", "./oci-layout"]), Format::OciArchive),
            (tar(&["index.json"]), Format::OciArchive),
            (tar(&[&format!("{hex}.json")]), Format::DockerArchive),
            (
                tar(&[&format!("{hex}/"), &format!("{hex}/VERSION")]),
                Format::DockerArchive,
            ),
            (tar(&[&format!("{hex}.tar")]), Format::DockerArchive),
            (tar(&["manifest.json"]), Format::DockerArchive),
            (tar(&["./", "./bin/"]), Format::Rootfs),
            (tar(&["etc/passwd"]), Format::Rootfs),
            (tar(&[]), Format::Rootfs),
            (Vec::new(), Format::Rootfs),
        ];
        for (number, (bytes, format)) in rows.into_iter().enumerate() {
            assert_eq!(guess(&bytes), format, "row {number}");
        }
    }

    #[test]
    fn packings() {
        assert_eq!(packing(&[0x1f, 0x8b, 8]), Packing::Gzip);
        assert_eq!(packing(&[0x28, 0xb5, 0x2f, 0xfd, 0]), Packing::Zstd);
        assert_eq!(packing(b"\xfd7zXZ\0"), Packing::Foreign("xz"));
        assert_eq!(packing(b""), Packing::Plain);
        let error = unpack(&b"BZh9"[..]).err().unwrap();
        assert!(error.to_string().contains("bzip2"), "{error}");
    }

    #[test]
    fn packed_streams_are_unpacked() {
        let plain = tar(&["bin/sh"]);
        let mut gzip = Vec::new();
        crate::pack::gzip(&plain[..], &mut gzip).unwrap();
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        for packed in [plain.clone(), gzip, zstd] {
            let mut back = Vec::new();
            unpack(&packed[..])
                .unwrap()
                .1
                .whole
                .read_to_end(&mut back)
                .unwrap();
            assert_eq!(back, plain);
        }
    }
}
