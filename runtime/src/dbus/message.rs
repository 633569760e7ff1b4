//! Messages and their bytes (D-Bus specification, "Message Protocol").

use super::value::{Malformed, Reader, Type, Value, Writer};

/// The fixed part of a message with the length of its header fields, in bytes.
pub(crate) const PREFIX_BYTES: usize = 16;
/// The longest message that we read, in bytes. The protocol allows 128 MiB;
/// what systemd answers us is below 4 KiB, its signals about units below 64.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The most header fields; nine are defined, unknown ones are passed over.
const FIELDS_MAX: usize = 64;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A question.
    Call = 1,
    /// Its answer.
    Reply = 2,
    /// Why there is none.
    Error = 3,
    /// News.
    Signal = 4,
}

/// A message. A field that is not there is empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// The sender's number of it, not 0.
    pub(crate) serial: u32,
    /// The number of the question that this answers, else 0.
    pub(crate) reply_to: u32,
    pub(crate) path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) destination: String,
    pub(crate) body: Vec<Value>,
}

/// Numbers of the header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const REPLY_TO: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

impl Message {
    /// A message without any field.
    pub(crate) fn new(kind: Kind, serial: u32) -> Self {
        Self {
            kind,
            serial,
            reply_to: 0,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            destination: String::new(),
            body: Vec::new(),
        }
    }

