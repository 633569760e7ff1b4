//! Writes archives: POSIX ustar with PAX records where a field does not suffice.
//! Deterministic: the same calls give the same bytes on any machine.

use std::io::{self, Read, Write};

use super::{Attributes, BLOCK, Device, Time};

/// Largest number that 7 octal digits hold.
const SEVEN_DIGITS_MAX: u64 = 0o777_7777;
/// Largest number that 11 octal digits hold.
const ELEVEN_DIGITS_MAX: u64 = 0o777_7777_7777;

/// An archive being written. Paths are relative, `/`-separated, without `.` and `..`; they are written as given.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

/// What makes one member's header.
struct Member<'m> {
    typeflag: u8,
    path: &'m [u8],
    link: &'m [u8],
    size: u64,
    device: (u32, u32),
}

impl<W: Write> Writer<W> {
    /// Starts an archive on `out`.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// A directory; its path gets the slash at its end that readers expect. The root is `./`.
    pub fn directory(&mut self, path: &[u8], attributes: &Attributes) -> io::Result<()> {
        let path = match path {
            b"" => b"./".to_vec(),
            path if path.ends_with(b"/") => path.to_vec(),
            path => [path, b"/"].concat(),
        };
        self.header(b'5', &path, attributes)
    }

    /// A file of exactly `size` bytes, all taken from `content`; content that is shorter is `UnexpectedEof`
    /// and leaves a broken archive, what is longer is not read.
    pub fn file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        self.member(
            &Member {
                typeflag: b'0',
                path,
                link: b"",
                size,
                device: (0, 0),
            },
            attributes,
        )?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it became shorter while it was read, {copied} bytes instead of {size}"),
            ));
        }
        self.pad(size)
    }

    /// A symbolic link.
    pub fn symlink(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        target: &[u8],
    ) -> io::Result<()> {
        self.member(
            &Member {
                typeflag: b'2',
                path,
                link: target,
                size: 0,
                device: (0, 0),
            },
            attributes,
        )
    }

    /// A further name for the member at `target`, which comes earlier, here or in a lower layer.
    pub fn hard_link(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        target: &[u8],
    ) -> io::Result<()> {
        self.member(
            &Member {
                typeflag: b'1',
                path,
                link: target,
                size: 0,
                device: (0, 0),
            },
            attributes,
        )
    }

    /// A device node.
    pub fn device(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        device: Device,
    ) -> io::Result<()> {
        let typeflag = if device.block { b'4' } else { b'3' };
        self.member(
            &Member {
                typeflag,
                path,
                link: b"",
                size: 0,
                device: (device.major, device.minor),
            },
            attributes,
        )
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: &[u8], attributes: &Attributes) -> io::Result<()> {
        self.header(b'6', path, attributes)
    }

    /// A whiteout: takes `path` of the lower layers away (image-spec, layer.md, "Whiteouts").
    pub fn whiteout(&mut self, path: &[u8], mtime: Time) -> io::Result<()> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b""[..], path),
        };
        self.empty_mark(&[parent, b".wh.", name].concat(), mtime)
    }

    /// An opaque whiteout: takes all that directory `path` has in the lower layers away.
    pub fn opaque(&mut self, path: &[u8], mtime: Time) -> io::Result<()> {
        let path = if path.is_empty() {
            Vec::new()
        } else {
            [path, b"/"].concat()
        };
        self.empty_mark(&[&path, &b".wh..wh..opq"[..]].concat(), mtime)
    }

    /// Ends the archive with its two zero blocks.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        Ok(self.out)
    }

    fn empty_mark(&mut self, path: &[u8], mtime: Time) -> io::Result<()> {
        let attributes = Attributes {
            mode: 0,
            mtime,
            ..Attributes::default()
        };
        self.header(b'0', path, &attributes)
    }

    fn header(&mut self, typeflag: u8, path: &[u8], attributes: &Attributes) -> io::Result<()> {
        self.member(
            &Member {
                typeflag,
                path,
                link: b"",
                size: 0,
                device: (0, 0),
            },
            attributes,
        )
    }

    fn member(&mut self, member: &Member<'_>, attributes: &Attributes) -> io::Result<()> {
        let records = pax_records(member, attributes);
        if !records.is_empty() {
            let name = pax_name(member.path);
            let size = records.len() as u64;
            let extension = Member {
                typeflag: b'x',
                path: &name,
                link: b"",
                size,
                device: (0, 0),
            };
            let plain = Attributes {
                mode: 0o644,
                mtime: Time {
                    nanoseconds: 0,
                    ..attributes.mtime
                },
                ..Attributes::default()
            };
            self.out.write_all(&block(&extension, &plain))?;
            self.out.write_all(&records)?;
            self.pad(size)?;
        }
        self.out.write_all(&block(member, attributes))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK) - size;
        self.out
            .write_all(&[0; BLOCK as usize][..usize::try_from(padding).unwrap_or(0)])
    }
}

