//! Where output is kept: what `--log-path` names, several places at once.

mod drivers;
mod journal;

use std::os::fd::BorrowedFd;

pub use drivers::{Drivers, plan};
pub use journal::{Fields, Journal};

use crate::Error;
use crate::supervisor::log::{Log, Sink, Stream, Taken};

/// One place.
#[derive(Debug)]
pub enum Keeper {
    /// A file in CRI's format.
    File(Log),
    /// systemd's journal.
    Journal(Journal),
}

impl Keeper {
    fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Self::File(log) => log,
            Self::Journal(journal) => journal,
        }
    }

    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File(log) => log.waits_for(),
            Self::Journal(journal) => journal.waits_for(),
        }
    }
}

/// A place, and how much it has of the block on its way.
#[derive(Debug)]
struct Progress {
    keeper: Keeper,
    taken: usize,
    has_all: bool,
}

/// All places. Each gets each byte once; the slowest sets the pace.
#[derive(Debug, Default)]
pub struct Logs(Vec<Progress>);

impl Logs {
    /// Output is kept in all of `keepers`; nowhere where there are none.
    #[must_use]
    pub fn new(keepers: Vec<Keeper>) -> Self {
        let progress = |keeper| Progress {
            keeper,
            taken: 0,
            has_all: false,
        };
        Self(keepers.into_iter().map(progress).collect())
    }

    /// Opens all files anew, after someone has renamed them.
    ///
    /// # Errors
    /// The first failure; that log goes on in its old file.
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.0
            .iter_mut()
            .try_for_each(|place| match &mut place.keeper {
                Keeper::File(log) => log.reopen(),
                Keeper::Journal(_) => Ok(()),
            })
    }
}

impl Sink for Logs {
    /// Either all or nothing, for the places are at different points of the
    /// block: it is offered again until each of them has it.
    fn append(&mut self, stream: Stream, data: &[u8]) -> Taken {
        for place in self.0.iter_mut().filter(|place| !place.has_all) {
            match place.keeper.sink().append(stream, &data[place.taken..]) {
                Taken::All => place.has_all = true,
                Taken::Part(n) => place.taken += n,
            }
        }
        if self.0.iter().any(|place| !place.has_all) {
            return Taken::Part(0);
        }
        for place in &mut self.0 {
            (place.taken, place.has_all) = (0, false);
        }
        Taken::All
    }

    fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.0
            .iter()
            .find(|place| !place.has_all)?
            .keeper
            .waits_for()
    }

    /// The largest loss of any place. What one has taken of the block on its way is not lost to it.
    fn close(&mut self, unread: usize) -> u64 {
        let losses = self.0.iter_mut().map(|place| {
            let unread = unread.saturating_sub(place.taken);
            place
                .keeper
                .sink()
                .close(if place.has_all { 0 } else { unread })
        });
        losses.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::LogFull;
    use std::path::Path;

    fn file(path: &Path) -> Keeper {
        Keeper::File(Log::open(path, LogFull::Block).unwrap())
    }

    #[test]
    fn each_place_gets_each_byte_once_though_one_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut logs = Logs::new(vec![file(&path), file(Path::new("/dev/full"))]);
        for _ in 0..3 {
            assert_eq!(logs.append(Stream::Stdout, b"one\n"), Taken::Part(0));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(logs.close(4) > 0);
    }

    #[test]
    fn nowhere_takes_everything() {
        assert_eq!(Logs::default().append(Stream::Stderr, b"x"), Taken::All);
        assert_eq!(Logs::default().close(0), 0);
    }
}
