//! Physical lines to logical lines.
//!
//! A line ends in the escape character to continue; comments and empty lines inside a
//! continued instruction are dropped; the bodies of heredocs follow the line that
//! opened them and are taken as they are.

use super::directive::{Directives, byte_order_mark};
use super::heredoc::{self, Heredoc};
use super::{Result, Span};
use crate::report::Problem;

/// An instruction's line with its continuations joined, and where each part came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The joined text, without surrounding white space or comments.
    pub text: String,
    /// The bytes of the file from the first to the last character, heredoc bodies excluded.
    pub span: Span,
    /// The heredocs opened on the line, in order.
    pub heredocs: Vec<Heredoc>,
    /// The comment lines right above, without `#`: an empty line or comment ends them.
    pub comments: Vec<String>,
    /// The last physical line, if an empty one stands between it and the first.
    pub empty_continuation: Option<Span>,
    /// For each joined piece: its start in `text`, and in the file. Ascending.
    pieces: Vec<(usize, usize)>,
}

impl Line {
    /// The bytes of the file that the bytes `range` of `text` came from.
    pub fn source(&self, range: Span) -> Span {
        let start = self.source_offset(range.start);
        // The end belongs to the piece of the last byte, not to the next piece's start.
        let end = if range.end > range.start {
            self.source_offset(range.end - 1) + 1
        } else {
            start
        };
        start..end.max(start)
    }

    fn source_offset(&self, at: usize) -> usize {
        let piece = self
            .pieces
            .partition_point(|(text, _)| *text <= at)
            .saturating_sub(1);
        self.pieces
            .get(piece)
            .map_or(self.span.start, |(text, source)| source + (at - text))
    }
}

