//! Docker's format (json-file): an object a line,
//! `{"log":"text\n","stream":"stdout","time":"2026-01-31T23:59:59.123456789Z"}`.
//! JSON is text: bytes that are none become U+FFFD, as docker has it.

use std::time::SystemTime;

use super::Stream;
use crate::clock;

/// Most bytes of a character. RFC 3629.
const CHARACTER_BYTES_MAX: usize = 4;

/// Appends an entry to `out`; a `full` one ends a line.
pub(super) fn encode(out: &mut Vec<u8>, stream: Stream, text: &[u8], full: bool) {
    let mut log = String::from_utf8_lossy(text).into_owned();
    if full {
        log.push('\n');
    }
    out.extend_from_slice(b"{\"log\":");
    // Writing text to memory does not fail.
    let _: serde_json::Result<()> = serde_json::to_writer(&mut *out, &log);
    out.extend_from_slice(b",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(&clock::format(SystemTime::now()));
    out.extend_from_slice(b"\"}\n");
}

/// How many bytes of `text` there are before a last character that has only begun.
pub(super) fn complete(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(CHARACTER_BYTES_MAX - 1);
    let starts = (tail..text.len()).rev();
    let begun = starts
        .into_iter()
        .find(|at| text[*at] & 0b1100_0000 == 0b1100_0000);
    match begun {
        Some(at)
            if std::str::from_utf8(&text[at..]).is_err_and(|err| err.error_len().is_none()) =>
        {
            at
        }
        _ => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_dockers() {
        let mut out = Vec::new();
        encode(&mut out, Stream::Stderr, b"a \"b\"\x01\xff\xc3\xa4", true);
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["log"], "a \"b\"\u{1}\u{fffd}ä\n");
        assert_eq!(value["stream"], "stderr");
        assert_eq!(value["time"].as_str().unwrap().len(), clock::BYTES);
        assert!(text.ends_with("\"}\n"));
    }

    #[test]
    fn a_character_that_has_only_begun_is_seen() {
        for (text, complete_bytes) in [
            (&b""[..], 0),
            (b"abc", 3),
            ("aä".as_bytes(), 3),
            (&"aä".as_bytes()[..2], 1),
            (&"€".as_bytes()[..2], 0),
            (&"x😀".as_bytes()[..4], 1),
            (b"a\xff", 2),
            (b"a\x80\x80", 3),
        ] {
            assert_eq!(complete(text), complete_bytes, "{text:?}");
        }
    }
}
