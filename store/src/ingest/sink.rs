//! The second half of the pipeline: a thread that hashes, keeps and reads the tar.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::early::EarlyFile;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::Error;
use crate::tar::{Source, TarError};
use crate::transaction::Transaction;
use crate::tree::{self, LayerError, Tree};

/// Size of the pieces handed from thread to thread, in bytes: they stay in the processor's cache.
pub(super) const PIECE_BYTES: usize = 256 * 1024;
/// Most pieces on their way; more would only take memory.
const PIECES_AHEAD: usize = 8;

/// Takes a tar. Dropped before [`TarSink::finish`], nothing of it is kept.
#[derive(Debug)]
pub(super) struct TarSink {
    pieces: SyncSender<Vec<u8>>,
    /// Pieces that were used, to be filled again.
    spent: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    thread: JoinHandle<Result<Received, LayerError>>,
}

/// A tar that has arrived.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) tree: Tree,
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
    /// Durable.
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl TarSink {
    pub(super) fn start(transaction: &Transaction, algorithm: Algorithm) -> Result<TarSink, Error> {
        let (path, file) = transaction.new_file("tar")?;
        let (pieces, incoming) = sync_channel(PIECES_AHEAD);
        let (give_back, spent) = sync_channel(PIECES_AHEAD + 2);
        let source = Incoming {
            incoming,
            give_back,
            piece: Vec::new(),
            at: 0,
            hasher: Hasher::new(algorithm),
            size: 0,
            file: EarlyFile::new(file),
            path,
        };
        let thread = std::thread::spawn(move || receive(source));
        Ok(TarSink {
            pieces,
            spent,
            piece: Vec::new(),
            thread,
        })
    }

    /// Reads `tar` to its end. When the other thread has given up, this stops early; `finish` says why.
    pub(super) fn fill_from(&mut self, mut tar: impl Read) -> io::Result<()> {
        loop {
            let mut piece = self.empty_piece();
            piece.resize(PIECE_BYTES, 0);
            let mut filled = 0;
            while filled < piece.len() {
                match tar.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => return Err(err),
                }
            }
            let ended = filled < piece.len();
            piece.truncate(filled);
            if self.pieces.send(piece).is_err() || ended {
                return Ok(());
            }
        }
    }

    /// Waits until all has arrived.
    pub(super) fn finish(mut self) -> Result<Received, LayerError> {
        let last = std::mem::take(&mut self.piece);
        let _ = self.pieces.send(last);
        drop(self.pieces);
        self.thread.join().unwrap_or_else(|_| {
            Err(TarError::from(io::Error::other("the thread that reads the tar died")).into())
        })
    }

    fn empty_piece(&self) -> Vec<u8> {
        self.spent.try_recv().unwrap_or_default()
    }
}

impl Write for TarSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece = self.empty_piece();
            self.piece.clear();
            self.piece.reserve(PIECE_BYTES);
        }
        let n = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == PIECE_BYTES {
            let full = std::mem::take(&mut self.piece);
            // Why it gave up is said by `finish`.
            self.pieces
                .send(full)
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn receive(source: Incoming) -> Result<Received, LayerError> {
    let (tree, mut source) = tree::scan(source)?;
    // What follows the end mark belongs to the digest.
    while source.next_piece().map_err(TarError::from)? {}
    let path = source.path;
    let failed = |err: io::Error| io::Error::new(err.kind(), format!("write {path:?}: {err}"));
    let file = source.file.finish().map_err(failed);
    Ok(Received {
        tree,
        digest: source.hasher.finish(),
        size: source.size,
        file: file.map_err(TarError::from)?,
        path,
    })
}

/// The tar as it comes in; every piece is hashed and kept before it is looked at.
struct Incoming {
    incoming: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    /// How much of the piece was used.
    at: usize,
    hasher: Hasher,
    size: u64,
    file: EarlyFile,
    path: PathBuf,
}

impl Incoming {
    /// Takes the next piece; false at the end.
    fn next_piece(&mut self) -> io::Result<bool> {
        let Ok(piece) = self.incoming.recv() else {
            return Ok(false);
        };
        self.hasher.update(&piece);
        self.file
            .write_all(&piece)
            .map_err(|err| io::Error::new(err.kind(), format!("write {:?}: {err}", self.path)))?;
        self.size += piece.len() as u64;
        self.at = 0;
        // The other side may be gone already; then nobody needs it.
        let _ = self
            .give_back
            .try_send(std::mem::replace(&mut self.piece, piece));
        Ok(true)
    }

    /// Bytes at hand; takes the next piece where there are none. Empty at the end.
    fn ahead(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() {
            if !self.next_piece()? {
                return Ok(&[]);
            }
        }
        Ok(&self.piece[self.at..])
    }
}

impl Source for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let ahead = self.ahead()?;
            let n = ahead.len().min(buffer.len() - filled);
            if n == 0 {
                break;
            }
            buffer[filled..filled + n].copy_from_slice(&ahead[..n]);
            filled += n;
            self.at += n;
        }
        Ok(filled)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let ahead = self.ahead()?.len();
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(ahead);
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += n;
            left -= n as u64;
        }
        Ok(())
    }
}
