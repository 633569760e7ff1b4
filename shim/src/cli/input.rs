//! What we are given on standard input, on its way into a container.

use rustix::io::Errno;

use super::detach::Keys;
use crate::supervisor::protocol::BLOCK_BYTES;

/// Most that waits to be sent, in bytes. Who pastes more waits; what one types while a
/// container takes nothing has room, and the keys that leave it are still heard.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Our standard input.
#[derive(Debug)]
pub(super) struct Input {
    /// Whether there may be more that somebody takes.
    open: bool,
    keys: Option<Keys>,
    left: bool,
    /// On its way.
    waiting: Vec<u8>,
}

impl Input {
    /// `wanted`: the container takes it.
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            open: wanted,
            keys: None,
            left: false,
            waiting: Vec::new(),
        }
    }

    /// Who types these keys leaves.
    pub(super) fn watch(&mut self, keys: Keys) {
        self.keys = Some(keys);
    }

    /// Whether to read once it is ready.
    pub(super) fn is_wanted(&self) -> bool {
        let room = if self.keys.is_some() {
            WAITING_BYTES_MAX
        } else {
            1
        };
        self.open && !self.left && self.waiting.len() < room
    }

    /// Whether all was sent, and no more will come.
    pub(super) fn has_ended(&self) -> bool {
        !self.open && self.waiting.is_empty()
    }

    /// Reads a block that is there.
    pub(super) fn read(&mut self) {
        let mut block = [0; BLOCK_BYTES];
        match rustix::io::read(rustix::stdio::stdin(), &mut block[..]) {
            Ok(0) => self.open = false,
            Ok(len) => self.take(&block[..len]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.open = false,
        }
    }

    fn take(&mut self, block: &[u8]) {
        match &mut self.keys {
            None => self.waiting.extend_from_slice(block),
            Some(keys) => {
                let (passed, left) = keys.take(block);
                self.waiting.extend_from_slice(&passed);
                self.left = left;
            }
        }
    }

    /// What is to be sent next, no more than a block; empty: nothing.
    pub(super) fn next(&self) -> &[u8] {
        &self.waiting[..self.waiting.len().min(BLOCK_BYTES)]
    }

    /// So many bytes of [`Input::next`] were sent.
    pub(super) fn sent(&mut self, len: usize) {
        self.waiting.drain(..len);
    }

    /// Nobody takes it any more.
    pub(super) fn end(&mut self) {
        self.open = false;
        self.waiting.clear();
    }

    /// Whether the keys were typed. What was typed before them and is still not taken is
    /// given up: a container that reads nothing must not keep who leaves it.
    pub(super) fn is_left(&self) -> bool {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_heard_while_nothing_is_taken() {
        let mut input = Input::new(true);
        input.watch("ctrl-p,ctrl-q".parse().unwrap());
        input.take(&[b'x'; BLOCK_BYTES]);
        input.take(b"yz");
        assert_eq!(input.next(), [b'x'; BLOCK_BYTES]);
        assert!(input.is_wanted());
        input.sent(BLOCK_BYTES - 1);
        assert_eq!(input.next(), b"xyz");
        input.take(b"\x10\x11");
        assert!(input.is_left() && !input.is_wanted());
        assert_eq!(input.next(), b"xyz");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut piped = Input::new(true);
        piped.take(b"x");
        assert!(!piped.is_wanted(), "there are no keys to be heard");
        let mut input = Input::new(true);
        input.watch("ctrl-p,ctrl-q".parse().unwrap());
        for _ in 0..WAITING_BYTES_MAX / BLOCK_BYTES {
            assert!(input.is_wanted());
            input.take(&[0; BLOCK_BYTES]);
        }
        assert!(!input.is_wanted());
        input.open = false;
        assert!(!input.has_ended(), "what was read is still sent");
        input.end();
        assert!(input.has_ended() && !input.is_wanted());
        assert!(!Input::new(false).is_wanted());
    }
}
