//! Where a reader takes an archive's bytes from: a stream that is on its way, or a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A forward-only source of bytes that knows how to leave some out.
pub trait Source {
    /// Fills `buffer` as far as the bytes reach; fewer only at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Passes over `length` bytes; fewer there are an `UnexpectedEof`.
    fn skip(&mut self, length: u64) -> io::Result<()>;
}

/// How much of a file is read ahead, in bytes: some headers of small members.
const WINDOW_BYTES: usize = 16 * 1024;

/// An archive that is a file: data is passed over without reading it.
#[derive(Debug)]
pub struct FileSource<'f> {
    file: &'f File,
    size: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'f> FileSource<'f> {
    /// The archive that `file` holds from its start.
    pub fn new(file: &'f File) -> io::Result<FileSource<'f>> {
        let size = file.metadata()?.len();
        Ok(FileSource {
            file,
            size,
            position: 0,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// The bytes at hand from the current position.
    fn ahead(&self) -> &[u8] {
        let start = self
            .position
            .checked_sub(self.window_start)
            .and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| self.window.get(start..))
            .unwrap_or_default()
    }

    fn refill(&mut self) -> io::Result<()> {
        self.window.resize(WINDOW_BYTES, 0);
        self.window_start = self.position;
        let mut filled = 0;
        while filled < self.window.len() {
            match self
                .file
                .read_at(&mut self.window[filled..], self.position + filled as u64)?
            {
                0 => break,
                n => filled += n,
            }
        }
        self.window.truncate(filled);
        Ok(())
    }
}

impl Source for FileSource<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.ahead().is_empty() {
                self.refill()?;
            }
            let n = self.ahead().len().min(buffer.len() - filled);
            if n == 0 {
                break;
            }
            buffer[filled..filled + n].copy_from_slice(&self.ahead()[..n]);
            filled += n;
            self.position += n as u64;
        }
        Ok(filled)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        match self
            .position
            .checked_add(length)
            .filter(|position| *position <= self.size)
        {
            Some(position) => {
                self.position = position;
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Source for &[u8] {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.len().min(buffer.len());
        let (head, rest) = self.split_at(n);
        buffer[..n].copy_from_slice(head);
        *self = rest;
        Ok(n)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.len());
        *self = &self[length.ok_or(io::ErrorKind::UnexpectedEof)?..];
        Ok(())
    }
}
