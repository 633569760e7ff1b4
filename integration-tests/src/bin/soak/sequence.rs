//! Output whose every byte is known: the numbers from 1 on, a line each, as `seq` prints them.

use std::io::Write as _;

/// Checks the numbers as they come, however they are cut.
#[derive(Debug)]
pub(crate) struct Sequence {
    next: u64,
    expected: Vec<u8>,
    at: usize,
    /// Bytes that came.
    pub(crate) bytes: u64,
}

impl Sequence {
    /// From 1.
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            expected: Vec::new(),
            at: 0,
            bytes: 0,
        }
    }

    /// Whether these bytes are the next ones.
    pub(crate) fn takes(&mut self, mut bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.at == self.expected.len() {
                self.refill();
            }
            let len = bytes.len().min(self.expected.len() - self.at);
            if bytes[..len] != self.expected[self.at..self.at + len] {
                return false;
            }
            self.at += len;
            bytes = &bytes[len..];
        }
        true
    }

    fn refill(&mut self) {
        self.expected.clear();
        self.at = 0;
        for _ in 0..1000 {
            let _ = writeln!(self.expected, "{}", self.next);
            self.next += 1;
        }
    }
}
