//! The fixed fields of a header block (POSIX ustar, GNU and V7).

/// A header block.
pub(super) struct Header<'b>(pub(super) &'b [u8; 512]);

/// Which dialect a header is written in; it decides what its last third means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    /// Ustar with a shorter prefix and star's trailer.
    Star,
    Gnu,
}

impl Header<'_> {
    /// `None`: one that readers would take for different ones.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match (&self.0[257..263], &self.0[263..265], &self.0[508..512]) {
            (b"ustar\0", b"00", b"tar\0") => Some(Dialect::Star),
            (b"ustar\0", b"00", _) => Some(Dialect::Ustar),
            (b"ustar ", b" \0", _) => Some(Dialect::Gnu),
            (magic, _, _) if magic.starts_with(b"ustar") => None,
            _ => Some(Dialect::V7),
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// The name with its prefix.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        let prefix = match self.dialect() {
            Some(Dialect::Ustar) => text(&self.0[345..500]),
            Some(Dialect::Star) => text(&self.0[345..476]),
            Some(Dialect::Gnu | Dialect::V7) | None => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn linkname(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i128> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i128> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i128> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i128> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i128> {
        number(&self.0[136..148])
    }

    /// Major and minor; V7 headers have none.
    pub(super) fn device(&self) -> Option<(i128, i128)> {
        match self.dialect() {
            Some(Dialect::V7) => Some((0, 0)),
            _ => Some((number(&self.0[329..337])?, number(&self.0[337..345])?)),
        }
    }

    /// The sum of all bytes, the checksum's own taken as blanks. Old writers summed signed bytes.
    pub(super) fn checksum_is_right(&self) -> bool {
        let byte = |(at, byte): (usize, &u8)| {
            if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            }
        };
        let unsigned: i128 = self
            .0
            .iter()
            .enumerate()
            .map(|pair| i128::from(byte(pair)))
            .sum();
        let signed: i128 = self
            .0
            .iter()
            .enumerate()
            .map(|pair| i128::from(byte(pair).cast_signed()))
            .sum();
        number(&self.0[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
    }
}

/// A text field ends at its first NUL or at its end.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits between blanks and NULs, or, with the first bit set, big-endian two's complement (GNU's base-256).
/// An empty field is zero, as every reader takes it.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 of the first byte is the sign; fields have at most 12 bytes, so 95 bits fit.
        let start = i128::from(first & 0x3f) - if first & 0x40 != 0 { 0x40 } else { 0 };
        return Some(
            rest.iter()
                .fold(start, |value, byte| value << 8 | i128::from(*byte)),
        );
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    // A NUL ends the number, even one at its start, where some readers go on.
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut value = 0;
    let mut ended = false;
    for byte in digits {
        match byte {
            b'0'..=b'7' if !ended => value = value << 3 | i128::from(byte - b'0'),
            byte if blank(byte) => ended = true,
            _ => return None,
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let rows: [(&[u8], Option<i128>); 10] = [
            (b"0000755\0", Some(0o755)),
            (b"   755 \0", Some(0o755)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000788\0", None),
            (b"12 34\0\0\0", None),
            (b"\x000000005", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        ];
        for (field, value) in rows {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
