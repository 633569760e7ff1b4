//! Bytes of a program's output to lines, and the last of them for the report of a failure.

use std::collections::VecDeque;

/// How many lines a failed step shows again.
const LINES_KEPT: usize = 40;

/// Longest line that is shown, in bytes; what is longer is cut into pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Splits a stream into lines and keeps the last ones.
#[derive(Debug, Default)]
pub struct Tail {
    open: Vec<u8>,
    kept: VecDeque<String>,
}

impl Tail {
    /// Takes bytes, and gives each line that they end to `show`.
    pub fn push(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open.len() > LINE_BYTES_MAX {
                self.end_line(&mut show);
            }
        }
    }

    /// The stream ended; its last line may lack a line end.
    pub fn finish(mut self, mut show: impl FnMut(&str)) -> Vec<String> {
        if !self.open.is_empty() {
            self.end_line(&mut show);
        }
        self.kept.into()
    }

    fn end_line(&mut self, show: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.open);
        // A carriage return starts the line again: a progress bar's last state is what counts.
        let text = text.trim_end_matches(['\n', '\r']);
        let line = printable(text.rsplit('\r').next().unwrap_or_default());
        self.open.clear();
        show(&line);
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }
}

/// Text without control characters and terminal sequences: a program in a build must not steer our terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            // ECMA-48: a control sequence ends at its first byte from @ to ~.
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_the_last_are_kept() {
        let mut tail = Tail::default();
        let mut seen = Vec::new();
        tail.push(b"on", |line| seen.push(line.to_owned()));
        tail.push(b"e\n10%\r20%\r\n\xff\x1b[0mx", |line| {
            seen.push(line.to_owned())
        });
        let kept = tail.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "20%", "\u{fffd}x"]);
        assert_eq!(kept, seen);
        let mut tail = Tail::default();
        (0..1000).for_each(|n| tail.push(format!("{n}\n").as_bytes(), |_| ()));
        let kept = tail.finish(|_| ());
        assert_eq!(
            (kept.len(), kept[kept.len() - 1].as_str()),
            (LINES_KEPT, "999")
        );
    }
}
