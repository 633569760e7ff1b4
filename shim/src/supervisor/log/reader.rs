//! Reading a log whose files are renamed meanwhile.
//!
//! `PATH` is written to; `PATH.1` is the newest full file, `PATH.2` the one before.
//! Whoever has a file open knows by its inode where in this row it is now, and so
//! which one is next.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::numbered;

/// How often another look is taken when files were renamed in between. Each time a
/// whole file has been filled.
const TRIES: usize = 100;
/// How many names in the row may have no file: one, while files are renamed.
const ABSENT: u32 = 1;
/// How often a file must not be found before it is gone.
const MISSES: usize = 3;
/// How long to wait in between, while files may be on their way from name to name.
const PAUSE: Duration = Duration::from_millis(1);

/// All files of a log, the oldest first, as one.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: File,
    missed: bool,
}

impl LogReader {
    /// Opens the oldest file.
    ///
    /// # Errors
    /// I/O errors; there is no log.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: oldest(path)?,
            missed: false,
        })
    }

    /// Whether a file went away before it was read.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.missed
    }

    fn place(&self, number: u32) -> PathBuf {
        place(&self.path, number)
    }

    /// How many files are newer; `None`: the file is no more in the row.
    fn newer(&self, own: &Metadata) -> Option<u32> {
        let metadata = |number| std::fs::metadata(self.place(number)).ok();
        let is_own = |other: &Metadata| (other.dev(), other.ino()) == (own.dev(), own.ino());
        // Files are renamed upwards, so that none escapes who looks upwards.
        let mut absent = 0;
        for number in 0.. {
            match metadata(number) {
                Some(other) if is_own(&other) => return Some(number),
                Some(_) => absent = 0,
                None => absent += 1,
            }
            if absent > ABSENT {
                break;
            }
        }
        None
    }

    /// The next file, if there is one.
    fn next(&mut self) -> io::Result<Option<File>> {
        let own = self.file.metadata()?;
        let mut misses = 0;
        for _ in 0..TRIES {
            let newer = match self.newer(&own) {
                Some(0) => return Ok(None),
                Some(number) => number,
                // Cut off instead of renamed, or gone before it was read.
                None if misses < MISSES => {
                    misses += 1;
                    std::thread::sleep(PAUSE);
                    continue;
                }
                None => {
                    self.missed = true;
                    return oldest(&self.path).map(Some);
                }
            };
            match File::open(self.place(newer - 1)) {
                // It is the next one only if none was renamed meanwhile.
                Ok(file) if self.newer(&own) == Some(newer) => return Ok(Some(file)),
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Read for LogReader {
    /// 0: there is no more now.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.file.read(room)?;
            if len > 0 || room.is_empty() {
                return Ok(len);
            }
            let Some(next) = self.next()? else {
                return Ok(0);
            };
            // What was written between its end and its renaming.
            let len = self.file.read(room)?;
            if len > 0 {
                return Ok(len);
            }
            self.file = next;
        }
    }
}

/// `PATH`, or `PATH.NUMBER`.
fn place(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => numbered(path, &number.to_string()),
    }
}

fn oldest(path: &Path) -> io::Result<File> {
    let mut found = File::open(path);
    let mut absent = 0;
    for number in 1.. {
        match File::open(place(path, number)) {
            Ok(file) => (found, absent) = (Ok(file), 0),
            Err(err) if err.kind() == io::ErrorKind::NotFound => absent += 1,
            Err(err) => return Err(err),
        }
        if absent > ABSENT {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::LogFull;
    use crate::supervisor::log::{Form, Limits, Log, Settings, Sink as _, Stream};

    fn log(path: &Path, kept_files: u32) -> Log {
        Log::with(Settings {
            path: path.to_owned(),
            form: Form::Utc,
            limits: Limits {
                file_bytes: Some(300),
                total_bytes: None,
                kept_files,
            },
            full: LogFull::Block,
            mode: 0o600,
            sync: false,
        })
        .unwrap()
    }

    fn numbers(reader: &mut LogReader) -> Vec<u32> {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let numbers = text.lines().map(|line| line.rsplit(' ').next().unwrap());
        numbers.map(|number| number.parse().unwrap()).collect()
    }

    fn write(log: &mut Log, numbers: std::ops::Range<u32>) {
        for number in numbers {
            log.append(Stream::Stdout, format!("{number}\n").as_bytes());
        }
    }

    #[test]
    fn the_files_are_read_as_one_and_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(LogReader::open(&path).is_err());
        let mut log = log(&path, 1000);
        write(&mut log, 0..50);
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(numbers(&mut reader), Vec::from_iter(0..50));
        assert!(numbers(&mut reader).is_empty());
        // Several files at once, and one by one.
        write(&mut log, 50..90);
        assert_eq!(numbers(&mut reader), Vec::from_iter(50..90));
        for number in 90..120 {
            write(&mut log, number..number + 1);
            assert_eq!(numbers(&mut reader), [number]);
        }
        assert!(!reader.has_missed());
    }

    #[test]
    fn what_is_not_kept_is_missed_and_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = log(&path, 2);
        write(&mut log, 0..3);
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(numbers(&mut reader), [0, 1, 2]);
        write(&mut log, 3..100);
        let seen = numbers(&mut reader);
        // The rest of the file that was open, then what is kept.
        let kept = seen.windows(2).position(|pair| pair[1] != pair[0] + 1);
        let kept = kept.map(|at| &seen[at + 1..]).unwrap();
        assert!(reader.has_missed() && seen[0] == 3, "{seen:?}");
        assert_eq!(kept, Vec::from_iter(kept[0]..100));
    }
}