/// Splits `source` into logical lines.
///
/// # Errors
/// A heredoc without its end, or with a delimiter that is not one word.
pub fn split(source: &str, directives: &Directives) -> Result<Vec<Line>> {
    let mut reader = Reader {
        source,
        at: byte_order_mark(source),
    };
    let mut lines = Vec::new();
    let mut comments = Vec::new();
    while let Some((start, first)) = reader.next() {
        let indent = first.len() - first.trim_start().len();
        if first.trim().is_empty() || is_comment(first) {
            note_comment(&mut comments, first);
            continue;
        }
        let mut line = Joiner::default();
        let mut open = line.push(start + indent, first.trim_start(), directives.escape);
        while open {
            let Some((start, next)) = reader.next() else {
                break;
            };
            if next.trim().is_empty() {
                line.empty = true;
            } else if !is_comment(next) {
                open = line.push(start, next, directives.escape);
            }
        }
        let comments = std::mem::take(&mut comments);
        let Some(mut line) = line.finish() else {
            continue;
        };
        line.comments = comments;
        if heredoc::allowed(&line.text) {
            for opened in heredoc::find(&line, directives.escape)? {
                line.heredocs.push(reader.heredoc_body(opened, &line)?);
            }
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Collects what stands in comments; anything else begins anew.
fn note_comment(comments: &mut Vec<String>, line: &str) {
    match line.trim().strip_prefix('#').map(str::trim) {
        Some(text) if !text.is_empty() => comments.push(text.to_owned()),
        _ => comments.clear(),
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next physical line and its start, without its line end.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let (start, whole) = self.next_with_end()?;
        Some((start, whole.trim_end_matches(['\n', '\r'])))
    }

    fn next_with_end(&mut self) -> Option<(usize, &'a str)> {
        let rest = self.source.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let start = self.at;
        self.at += length;
        Some((start, &rest[..length]))
    }

    fn heredoc_body(&mut self, mut opened: Heredoc, line: &Line) -> Result<Heredoc> {
        while let Some((_, whole)) = self.next_with_end() {
            let text = whole.trim_end_matches(['\n', '\r']);
            let end = if opened.strip_tabs {
                text.trim_start_matches('\t')
            } else {
                text
            };
            if end == opened.name {
                return Ok(opened);
            }
            let kept = if opened.strip_tabs {
                whole.trim_start_matches('\t')
            } else {
                whole
            };
            opened.content.push_str(kept);
        }
        let title = format!("heredoc `{}` has no end", opened.name);
        Err(
            Problem::new(title, line.source(opened.range.clone()), "opened here")
                .help(format!(
                    "end it with a line that holds only `{}`",
                    opened.name
                ))
                .into(),
        )
    }
}

#[derive(Default)]
struct Joiner {
    text: String,
    pieces: Vec<(usize, usize)>,
    end: usize,
    /// An empty line was met.
    empty: bool,
}

impl Joiner {
    /// Appends one physical line; `true` when it asks for another.
    fn push(&mut self, start: usize, line: &str, escape: char) -> bool {
        let (kept, open) = match continued(line, escape) {
            Some(kept) => (kept, true),
            None => (line, false),
        };
        self.pieces.push((self.text.len(), start));
        self.text.push_str(kept);
        self.end = start + kept.len();
        open
    }

    fn finish(mut self) -> Option<Line> {
        let length = self.text.trim_end().len();
        let cut = self.text.len() - length;
        self.text.truncate(length);
        let start = self.pieces.first()?.1;
        let end = self.end.saturating_sub(cut).max(start);
        let last = self.pieces.last().map_or(start, |(_, source)| *source);
        (!self.text.is_empty()).then_some(Line {
            comments: Vec::new(),
            empty_continuation: self.empty.then_some(last..end.max(last)),
            text: self.text,
            span: start..end,
            heredocs: Vec::new(),
            pieces: self.pieces,
        })
    }
}

/// What stands before the escape character that ends `line`. A doubled escape character
/// is a character, not a continuation; white space may follow it.
fn continued(line: &str, escape: char) -> Option<&str> {
    let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!kept.ends_with(escape)).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        split(source, &Directives::default())
            .unwrap()
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn continuations_are_joined_and_comments_inside_dropped() {
        assert_eq!(
            texts("  RUN a \\\n# note\n  && b \\  \n\n\n  && c\nCMD x\n"),
            ["RUN a   && b   && c", "CMD x"]
        );
        assert_eq!(texts("RUN a \\\\\nCMD b"), ["RUN a \\\\", "CMD b"]);
        assert_eq!(texts("RUN a \\\r\n b\r\n"), ["RUN a  b"]);
        assert_eq!(texts("\\\n"), Vec::<String>::new());
        assert_eq!(texts("RUN a \\"), ["RUN a"]);
    }

    #[test]
    fn places_in_the_text_lead_back_to_the_file() {
        let source = "RUN one \\\n  # c\n  two\n";
        let line = &split(source, &Directives::default()).unwrap()[0];
        let at = line.text.find("two").unwrap();
        assert_eq!(&source[line.source(at..at + 3)], "two");
        assert_eq!(&source[line.source(4..7)], "one");
        assert_eq!(&source[line.span.clone()], "RUN one \\\n  # c\n  two");
    }

    #[test]
    fn heredocs_take_the_lines_that_follow() {
        let lines = split(
            "RUN <<A cat <<-'B'\n1 $x\nA\n\t2\n\tB\nCMD x\n",
            &Directives::default(),
        )
        .unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].heredocs[0].content, "1 $x\n");
        assert_eq!(lines[0].heredocs[1].content, "2\n");
        assert!(lines[0].heredocs[0].expand);
        assert!(!lines[0].heredocs[1].expand);
    }

    #[test]
    fn a_heredoc_without_end_is_an_error() {
        assert!(split("RUN <<EOF\nx\n", &Directives::default()).is_err());
    }

    #[test]
    fn shifts_and_json_are_no_heredocs() {
        for text in [
            "RUN echo $((1<<2))",
            "RUN [\"sh\", \"<<EOF\"]",
            "ENV a=<<EOF",
            "RUN a <<< b",
            "RUN echo '<<EOF'",
        ] {
            assert_eq!(texts(text), [text]);
        }
    }
}
