//! Values and their bytes (D-Bus specification, "Type System" and "Wire Format").
//!
//! Dictionaries and descriptors are not among them: nothing that we send or
//! read has one. What we read may be hostile: every length is checked against
//! what is there, nesting is bounded, and nothing is allocated on the word of a
//! length alone.

/// How deep arrays, structures and variants may nest. The specification allows
/// 64 in all; answers of systemd's have 3.
const DEPTH_MAX: usize = 16;
/// The longest signature in bytes (specification, "Valid Signatures").
const SIGNATURE_BYTES_MAX: usize = 255;

/// A type, as a signature spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// `y`
    Byte,
    /// `b`
    Bool,
    /// `n`
    Int16,
    /// `q`
    Uint16,
    /// `i`
    Int32,
    /// `u`
    Uint32,
    /// `x`
    Int64,
    /// `t`
    Uint64,
    /// `d`
    Double,
    /// `s`
    Text,
    /// `o`
    Path,
    /// `g`
    Signature,
    /// `v`
    Variant,
    /// `a` and the type of its elements
    Array(Box<Type>),
    /// `(` the types of its fields `)`
    Struct(Vec<Type>),
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    /// The type of the elements is kept: there may be none.
    Array(Type, Vec<Value>),
    Struct(Vec<Value>),
}

/// Why bytes are no value.
pub(crate) type Malformed = &'static str;

impl Type {
    /// Reads a signature: none, one or several types.
    pub(crate) fn parse_all(signature: &str) -> Result<Vec<Self>, Malformed> {
        if signature.len() > SIGNATURE_BYTES_MAX {
            return Err("a signature is longer than 255 bytes");
        }
        let mut rest = signature.as_bytes();
        let mut all = Vec::new();
        while !rest.is_empty() {
            all.push(Self::take(&mut rest, 0)?);
        }
        Ok(all)
    }

    fn take(rest: &mut &[u8], depth: usize) -> Result<Self, Malformed> {
        if depth > DEPTH_MAX {
            return Err("types are nested too deep");
        }
        let (&first, after) = rest.split_first().ok_or("a signature ends too early")?;
        *rest = after;
        Ok(match first {
            b'y' => Self::Byte,
            b'b' => Self::Bool,
            b'n' => Self::Int16,
            b'q' => Self::Uint16,
            b'i' => Self::Int32,
            b'u' => Self::Uint32,
            b'x' => Self::Int64,
            b't' => Self::Uint64,
            b'd' => Self::Double,
            b's' => Self::Text,
            b'o' => Self::Path,
            b'g' => Self::Signature,
            b'v' => Self::Variant,
            b'a' => Self::Array(Box::new(Self::take(rest, depth + 1)?)),
            b'(' => {
                let mut fields = Vec::new();
                while rest.first() != Some(&b')') {
                    fields.push(Self::take(rest, depth + 1)?);
                }
                *rest = &rest[1..];
                if fields.is_empty() {
                    return Err("a structure without fields");
                }
                Self::Struct(fields)
            }
            _ => return Err("a type that we do not know"),
        })
    }

    /// The signature.
    pub(crate) fn spell(&self, out: &mut String) {
        let letter = match self {
            Self::Byte => 'y',
            Self::Bool => 'b',
            Self::Int16 => 'n',
            Self::Uint16 => 'q',
            Self::Int32 => 'i',
            Self::Uint32 => 'u',
            Self::Int64 => 'x',
            Self::Uint64 => 't',
            Self::Double => 'd',
            Self::Text => 's',
            Self::Path => 'o',
            Self::Signature => 'g',
            Self::Variant => 'v',
            Self::Array(element) => {
                out.push('a');
                return element.spell(out);
            }
            Self::Struct(fields) => {
                out.push('(');
                fields.iter().for_each(|field| field.spell(out));
                ')'
            }
        };
        out.push(letter);
    }

    /// A multiple of this many bytes is where a value of the type begins.
    fn alignment(&self) -> usize {
        match self {
            Self::Byte | Self::Signature | Self::Variant => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Bool | Self::Int32 | Self::Uint32 => 4,
            Self::Text | Self::Path | Self::Array(_) => 4,
            Self::Int64 | Self::Uint64 | Self::Double | Self::Struct(_) => 8,
        }
    }
}

impl Value {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Its type.
    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::Byte(_) => Type::Byte,
            Self::Bool(_) => Type::Bool,
            Self::Int16(_) => Type::Int16,
            Self::Uint16(_) => Type::Uint16,
            Self::Int32(_) => Type::Int32,
            Self::Uint32(_) => Type::Uint32,
            Self::Int64(_) => Type::Int64,
            Self::Uint64(_) => Type::Uint64,
            Self::Double(_) => Type::Double,
            Self::Text(_) => Type::Text,
            Self::Path(_) => Type::Path,
            Self::Signature(_) => Type::Signature,
            Self::Variant(_) => Type::Variant,
            Self::Array(element, _) => Type::Array(Box::new(element.clone())),
            Self::Struct(fields) => Type::Struct(fields.iter().map(Self::kind).collect()),
        }
    }
}