    /// Its bytes, little-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let mut signature = String::new();
        for value in &self.body {
            value.kind().spell(&mut signature);
            body.put(value);
        }
        let pair = |number, value| {
            Value::Struct(vec![Value::Byte(number), Value::Variant(Box::new(value))])
        };
        let mut fields = Vec::new();
        if !self.path.is_empty() {
            fields.push(pair(field::PATH, Value::Path(self.path.clone())));
        }
        for (number, text) in [
            (field::INTERFACE, &self.interface),
            (field::MEMBER, &self.member),
            (field::ERROR, &self.error),
            (field::DESTINATION, &self.destination),
        ] {
            if !text.is_empty() {
                fields.push(pair(number, Value::text(text)));
            }
        }
        if self.reply_to != 0 {
            fields.push(pair(field::REPLY_TO, Value::Uint32(self.reply_to)));
        }
        if !signature.is_empty() {
            fields.push(pair(field::SIGNATURE, Value::Signature(signature)));
        }
        let mut out = Writer(vec![b'l', self.kind as u8, 0, 1]);
        out.put(&Value::Uint32(body.0.len() as u32));
        out.put(&Value::Uint32(self.serial));
        let pair = Type::Struct(vec![Type::Byte, Type::Variant]);
        out.put(&Value::Array(pair, fields));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// How many bytes a message has that begins so.
    pub(crate) fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Malformed> {
        let word = |at: usize| {
            let bytes = [prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]];
            match prefix[0] {
                b'l' => Ok(u32::from_le_bytes(bytes) as usize),
                b'B' => Ok(u32::from_be_bytes(bytes) as usize),
                _ => Err("it begins with neither `l` nor `B`"),
            }
        };
        let (body, fields) = (word(4)?, word(12)?);
        if body > MESSAGE_BYTES_MAX || fields > MESSAGE_BYTES_MAX {
            return Err("it is longer than 1 MiB");
        }
        Ok(PREFIX_BYTES + fields.next_multiple_of(8) + body)
    }

    /// Reads a whole message; `None` where it is of a kind that we do not
    /// know, or holds types that we do not read: nobody asked for those.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let prefix = bytes.first_chunk().ok_or("it is too short")?;
        if bytes.len() != Self::length(*prefix)? {
            return Err("its length is not what it says");
        }
        if prefix[3] != 1 {
            return Err("it is not of protocol version 1");
        }
        let kind = match prefix[1] {
            0 => return Err("its type is invalid"),
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Ok(None),
        };
        let big_endian = prefix[0] == b'B';
        let mut reader = Reader::new(bytes, big_endian);
        let head = Type::parse_all("yyyyuua(yv)")?;
        let head: Vec<Value> = head
            .iter()
            .map(|kind| reader.value(kind))
            .collect::<Result<_, _>>()?;
        reader.align(8)?;
        let (Value::Uint32(body_bytes), Value::Uint32(serial), Value::Array(_, fields)) =
            (&head[4], &head[5], &head[6])
        else {
            return Err("its header has other types");
        };
        if fields.len() > FIELDS_MAX {
            return Err("it has more than 64 header fields");
        }
        let mut message = Self::new(kind, *serial);
        let mut signature = String::new();
        for field in fields {
            message.set(field, &mut signature)?;
        }
        let body = &bytes[bytes.len() - *body_bytes as usize..];
        let Ok(types) = Type::parse_all(&signature) else {
            return Ok(None);
        };
        let mut reader = Reader::new(body, big_endian);
        message.body = types
            .iter()
            .map(|kind| reader.value(kind))
            .collect::<Result<_, _>>()?;
        if reader.is_empty() {
            Ok(Some(message))
        } else {
            Err("its body is longer than its signature says")
        }
    }

    fn set(&mut self, field: &Value, signature: &mut String) -> Result<(), Malformed> {
        let Value::Struct(pair) = field else {
            return Err("a header field is no pair");
        };
        let [Value::Byte(number), Value::Variant(value)] = pair.as_slice() else {
            return Err("a header field is no pair");
        };
        let place = match (*number, &**value) {
            (field::PATH, Value::Path(_)) => &mut self.path,
            (field::INTERFACE, Value::Text(_)) => &mut self.interface,
            (field::MEMBER, Value::Text(_)) => &mut self.member,
            (field::ERROR, Value::Text(_)) => &mut self.error,
            (field::DESTINATION, Value::Text(_)) => &mut self.destination,
            (field::SIGNATURE, Value::Signature(_)) => signature,
            (field::REPLY_TO, Value::Uint32(serial)) => {
                self.reply_to = *serial;
                return Ok(());
            }
            (field::PATH..=field::DESTINATION | field::SIGNATURE, _) => {
                return Err("a header field is of the wrong type");
            }
            _ => return Ok(()),
        };
        if let Value::Path(text) | Value::Text(text) | Value::Signature(text) = &**value {
            place.clone_from(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Hello` as the specification's tools send it (dbus-send, busctl), with serial 1.
    const HELLO: &[u8] = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00\
        \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
        \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00\
        \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00";

    fn hello() -> Message {
        Message {
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            ..Message::new(Kind::Call, 1)
        }
    }

    fn job_removed() -> Message {
        Message {
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "JobRemoved".into(),
            body: vec![
                Value::Uint32(7),
                Value::Path("/org/freedesktop/systemd1/job/7".into()),
                Value::text("runc-x.scope"),
                Value::text("done"),
            ],
            ..Message::new(Kind::Signal, 9)
        }
    }

    #[test]
    fn a_message_has_the_bytes_of_the_specification() {
        let bytes = hello().encode();
        assert_eq!(bytes, HELLO);
        assert_eq!(
            Message::length(*bytes.first_chunk().unwrap()),
            Ok(bytes.len())
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for message in [hello(), job_removed()] {
            let read = Message::decode(&message.encode()).unwrap().unwrap();
            assert_eq!(read, message);
        }
    }

    #[test]
    fn a_message_of_no_interest_is_passed_over() {
        let mut bytes = hello().encode();
        bytes[1] = 9;
        assert_eq!(Message::decode(&bytes), Ok(None));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = job_removed().encode();
        for (at, value) in [
            (4, 0xff),
            (7, 0xff),
            (12, 0xff),
            (15, 0x7f),
            (0, b'x'),
            (3, 2),
        ] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert!(Message::decode(&bad).is_err(), "{at}");
        }
        for end in 0..bytes.len() {
            assert!(Message::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_and_never_worse() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 {
                hello().encode()
            } else {
                job_removed().encode()
            };
            for _ in 0..=random() % 5 {
                let at = (random() as usize) % bytes.len();
                bytes[at] = random() as u8;
            }
            let _ = Message::decode(&bytes);
        }
    }
}
