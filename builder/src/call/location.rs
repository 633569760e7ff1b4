//! Places as lines: what programs are told, and the excerpt that people see.

use crate::dockerfile::Span;
use serde_json::{Value, json};
use std::fmt::Write;

/// Lines around the ones that are meant.
const CONTEXT_LINES: usize = 2;

/// The first and the last line of a span, from 1.
pub(super) fn lines(source: &str, span: &Span) -> (usize, usize) {
    let number = |at: usize| {
        source.as_bytes()[..at.min(source.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    };
    let last = span.end.max(span.start + 1) - 1;
    (number(span.start), number(last))
}

/// A location in BuildKit's JSON: a range for each line.
pub(super) fn json_of(source: &str, span: &Span) -> Value {
    let (first, last) = lines(source, span);
    let ranges: Vec<Value> = (first..=last)
        .map(|line| json!({ "start": { "line": line }, "end": { "line": line } }))
        .collect();
    json!({ "ranges": ranges })
}

/// The file as BuildKit's JSON has it.
pub(super) fn source_of(name: &str, source: &str) -> Value {
    json!({ "filename": name, "language": "Dockerfile", "data": base64(source) })
}

/// RFC 4648 of a text.
pub(super) fn base64(text: &str) -> String {
    crate::remote::git::base64(text.as_bytes())
}

/// The lines of a span with a few around them, the ones that are meant marked.
pub(super) fn excerpt(name: &str, source: &str, span: &Span) -> String {
    const RULE: &str = "--------------------";
    let all: Vec<&str> = source.split('\n').collect();
    let (first, last) = lines(source, span);
    let last = last.min(all.len());
    let around = if first == last {
        2 * CONTEXT_LINES
    } else {
        CONTEXT_LINES
    };
    let (mut from, mut to, mut added) = (first, last, 0);
    while added < around {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to < all.len() {
            to += 1;
            added += 1;
        }
        // A file shorter than what would be shown.
        added += 1;
    }
    let mut out = format!("{name}:{first}\n{RULE}\n");
    for (index, line) in all.iter().enumerate().take(to).skip(from - 1) {
        let number = index + 1;
        let mark = if (first..=last).contains(&number) {
            ">>>"
        } else {
            "   "
        };
        let _ = writeln!(out, " {number:3} | {mark} {line}");
    }
    out + RULE + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_excerpts() {
        let source = "FROM a\nRUN b \\\n  c\nCMD d\n";
        assert_eq!(lines(source, &(7..18)), (2, 3));
        assert_eq!(lines(source, &(0..0)), (1, 1));
        assert_eq!(lines("", &(0..9)), (1, 1));
        let text = excerpt("Dockerfile", source, &(0..6));
        assert!(
            text.starts_with(
                "Dockerfile:1\n--------------------\n   1 | >>> FROM a\n   2 |     RUN b \\\n"
            ),
            "{text}"
        );
    }
}