/// Puts values one after the other, each aligned, in little-endian order.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// Adds zeros up to a multiple of `alignment`.
    pub(crate) fn align(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }

    /// Adds a value.
    pub(crate) fn put(&mut self, value: &Value) {
        self.align(value.kind().alignment());
        match value {
            Value::Byte(v) => self.0.push(*v),
            Value::Bool(v) => self.word(u32::from(*v)),
            Value::Int16(v) => self.0.extend(v.to_le_bytes()),
            Value::Uint16(v) => self.0.extend(v.to_le_bytes()),
            Value::Int32(v) => self.0.extend(v.to_le_bytes()),
            Value::Uint32(v) => self.word(*v),
            Value::Int64(v) => self.0.extend(v.to_le_bytes()),
            Value::Uint64(v) => self.0.extend(v.to_le_bytes()),
            Value::Double(v) => self.0.extend(v.to_le_bytes()),
            Value::Text(v) | Value::Path(v) => {
                self.word(v.len() as u32);
                self.0.extend(v.as_bytes());
                self.0.push(0);
            }
            Value::Signature(v) => self.signature(v),
            Value::Variant(inner) => {
                let mut signature = String::new();
                inner.kind().spell(&mut signature);
                self.signature(&signature);
                self.put(inner);
            }
            Value::Array(element, items) => self.array(element, items),
            Value::Struct(fields) => fields.iter().for_each(|field| self.put(field)),
        }
    }

    fn word(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// The length counts the elements, not the padding before the first.
    fn array(&mut self, element: &Type, items: &[Value]) {
        let length_at = self.0.len();
        self.word(0);
        self.align(element.alignment());
        let start = self.0.len();
        items.iter().for_each(|item| self.put(item));
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Takes values out of bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        fn $name(&mut self) -> Result<$type, Malformed> {
            const BYTES: usize = size_of::<$type>();
            self.align(BYTES)?;
            let mut bytes = [0; BYTES];
            bytes.copy_from_slice(self.take(BYTES)?);
            Ok(if self.big_endian {
                <$type>::from_be_bytes(bytes)
            } else {
                <$type>::from_le_bytes(bytes)
            })
        }
    };
}

impl<'a> Reader<'a> {
    /// A reader at the first byte; alignment counts from there.
    pub(crate) fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self {
            bytes,
            at: 0,
            big_endian,
        }
    }

    /// Whether all is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Takes a value of a type.
    pub(crate) fn value(&mut self, kind: &Type) -> Result<Value, Malformed> {
        self.nested(kind, 0)
    }

    number!(int16, i16);
    number!(uint16, u16);
    number!(int32, i32);
    number!(uint32, u32);
    number!(int64, i64);
    number!(uint64, u64);
    number!(double, f64);

    fn nested(&mut self, kind: &Type, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err("values are nested too deep");
        }
        Ok(match kind {
            Type::Byte => Value::Byte(self.take(1)?[0]),
            Type::Bool => match self.uint32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err("a boolean is neither 0 nor 1"),
            },
            Type::Int16 => Value::Int16(self.int16()?),
            Type::Uint16 => Value::Uint16(self.uint16()?),
            Type::Int32 => Value::Int32(self.int32()?),
            Type::Uint32 => Value::Uint32(self.uint32()?),
            Type::Int64 => Value::Int64(self.int64()?),
            Type::Uint64 => Value::Uint64(self.uint64()?),
            Type::Double => Value::Double(self.double()?),
            Type::Text => Value::Text(self.long_text()?),
            Type::Path => Value::Path(self.long_text()?),
            Type::Signature => Value::Signature(self.signature()?),
            Type::Variant => {
                let signature = self.signature()?;
                let types = Type::parse_all(&signature)?;
                let [inner] = types.as_slice() else {
                    return Err("a variant is not of exactly one type");
                };
                Value::Variant(Box::new(self.nested(inner, depth + 1)?))
            }
            Type::Array(element) => {
                let length = self.uint32()? as usize;
                self.align(element.alignment())?;
                let end = self.at.checked_add(length).ok_or(TOO_LONG)?;
                if end > self.bytes.len() {
                    return Err(TOO_LONG);
                }
                let mut items = Vec::new();
                while self.at < end {
                    items.push(self.nested(element, depth + 1)?);
                }
                if self.at != end {
                    return Err("an array ends within an element");
                }
                Value::Array((**element).clone(), items)
            }
            Type::Struct(fields) => {
                self.align(8)?;
                let fields = fields.iter().map(|field| self.nested(field, depth + 1));
                Value::Struct(fields.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Goes on to a multiple of `alignment`.
    pub(crate) fn align(&mut self, alignment: usize) -> Result<(), Malformed> {
        let gap = self.at.next_multiple_of(alignment) - self.at;
        self.take(gap).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.bytes[self.at..].get(..count).ok_or(TOO_LONG)?;
        self.at += count;
        Ok(taken)
    }

    fn long_text(&mut self) -> Result<String, Malformed> {
        let length = self.uint32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.take(1)?[0]);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] || bytes.contains(&0) {
            return Err("a text does not end where it should");
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8")
    }
}

/// A length leads outside of the message.
const TOO_LONG: Malformed = "it ends within a value";

#[cfg(test)]
mod tests;
