//! Values in GVariant's text form, as annotations carry them
//! (<https://docs.gtk.org/glib/gvariant-text-format.html>).
//!
//! What a property of a unit can be: booleans, numbers, texts, and arrays of
//! them, with their type before them (`uint64 5`, `@as []`) or without it, when
//! a whole number is an int32 and one with a point a double.

use crate::dbus::{Type, Value};

/// The longest value in bytes. The longest that a unit has use for, a list of
/// CPUs, is below 16 KiB.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How deep arrays may nest.
const DEPTH_MAX: usize = 8;

/// Reads a value; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
    }
    let mut parser = Parser { rest: text };
    let term = parser.term(0)?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(format!("{:?} follows the value", parser.rest));
    }
    let kind = term
        .kind()
        .ok_or("its type cannot be told: put it before the value, as in \"@as []\"")?;
    term.value(&kind)
}

/// What is written, before it has a type.
enum Term {
    Bool(bool),
    Number(String),
    Text(String),
    /// `b'...'`: an array of bytes that ends with a zero.
    Bytes(Vec<u8>),
    Array(Vec<Term>),
    Typed(Type, Box<Term>),
}

impl Term {
    /// The type that it has, or has by default; `None` for an empty array.
    fn kind(&self) -> Option<Type> {
        Some(match self {
            Self::Bool(_) => Type::Bool,
            Self::Number(digits) if is_double(digits) => Type::Double,
            Self::Number(_) => Type::Int32,
            Self::Text(_) => Type::Text,
            Self::Bytes(_) => Type::Array(Box::new(Type::Byte)),
            Self::Typed(kind, _) => kind.clone(),
            Self::Array(items) => {
                // One that names its type decides for all.
                let typed = items.iter().find(|item| matches!(item, Self::Typed(..)));
                let decides = typed.or_else(|| items.iter().find(|item| item.kind().is_some()));
                Type::Array(Box::new(decides?.kind()?))
            }
        })
    }

    fn value(&self, kind: &Type) -> Result<Value, String> {
        match (self, kind) {
            (Self::Typed(own, inner), kind) if own == kind => inner.value(kind),
            (Self::Bool(truth), Type::Bool) => Ok(Value::Bool(*truth)),
            (Self::Number(digits), kind) => number(digits, kind),
            (Self::Text(text), Type::Text) => Ok(Value::text(text)),
            (Self::Text(text), Type::Path) if is_path(text) => Ok(Value::Path(text.clone())),
            (Self::Text(text), Type::Signature) if Type::parse_all(text).is_ok() => {
                Ok(Value::Signature(text.clone()))
            }
            (Self::Bytes(bytes), Type::Array(element)) if **element == Type::Byte => {
                let bytes = bytes.iter().map(|&byte| Value::Byte(byte));
                Ok(Value::Array(Type::Byte, bytes.collect()))
            }
            (Self::Array(items), Type::Array(element)) => {
                let items = items.iter().map(|item| item.value(element));
                Ok(Value::Array(
                    (**element).clone(),
                    items.collect::<Result<_, _>>()?,
                ))
            }
            (_, kind) => {
                let mut signature = String::new();
                kind.spell(&mut signature);
                Err(format!("a part of it is not of type {signature:?}"))
            }
        }
    }
}

fn is_double(digits: &str) -> bool {
    !digits.trim_start_matches(['-', '+']).starts_with("0x")
        && (digits.contains(['.', 'e', 'E']) || digits.contains("inf") || digits.contains("nan"))
}

/// Whether it is an object path: `/`, or names of `[A-Za-z0-9_]` after one each.
fn is_path(text: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    text == "/"
        || text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(name))
}

