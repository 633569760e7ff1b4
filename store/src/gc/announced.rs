//! What transactions announce while a collector is at work.
//!
//! Marking takes some tenths of a second, removing may take minutes; the lock is not held that long. Whatever a transaction
//! wants meanwhile it appends to `lock/announced`, too, if that is there: the collector makes the file before it marks,
//! and reads what is new in it before it removes anything.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::{Context, Error};
use crate::store::Store;

/// The collector's end.
#[derive(Debug)]
pub(super) struct Announced {
    path: PathBuf,
    /// Read up to what is known.
    file: File,
}

impl Announced {
    /// Asks for announcements, from now on. The gc lock must be held exclusively; who holds `lock/collect` does this alone.
    pub(super) fn ask(store: &Store) -> Result<Announced, Error> {
        let path = path(store);
        let mut options = OpenOptions::new();
        // What a killed collector left says nothing to this one.
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path).context("create", &path)?;
        Ok(Announced { path, file })
    }

    /// What was announced since this was last asked. The gc lock must be held exclusively.
    pub(super) fn news(&mut self) -> Result<Vec<Digest>, Error> {
        let mut text = String::new();
        let read = self.file.read_to_string(&mut text);
        read.context("read", &self.path)?;
        Ok(Lines::read(&text).collect())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // One that stays is emptied by the next collector.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Digests as they are announced, one a line. The first line is empty: a full disk may have cut off the announcement
/// before this one in the middle of a line, which would join with this one's first.
#[derive(Debug)]
pub(crate) struct Lines(String);

impl Lines {
    /// Of these digests.
    pub(crate) fn of<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Lines {
        let mut text = String::from("\n");
        for digest in digests {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{digest}");
        }
        Lines(text)
    }

    /// As they are appended to a file.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The digests that were written; what is none was cut off, and its writer knows.
    pub(crate) fn read(text: &str) -> impl Iterator<Item = Digest> {
        text.lines().filter_map(|line| line.parse().ok())
    }
}

impl Store {
    /// Tells the collector that is at work, if one is, of digests, one a line. The gc lock must be held, shared.
    /// Who is told of an error has announced nothing, and must not look.
    pub(crate) fn announce(&self, lines: &Lines) -> Result<(), Error> {
        let path = path(self);
        match OpenOptions::new().append(true).open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            file => file
                .and_then(|mut file| file.write_all(lines.text().as_bytes()))
                .context("write", path),
        }
    }
}

fn path(store: &Store) -> PathBuf {
    store.lock_path("announced")
}
