//! The wire format of protocol buffers, as far as CRIU's messages need it.
//!
//! Written here and not taken from a library: CRIU's messages use integers,
//! booleans, strings and nested messages, which are two of the format's wire
//! types and a hundred lines. The libraries bring code generation at build
//! time or derive macros, buffers and UTF-8 checks that file names fail.
//! (Encoding: <https://protobuf.dev/programming-guides/encoding/>.)

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of the longest variable-length integer: 64 bits in sevens.
const VARINT_BYTES_MAX: usize = 10;

/// A message being written. Fields appear in the order of the calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// What goes over the wire.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// `int32` and enumerations; negative numbers are sign-extended to 64 bits.
    pub(super) fn int(&mut self, field: u32, value: i32) {
        self.varint(u64::from(field) << 3);
        self.varint(i64::from(value) as u64);
    }

    /// `uint32`.
    pub(super) fn unsigned(&mut self, field: u32, value: u32) {
        self.varint(u64::from(field) << 3);
        self.varint(value.into());
    }

    /// `bool`, written also where it is false: absent may mean something else.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        self.int(field, value.into());
    }

    /// `string`, as bytes: names of files need not be UTF-8.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// `string` with a path.
    pub(super) fn path(&mut self, field: u32, value: &Path) {
        self.bytes(field, value.as_os_str().as_bytes());
    }

    /// A nested message.
    pub(super) fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }
}

/// The value of a field that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// An integer, boolean or enumeration.
    Varint(u64),
    /// A string or nested message.
    Bytes(&'a [u8]),
    /// A fixed-size number, which no field of CRIU's has.
    Fixed,
}

impl<'a> Value<'a> {
    /// As `int32`: the lower half, as every decoder takes it.
    pub(super) fn int(self) -> i32 {
        match self {
            Value::Varint(number) => number as i32,
            Value::Bytes(_) | Value::Fixed => 0,
        }
    }

    /// As `bool`.
    pub(super) fn flag(self) -> bool {
        self.int() != 0
    }

    /// As string or message.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Varint(_) | Value::Fixed => &[],
        }
    }

    /// As text for people.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is cut off or has an unknown form")]
pub(crate) struct Malformed;

/// The fields of a received message, in order: number and value. Ends after
/// the first error.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads `message`, which came from outside.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut message = Message::default();
        message.int(1, 150);
        message.int(2, -1);
        message.flag(3, false);
        message.unsigned(38, 0x4000_0000);
        message.bytes(16, b"net");
        let mut inner = Message::default();
        inner.flag(1, true);
        message.message(5, &inner);
        let golden = [
            &[0x08, 0x96, 0x01][..],
            &[
                0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            &[0x18, 0x00],
            &[0xb0, 0x02, 0x80, 0x80, 0x80, 0x80, 0x04],
            &[0x82, 0x01, 0x03, b'n', b'e', b't'],
            &[0x2a, 0x02, 0x08, 0x01],
        ]
        .concat();
        assert_eq!(message.as_bytes(), golden);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut message = Message::default();
        message.int(2, -7);
        message.bytes(300, b"x\xff");
        let fields: Result<Vec<_>, _> = Fields::of(message.as_bytes()).collect();
        let fields = fields.unwrap();
        assert_eq!((fields[0].0, fields[0].1.int()), (2, -7));
        assert_eq!((fields[1].0, fields[1].1.bytes()), (300, &b"x\xff"[..]));
    }

    #[test]
    fn unknown_numbers_of_fixed_size_are_passed_over() {
        let bytes = [0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 1];
        let fields: Result<Vec<_>, _> = Fields::of(&bytes).collect();
        assert_eq!(
            fields.unwrap(),
            [(1, Value::Fixed), (2, Value::Fixed), (3, Value::Varint(1))]
        );
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error_or_a_message() {
        let mut message = Message::default();
        message.int(1, 6);
        message.bytes(5, b"\x0a\x04post");
        let bytes = message.as_bytes().to_vec();
        for cut in 0..bytes.len() {
            Fields::of(&bytes[..cut]).for_each(drop);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            Fields::of(&flipped).for_each(drop);
        }
        for bad in [&[0x80][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 11]] {
            assert!(Fields::of(bad).any(|field| field.is_err()), "{bad:?}");
        }
    }
}
