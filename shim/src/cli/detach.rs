//! Keys that leave a container's terminal without ending anything.

use std::str::FromStr;

/// What is not sent to the container but leaves it, once all of it was typed in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    sequence: Vec<u8>,
    /// How much of it was typed, and is kept back.
    typed: usize,
}

impl FromStr for Keys {
    type Err = String;

    /// `ctrl-p,ctrl-q`: keys with commas between them; nothing: there are none.
    fn from_str(text: &str) -> Result<Self, String> {
        let keys = text.split(',').filter(|_| !text.is_empty());
        let sequence: Option<Vec<u8>> = keys.map(key).collect();
        let sequence = sequence.ok_or_else(|| {
            "keys with commas between them, each a letter or ctrl- with one of a-z @ [ \\ ] ^ _"
                .to_owned()
        })?;
        Ok(Self { sequence, typed: 0 })
    }
}

/// The byte that a terminal sends for a key.
fn key(text: &str) -> Option<u8> {
    match (
        text.as_bytes(),
        text.strip_prefix("ctrl-").map(str::as_bytes),
    ) {
        ([key], _) => Some(*key),
        (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
        (_, Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Some(sign - b'@'),
        _ => None,
    }
}

impl Keys {
    /// What of this input goes to the container; `true`: then it is left.
    pub(super) fn take(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + self.typed);
        if self.sequence.is_empty() {
            return (input.to_vec(), false);
        }
        for byte in input {
            if *byte != self.sequence[self.typed] {
                passed.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
            }
            if *byte != self.sequence[self.typed] {
                passed.push(*byte);
                continue;
            }
            self.typed += 1;
            if self.typed == self.sequence.len() {
                self.typed = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Keys {
        text.parse().unwrap()
    }

    #[test]
    fn keys_have_names() {
        assert_eq!(keys("ctrl-p,ctrl-q").sequence, [16, 17]);
        assert_eq!(keys("a,ctrl-[,ctrl-\\,ctrl-@").sequence, [b'a', 27, 28, 0]);
        assert!(keys("").sequence.is_empty());
        for wrong in ["ctrl-", "ctrl-A", "ctrl-1", "ab", "a,,b", "ctrl-p,"] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_all_of_them_in_a_row_leave() {
        let mut keys = keys("ctrl-p,ctrl-q");
        assert_eq!(keys.take(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.take(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.take(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.take(b"\x11rest"), (Vec::new(), true));
        assert_eq!(keys.take(b"x\x10\x11"), (b"x".to_vec(), true));
        assert_eq!(
            super::Keys::from_str("").unwrap().take(b"\x10\x11"),
            (vec![16, 17], false)
        );
    }
}
