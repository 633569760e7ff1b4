//! One large blob over several connections.
//!
//! A blob is cut into pieces of equal length; each connection takes the next
//! piece that nobody has, and the reader gets them in their order, so that hash
//! and inflate follow the contiguous beginning. Memory is bounded: nobody takes
//! a piece that is too far ahead of the reader. Whatever goes wrong with a piece
//! (a server that knows no ranges among it), one ordinary connection goes on
//! from there, with its retries and mirrors.

use super::client::Client;
use super::download::BlobReader;
use crate::digest::Digest;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Length of a piece in bytes: much more than a round trip costs, little enough to hold some of them.
const PIECE_BYTES: u64 = 4 << 20;

/// From this length on a blob is worth more than one connection.
pub(super) const RANGED_BYTES_MIN: u64 = 32 << 20;

/// A blob that comes over several connections.
pub(super) struct Ranged<'c> {
    client: &'c Client,
    shared: Arc<Shared>,
    /// The piece that is read now, and how far.
    piece: Vec<u8>,
    read: usize,
    /// Where the piece ends in the blob.
    offset: u64,
    /// What goes on after a piece that failed.
    rest: Option<BlobReader<'c>>,
}

/// What the connections and the reader share.
struct Shared {
    digest: Digest,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Where the next piece begins that nobody has taken.
    next: u64,
    /// Where the reader is.
    reader: u64,
    /// Bytes that may be held ahead of it.
    window: u64,
    ready: BTreeMap<u64, io::Result<Vec<u8>>>,
    /// Nobody wants more.
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next piece as soon as it is near enough; none at the end.
    fn take(&self) -> Option<(u64, u64)> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.next >= self.size {
                return None;
            }
            if state.next < state.reader + state.window {
                let start = state.next;
                let end = (start + PIECE_BYTES).min(self.size);
                state.next = end;
                return Some((start, end));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, start: u64, piece: io::Result<Vec<u8>>) {
        let mut state = self.lock();
        state.stopped |= piece.is_err();
        state.ready.insert(start, piece);
        self.changed.notify_all();
    }
}

/// A connection's right to exist; given back when it ends.
struct Spare(Arc<AtomicUsize>);

impl Spare {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                left.checked_sub(1)
            })
            .is_ok()
            .then(|| Self(Arc::clone(count)))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl<'c> Ranged<'c> {
    /// Opens the blob from `offset` on, if more than one connection may be had for it.
    pub(super) fn open(
        client: &'c Client,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Option<Self> {
        let mut connections = Vec::new();
        while let Some(spare) = Spare::take(&client.spare) {
            connections.push(spare);
        }
        if connections.len() < 2 {
            return None;
        }
        let shared = Arc::new(Shared {
            digest: *digest,
            size,
            state: Mutex::new(State {
                next: offset,
                reader: offset,
                window: (connections.len() as u64 + 1) * PIECE_BYTES,
                ready: BTreeMap::new(),
                stopped: false,
            }),
            changed: Condvar::new(),
        });
        for spare in connections {
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let _spare = spare;
                while let Some((start, end)) = shared.take() {
                    shared.put(
                        start,
                        piece(&client, &shared.digest, shared.size, start, end),
                    );
                }
            });
        }
        Some(Self {
            client,
            shared,
            piece: Vec::new(),
            read: 0,
            offset,
            rest: None,
        })
    }

    /// The next piece; where it failed, an ordinary connection from there.
    fn turn(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.reader = self.offset;
        self.shared.changed.notify_all();
        let piece = loop {
            if let Some(piece) = state.ready.remove(&self.offset) {
                break piece;
            }
            // Who stops leaves pieces that were never taken.
            if state.stopped && state.next <= self.offset {
                break Err(io::ErrorKind::Interrupted.into());
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        match piece {
            Ok(piece) => {
                self.offset += piece.len() as u64;
                (self.piece, self.read) = (piece, 0);
            }
            Err(_) => {
                let reader = self
                    .client
                    .plain_blob_at(&self.shared.digest, self.shared.size, self.offset)
                    .map_err(io::Error::other)?;
                self.rest = Some(reader);
            }
        }
        Ok(())
    }
}

impl Read for Ranged<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(rest) = &mut self.rest {
                return rest.read(buffer);
            }
            let left = &self.piece[self.read..];
            if !left.is_empty() {
                let count = left.len().min(buffer.len());
                buffer[..count].copy_from_slice(&left[..count]);
                self.read += count;
                return Ok(count);
            }
            if self.offset >= self.shared.size || buffer.is_empty() {
                return Ok(0);
            }
            self.turn()?;
        }
    }
}

impl Drop for Ranged<'_> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

/// One piece over a connection of its own.
fn piece(client: &Client, digest: &Digest, size: u64, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity((end - start) as usize);
    client
        .piece_of_blob(digest, size, start, end)
        .map_err(io::Error::other)?
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != end - start {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