/// Decimal, `0x` hexadecimal or `0` octal; must fit its type.
fn number(digits: &str, kind: &Type) -> Result<Value, String> {
    let bad = || {
        let mut signature = String::new();
        kind.spell(&mut signature);
        format!("{digits:?} is no number of type {signature:?}")
    };
    if *kind == Type::Double {
        return digits.parse().map(Value::Double).map_err(|_| bad());
    }
    let (negative, plain) = match digits.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (plain, base) = match (plain.strip_prefix("0x"), plain.strip_prefix('0')) {
        (Some(plain), _) => (plain, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (plain, 10),
    };
    if !plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let magnitude = i128::from(u64::from_str_radix(plain, base).map_err(|_| bad())?);
    let whole = if negative { -magnitude } else { magnitude };
    match kind {
        Type::Byte => whole.try_into().ok().map(Value::Byte),
        Type::Int16 => whole.try_into().ok().map(Value::Int16),
        Type::Uint16 => whole.try_into().ok().map(Value::Uint16),
        Type::Int32 => whole.try_into().ok().map(Value::Int32),
        Type::Uint32 => whole.try_into().ok().map(Value::Uint32),
        Type::Int64 => whole.try_into().ok().map(Value::Int64),
        Type::Uint64 => whole.try_into().ok().map(Value::Uint64),
        _ => None,
    }
    .ok_or_else(bad)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn term(&mut self, depth: usize) -> Result<Term, String> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deep".into());
        }
        self.skip_space();
        let Some(first) = self.rest.chars().next() else {
            return Err("it ends where a value is expected".into());
        };
        match first {
            '[' => self.array(depth),
            '\'' | '"' => Ok(Term::Text(self.quoted()?)),
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                let mut bytes = self.quoted()?.into_bytes();
                bytes.push(0);
                Ok(Term::Bytes(bytes))
            }
            '@' => {
                self.rest = &self.rest[1..];
                let word = self.word().to_owned();
                let types = Type::parse_all(&word).map_err(str::to_owned)?;
                match types.as_slice() {
                    [kind] => Ok(Term::Typed(kind.clone(), Box::new(self.term(depth + 1)?))),
                    _ => Err(format!("{word:?} is not one type")),
                }
            }
            '-' | '+' | '.' | '0'..='9' => Ok(Term::Number(self.word().to_owned())),
            _ => self.keyword(depth),
        }
    }

    fn keyword(&mut self, depth: usize) -> Result<Term, String> {
        let word = self.word().to_owned();
        let kind = match word.as_str() {
            "true" => return Ok(Term::Bool(true)),
            "false" => return Ok(Term::Bool(false)),
            "inf" | "nan" => return Ok(Term::Number(word)),
            "boolean" => Type::Bool,
            "byte" => Type::Byte,
            "int16" => Type::Int16,
            "uint16" => Type::Uint16,
            "int32" => Type::Int32,
            "uint32" => Type::Uint32,
            "int64" => Type::Int64,
            "uint64" => Type::Uint64,
            "double" => Type::Double,
            "string" => Type::Text,
            "objectpath" => Type::Path,
            "signature" => Type::Signature,
            _ if word.is_empty() => return Err(format!("{:?} is no value", self.rest)),
            _ => {
                return Err(format!(
                    "{word:?} is neither a value nor a type (texts stand in quotes)"
                ));
            }
        };
        Ok(Term::Typed(kind, Box::new(self.term(depth + 1)?)))
    }

    fn array(&mut self, depth: usize) -> Result<Term, String> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Ok(Term::Array(items));
            }
            if !items.is_empty() {
                let rest = self.rest.strip_prefix(',');
                self.rest = rest.ok_or("a comma lacks between the elements of an array")?;
            }
            items.push(self.term(depth + 1)?);
        }
    }

    /// Letters, digits and what numbers and types have beside them.
    fn word(&mut self) -> &str {
        let ends = |c: char| !c.is_ascii_alphanumeric() && !"+-.()".contains(c);
        let (word, rest) = self
            .rest
            .split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A text in quotes, with C's escapes.
    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next() {
                None => return Err("a text lacks its closing quote".into()),
                end if end == quote => break,
                Some('\\') => {
                    let escaped = match chars.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some('a') => '\x07',
                        Some('b') => '\x08',
                        Some('f') => '\x0c',
                        Some('v') => '\x0b',
                        Some(digits @ ('u' | 'U')) => {
                            let count = if digits == 'u' { 4 } else { 8 };
                            let hex: String = chars.by_ref().take(count).collect();
                            u32::from_str_radix(&hex, 16)
                                .ok()
                                .and_then(char::from_u32)
                                .ok_or_else(|| format!("\\{digits}{hex} is no character"))?
                        }
                        Some(other) => other,
                        None => return Err("a text ends with a backslash".into()),
                    };
                    text.push(escaped);
                }
                Some(other) => text.push(other),
            }
        }
        if text.contains('\0') {
            return Err("a text has a zero in it".into());
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_type_that_they_name_or_the_usual_one() {
        let texts = |items: &[&str]| {
            Value::Array(
                Type::Text,
                items.iter().map(|&item| Value::text(item)).collect(),
            )
        };
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("5", Value::Int32(5)),
            (" -5 ", Value::Int32(-5)),
            ("0x10", Value::Int32(16)),
            ("010", Value::Int32(8)),
            ("0", Value::Int32(0)),
            ("1.5", Value::Double(1.5)),
            ("uint64 123456789", Value::Uint64(123_456_789)),
            ("@t 18446744073709551615", Value::Uint64(u64::MAX)),
            ("int64 -9223372036854775808", Value::Int64(i64::MIN)),
            ("byte 0xff", Value::Byte(255)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a\"b\n\u00e4""#, Value::text("a\"b\nä")),
            ("['crio.service']", texts(&["crio.service"])),
            ("@as []", texts(&[])),
            ("['a', \"b\"]", texts(&["a", "b"])),
            ("objectpath '/a/b_1'", Value::Path("/a/b_1".into())),
            (
                "[uint32 1, 2]",
                Value::Array(Type::Uint32, vec![Value::Uint32(1), Value::Uint32(2)]),
            ),
            (
                "b'A'",
                Value::Array(Type::Byte, vec![Value::Byte(65), Value::Byte(0)]),
            ),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_a_reason() {
        for text in [
            "",
            "abc",
            "'abc",
            "\"",
            "[",
            "[1",
            "[1 2]",
            "[]",
            "['a', 5]",
            "5 5",
            "uint64",
            "uint64 -1",
            "byte 256",
            "5000000000",
            "0x",
            "1e",
            "@ 5",
            "@ii 5",
            "@( 5",
            "-",
            "--5",
            "0x-5",
            "'a\\",
            "'\\u12'",
            "@o 'x'",
            "<5>",
            "{'a': 5}",
            "(1, 2)",
            "true false",
            "uint32 'a'",
            "ä",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse(&"[".repeat(70_000)).is_err());
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse(&"uint32 ".repeat(1000)).is_err());
    }
}
