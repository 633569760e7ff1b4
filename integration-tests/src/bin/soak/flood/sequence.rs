//! Output whose every byte is known: the numbers from 1 on, a line each, as `seq` prints them.

use std::io::Write as _;

/// Checks the numbers as they come, however they are cut.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Digits of each number at least.
    width: usize,
    next: u64,
    expected: Vec<u8>,
    at: usize,
    /// What came of a line since the beginning is not known; `None`: it is.
    lost: Option<Vec<u8>>,
    /// Bytes that came.
    pub(crate) bytes: u64,
}

impl Sequence {
    /// From 1, each number as long as it is.
    pub(crate) fn new() -> Self {
        Self::padded(1)
    }

    /// From 1, each number with zeros in front until it has `width` digits.
    pub(crate) fn padded(width: usize) -> Self {
        Self {
            width,
            next: 1,
            expected: Vec::new(),
            at: 0,
            lost: None,
            bytes: 0,
        }
    }

    /// What comes next begins anywhere.
    pub(crate) fn lose(&mut self) {
        self.lost = Some(Vec::new());
    }

    /// Whether these bytes are the next ones.
    pub(crate) fn takes(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        let Some(lost) = &mut self.lost else {
            return self.follows(bytes);
        };
        // The rest of a line, then a whole one, which tells where it is.
        lost.extend_from_slice(bytes);
        let mut lines = lost.split_inclusive(|byte| *byte == b'\n');
        let (Some(rest), Some(line)) = (lines.next(), lines.next()) else {
            return true;
        };
        let Some(line) = line.strip_suffix(b"\n") else {
            return true;
        };
        let number = std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(number) = number else {
            return false;
        };
        let known = lost.split_off(rest.len());
        self.lost = None;
        self.next = number;
        (self.at, self.expected) = (0, Vec::new());
        self.follows(&known)
    }

    fn follows(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.known());
            if bytes[..len] != self.expected[self.at..self.at + len] {
                return false;
            }
            self.at += len;
            bytes = &bytes[len..];
        }
        true
    }

    /// So many bytes are known to be missing.
    pub(crate) fn skip(&mut self, mut bytes: u64) {
        while bytes > 0 {
            let len = self
                .known()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.at += len;
            bytes -= len as u64;
        }
    }

    /// How many of the next bytes are at hand; never none.
    fn known(&mut self) -> usize {
        if self.at == self.expected.len() {
            self.refill();
        }
        self.expected.len() - self.at
    }

    fn refill(&mut self) {
        self.expected.clear();
        self.at = 0;
        let width = self.width;
        for _ in 0..1000 {
            let _ = writeln!(self.expected, "{:0width$}", self.next);
            self.next += 1;
        }
    }
}