/// The name of the extended header; readers ignore it.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    [b"PaxHeaders/", &name[..name.len().min(80)]].concat()
}

/// The records that this member needs, in the order of their keys.
fn pax_records(member: &Member<'_>, attributes: &Attributes) -> Vec<u8> {
    let mut records = Vec::new();
    let number = |key: &str, value: u64, max: u64, out: &mut Vec<u8>| {
        if value > max {
            record(out, key.as_bytes(), value.to_string().as_bytes());
        }
    };
    for (name, value) in &attributes.xattrs {
        record(
            &mut records,
            &[b"SCHILY.xattr.", name.as_ref()].concat(),
            value,
        );
    }
    number("gid", attributes.gid.into(), SEVEN_DIGITS_MAX, &mut records);
    if member.link.len() > 100 {
        record(&mut records, b"linkpath", member.link);
    }
    if attributes.mtime.nanoseconds != 0 || !fits_mtime(attributes.mtime) {
        record(
            &mut records,
            b"mtime",
            time_text(attributes.mtime).as_bytes(),
        );
    }
    if member.path.len() > 100 {
        record(&mut records, b"path", member.path);
    }
    number("size", member.size, ELEVEN_DIGITS_MAX, &mut records);
    number("uid", attributes.uid.into(), SEVEN_DIGITS_MAX, &mut records);
    records
}

fn fits_mtime(time: Time) -> bool {
    u64::try_from(time.seconds).is_ok_and(|seconds| seconds <= ELEVEN_DIGITS_MAX)
}

/// Seconds with a fraction as short as it can be.
fn time_text(time: Time) -> String {
    let (sign, seconds, nanoseconds) = match (time.seconds, time.nanoseconds) {
        (seconds, nanoseconds) if seconds >= 0 => ("", seconds.unsigned_abs(), nanoseconds),
        (seconds, 0) => ("-", seconds.unsigned_abs(), 0),
        (seconds, nanoseconds) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    let fraction = format!(".{nanoseconds:09}");
    format!(
        "{sign}{seconds}{}",
        fraction.trim_end_matches('0').trim_end_matches('.')
    )
}

/// Adds `<length> <key>=<value>\n`; the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The ustar block; what does not fit is cut here and stands whole in a PAX record.
fn block(member: &Member<'_>, attributes: &Attributes) -> [u8; 512] {
    let mut block = [0; 512];
    put_text(&mut block[0..100], member.path);
    put_octal(&mut block[100..108], attributes.mode.into());
    put_octal(&mut block[108..116], attributes.uid.into());
    put_octal(&mut block[116..124], attributes.gid.into());
    put_octal(&mut block[124..136], member.size);
    put_octal(
        &mut block[136..148],
        u64::try_from(attributes.mtime.seconds).unwrap_or(0),
    );
    block[156] = member.typeflag;
    put_text(&mut block[157..257], member.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_octal(&mut block[329..337], member.device.0.into());
    put_octal(&mut block[337..345], member.device.1.into());
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits and a NUL; a number too large becomes 0 and stands in a PAX record.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits {
        "0".repeat(digits)
    } else {
        text
    };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}
