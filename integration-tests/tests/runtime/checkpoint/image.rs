//! CRIU's images as those see them who edit them: messages of protobuf behind a
//! header.

use std::path::{Path, PathBuf};

/// `IMG_COMMON_MAGIC` and the kind's own.
const MAGIC_BYTES: usize = 8;

/// Before each message.
const LENGTH_BYTES: usize = 4;

/// A field of a message, of the kinds that CRIU has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
}

/// A message: its fields by number, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Message(pub Vec<(u64, Value)>);

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8], count: usize) -> Vec<u8> {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken.to_vec()
}

impl Message {
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Fixed(take(&mut bytes, 8)),
                5 => Value::Fixed(take(&mut bytes, 4)),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Value::Bytes(take(&mut bytes, length))
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in &self.0 {
            let (wire, length) = match value {
                Value::Number(_) => (0, None),
                Value::Bytes(bytes) => (2, Some(bytes.len() as u64)),
                Value::Fixed(bytes) if bytes.len() == 8 => (1, None),
                Value::Fixed(_) => (5, None),
            };
            put(&mut out, number << 3 | wire);
            length.iter().for_each(|length| put(&mut out, *length));
            match value {
                Value::Number(value) => put(&mut out, *value),
                Value::Bytes(bytes) | Value::Fixed(bytes) => out.extend(bytes),
            }
        }
        out
    }

    /// The first value of a field.
    pub(super) fn value(&mut self, field: u64) -> Option<&mut Value> {
        let mut all = self.0.iter_mut();
        all.find(|(number, _)| *number == field)
            .map(|(_, value)| value)
    }

    pub(super) fn number(&mut self, field: u64) -> &mut u64 {
        match self.value(field) {
            Some(Value::Number(number)) => number,
            other => panic!("field {field} is {other:?}"),
        }
    }

    pub(super) fn text(&mut self, field: u64) -> String {
        match self.value(field) {
            Some(Value::Bytes(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("field {field} is {other:?}"),
        }
    }

    /// Replaces the field, or adds it.
    pub(super) fn set(&mut self, field: u64, value: Value) {
        match self.value(field) {
            Some(old) => *old = value,
            None => self.0.push((field, value)),
        }
    }

    pub(super) fn set_text(&mut self, field: u64, text: &str) {
        self.set(field, Value::Bytes(text.into()));
    }

    pub(super) fn remove(&mut self, field: u64) {
        self.0.retain(|(number, _)| *number != field);
    }

    /// Changes the message that `path` leads to.
    pub(super) fn inside(&mut self, path: &[u64], change: impl FnOnce(&mut Self)) {
        let Some((first, path)) = path.split_first() else {
            return change(self);
        };
        match self.value(*first) {
            Some(Value::Bytes(bytes)) => {
                let mut inner = Self::parse(bytes);
                inner.inside(path, change);
                *bytes = inner.bytes();
            }
            other => panic!("field {first} is {other:?}"),
        }
    }
}

/// Changes the messages of an image.
pub(super) fn edit(path: &Path, change: impl FnOnce(&mut Vec<Message>)) {
    let image = std::fs::read(path).unwrap();
    let (magic, mut rest) = image.split_at(MAGIC_BYTES);
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let length = take(&mut rest, LENGTH_BYTES);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        messages.push(Message::parse(&take(&mut rest, length as usize)));
    }
    change(&mut messages);
    let mut out = magic.to_vec();
    for message in messages {
        let bytes = message.bytes();
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    }
    assert_ne!(out, image, "nothing was changed");
    std::fs::write(path, out).unwrap();
}

/// The images of a folder that are called so, in order.
pub(super) fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix)
    });
    all.sort();
    all
}
