//! Finding a place in a JSON text by its pointer (RFC 6901), and the pointer
//! of a place. Only for messages: the text is read again when something in it
//! turned out to be wrong, so that what is right costs nothing.

/// Deepest nesting that is followed: serde_json reads no deeper.
const DEPTH_MAX: u32 = 128;

/// Where a value begins: both count from 1, columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    fn of(text: &[u8], offset: usize) -> Place {
        let before = &text[..offset.min(text.len())];
        let start = before.iter().rposition(|&byte| byte == b'\n');
        Place {
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            column: before.len() - start.map_or(0, |at| at + 1) + 1,
        }
    }

    /// The offset of this place in `text`.
    fn offset(self, text: &[u8]) -> usize {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let before: usize = lines
            .by_ref()
            .take(self.line.saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        before + self.column.saturating_sub(1)
    }
}

/// The pointer of the innermost value that stands at `place`. In a text that
/// is not JSON, the one at which reading stops.
pub(crate) fn pointer_at(text: &[u8], place: Place) -> String {
    let offset = place.offset(text);
    let mut found = None;
    let mut walk = Walk::new(text, |pointer: &str, start, end| {
        if found.is_none() && (start..end).contains(&offset) {
            found = Some(pointer.to_owned());
        }
    });
    let whole = walk.value(0);
    let stopped = walk.pointer;
    found
        .or((whole.is_none()).then_some(stopped))
        .unwrap_or_default()
}

/// Where the value of `pointer` begins; for one that is not there, the
/// innermost value around it.
pub(crate) fn place_of(text: &[u8], pointer: &str) -> Place {
    let (mut best, mut depth) = (0, 0);
    let mut walk = Walk::new(text, |at: &str, start, _| {
        let inside = pointer == at
            || pointer
                .strip_prefix(at)
                .is_some_and(|rest| rest.starts_with('/'));
        if inside && at.len() >= depth {
            (best, depth) = (start, at.len());
        }
    });
    walk.value(0);
    Place::of(text, best)
}

/// The pointer of a field as messages spell it: `mounts[3].source`,
/// `linux.sysctl["net.core.somaxconn"]`.
pub(crate) fn pointer_of(field: &str) -> String {
    let mut pointer = String::new();
    let mut rest = field.split([',', ' ']).next().unwrap_or_default();
    if let Some(at) = field.find("[\"") {
        // A key in quotes may hold anything.
        rest = field
            .get(
                ..field[at..]
                    .find("\"]")
                    .map_or(field.len(), |end| at + end + 2),
            )
            .unwrap_or(field);
    }
    while !rest.is_empty() {
        rest = rest.trim_start_matches(['.', ']']);
        let (part, after) = match rest.strip_prefix("[\"") {
            Some(key) => key.split_once('"').unwrap_or((key, "")),
            None => {
                let part = rest.trim_start_matches('[');
                part.split_at(part.find(['.', '[', ']']).unwrap_or(part.len()))
            }
        };
        if !part.is_empty() {
            push(&mut pointer, part);
        }
        rest = after;
    }
    pointer
}

fn push(pointer: &mut String, part: &str) {
    pointer.push('/');
    pointer.push_str(&part.replace('~', "~0").replace('/', "~1"));
}

/// Reads a text once and tells of every value its pointer and its extent.
struct Walk<'a, F> {
    text: &'a [u8],
    at: usize,
    pointer: String,
    tell: F,
}

impl<'a, F: FnMut(&str, usize, usize)> Walk<'a, F> {
    fn new(text: &'a [u8], tell: F) -> Self {
        Walk {
            text,
            at: 0,
            pointer: String::new(),
            tell,
        }
    }

    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// `None`: the text is no JSON from here on.
    fn value(&mut self, depth: u32) -> Option<()> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            _ if depth > DEPTH_MAX => return None,
            b'{' => self.members(b'}', depth, |walk, _| {
                let key = walk.string()?;
                walk.eat(b':')?;
                Some(key)
            })?,
            b'[' => self.members(b']', depth, |_, index| Some(index.to_string()))?,
            b'"' => drop(self.string()?),
            _ => {
                let scalar = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let length = self.text[start..]
                    .iter()
                    .take_while(|byte| scalar(byte))
                    .count();
                self.at += length;
                (length > 0).then_some(())?;
            }
        }
        (self.tell)(&self.pointer, start, self.at);
        Some(())
    }

    fn members(
        &mut self,
        close: u8,
        depth: u32,
        name: impl Fn(&mut Self, usize) -> Option<String>,
    ) -> Option<()> {
        self.at += 1;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        for index in 0.. {
            self.peek()?;
            let part = name(self, index)?;
            let outer = self.pointer.len();
            push(&mut self.pointer, &part);
            self.value(depth + 1)?;
            self.pointer.truncate(outer);
            match self.peek()? {
                b',' => self.at += 1,
                byte => {
                    self.at += 1;
                    return (byte == close).then_some(());
                }
            }
        }
        None
    }

    /// A string as it stands between its quotes; names with escapes are as rare
    /// as they are unreadable.
    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let start = self.at;
        loop {
            match self.text.get(self.at)? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(String::from_utf8_lossy(&self.text[start..self.at - 1]).into_owned())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"{\n  \"root\": {\"path\": 7},\n  \"mounts\": [{\"a/b\": \"x\"}, {\"t\\\"y\": [1, -2.5e3, null]}]\n}";

    #[test]
    fn a_place_has_a_pointer() {
        let at = |line, column| pointer_at(TEXT, Place { line, column });
        assert_eq!(at(2, 20), "/root/path");
        assert_eq!(at(2, 11), "/root");
        assert_eq!(at(3, 22), "/mounts/0/a~1b");
        assert_eq!(at(3, 43), "/mounts/1/t\\\"y/1");
        assert_eq!(at(1, 1), "");
    }

    #[test]
    fn a_pointer_has_a_place() {
        let place = |pointer| {
            let place = place_of(TEXT, pointer);
            (place.line, place.column)
        };
        assert_eq!(place("/root/path"), (2, 20));
        assert_eq!(place("/root/nosuch"), (2, 11));
        assert_eq!(place("/mounts/0/a~1b"), (3, 22));
        assert_eq!(place("/mountsy"), (1, 1));
    }

    #[test]
    fn what_is_no_json_stops_somewhere() {
        let text = b"{\"a\": {\"b\": [1, }";
        assert_eq!(
            pointer_at(
                text,
                Place {
                    line: 1,
                    column: 17
                }
            ),
            "/a/b/1"
        );
        for text in [&b""[..], b"{", b"[", b"\"", b"{\"a\"", b"\"\\", b"[[[["] {
            let _ = pointer_at(text, Place { line: 9, column: 9 });
            let _ = place_of(text, "/a/b");
        }
    }

    #[test]
    fn fields_become_pointers() {
        for (field, pointer) in [
            ("mounts[3].source", "/mounts/3/source"),
            ("linux.sysctl[\"net.a/b\"]", "/linux/sysctl/net.a~1b"),
            ("hooks.poststop[0].path", "/hooks/poststop/0/path"),
            ("a.b, c.d and e", "/a/b"),
            ("root", "/root"),
            ("", ""),
        ] {
            assert_eq!(pointer_of(field), pointer, "{field}");
        }
    }
}
