//! `teu logs`

use std::io::{self, BufRead, BufReader, Write};
use std::time::{Duration, SystemTime};

use super::flags::duration;
use crate::container::status::observe;
use crate::container::{Folder, Place};
use crate::error::{At as _, warn};
use crate::supervisor::log::{Entry, LogReader, Stream, parse};
use crate::{Error, clock};

/// How often a followed log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

/// `teu logs`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Go on until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Begin at this time, or so long ago (2026-01-31T12:00:00Z, 10m)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// The container
    container: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(u64),
}

fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail::All);
    }
    text.parse()
        .map(Tail::Lines)
        .map_err(|_| "a number of lines, or `all`".to_owned())
}

/// A moment as the log writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Since(String);

fn since(text: &str) -> Result<Since, String> {
    let moment = match duration(text) {
        Some(ago) => SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH),
        None => text
            .parse::<jiff::Timestamp>()
            .map_err(|err| err.to_string())?
            .into(),
    };
    Ok(Since(
        String::from_utf8_lossy(&clock::format(moment)).into_owned(),
    ))
}

/// Writes the container's output as it was, each stream to its own.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let folder = Folder::resolve(place, &arguments.container)?;
    let path = folder.log();
    let open = || LogReader::open(&path).map(BufReader::new);
    let mut reader = match open() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0), // nothing has run yet
        reader => reader.at("open", &path)?,
    };
    let first = match arguments.tail {
        Tail::All => 0,
        Tail::Lines(wanted) => open()
            .and_then(|mut reader| count_lines(&mut reader))
            .at("read", &path)?
            .saturating_sub(wanted),
    };
    let mut printer = Printer::new(arguments, first);
    let printed = printer.copy(&mut reader, || {
        let live = arguments.follow && observe(&folder).is_ok_and(|status| status.is_live());
        if live {
            std::thread::sleep(FOLLOW_PERIOD);
        }
        live
    });
    if reader.get_ref().has_missed() {
        let what = "some output went away with a full log file before it was shown";
        warn("teu", &Error::Invalid(what.to_owned()));
    }
    match printed {
        // `teu logs | head` is no error.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => result.at("read", &path).map(|()| 0),
    }
}

/// Lines of output, an unfinished last one included.
fn count_lines(reader: &mut impl BufRead) -> io::Result<u64> {
    let (mut lines, mut open, mut line) = (0, false, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Some(entry) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            lines += u64::from(entry.full);
            open = !entry.full;
        }
        line.clear();
    }
    Ok(lines + u64::from(open))
}

/// Turns entries into output.
struct Printer<'a> {
    arguments: &'a Arguments,
    /// Lines still to be left out.
    skip: u64,
    /// Whether each stream is within a line.
    within: [bool; 2],
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Arguments, skip: u64) -> Self {
        Self {
            arguments,
            skip,
            within: [false; 2],
        }
    }

    /// Copies all entries; at the end of the log, `more` says (after a while) whether to try again.
    fn copy(
        &mut self,
        reader: &mut impl BufRead,
        mut more: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
        let mut line = Vec::new();
        let mut last_look = false;
        loop {
            // An entry that is being written has no newline yet: its rest comes with the next read.
            if reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
                if let Some(entry) = parse(&line[..line.len() - 1]) {
                    match entry.stream {
                        Stream::Stdout => self.print(&entry, &mut stdout)?,
                        Stream::Stderr => self.print(&entry, &mut stderr)?,
                    }
                }
                line.clear();
                continue;
            }
            stdout.flush()?;
            if last_look {
                return Ok(());
            }
            // After the end is seen, the log is read once more: it is complete by then.
            last_look = !more();
        }
    }

    fn print(&mut self, entry: &Entry<'_>, out: &mut impl Write) -> io::Result<()> {
        let begins = !std::mem::replace(&mut self.within[entry.stream.index()], !entry.full);
        if self.skip > 0 {
            self.skip -= u64::from(entry.full);
            return Ok(());
        }
        if self
            .arguments
            .since
            .as_ref()
            .is_some_and(|since| entry.time < since.0.as_str())
        {
            return Ok(());
        }
        if begins && self.arguments.timestamps {
            out.write_all(entry.time.as_bytes())?;
            out.write_all(b" ")?;
        }
        out.write_all(entry.text)?;
        if entry.full {
            out.write_all(b"\n")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Arguments,
    }

    const LOG: &[u8] = b"2026-01-01T00:00:00.000000000Z stdout F one\n\
                         2026-01-01T00:00:01.000000000Z stdout P tw\n\
                         2026-01-01T00:00:02.000000000Z stdout F o\n\
                         torn\n\
                         2026-01-01T00:00:03.000000000Z stdout P three";

    fn shown(words: &[&str]) -> String {
        let line = Line::parse_from(["logs", "c"].iter().chain(words));
        let skip = match line.logs.tail {
            Tail::All => 0,
            Tail::Lines(wanted) => count_lines(&mut &LOG[..]).unwrap().saturating_sub(wanted),
        };
        let mut printer = Printer::new(&line.logs, skip);
        let mut out = Vec::new();
        for text in LOG.split(|byte| *byte == b'\n') {
            if let Some(entry) = parse(text) {
                printer.print(&entry, &mut out).unwrap();
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn output_comes_back_as_it_was() {
        assert_eq!(shown(&[]), "one\ntwo\nthree");
    }

    #[test]
    fn tail_counts_lines_not_entries() {
        assert_eq!(shown(&["--tail", "2"]), "two\nthree");
        assert_eq!(shown(&["--tail", "0"]), "");
        assert_eq!(shown(&["--tail", "9"]), "one\ntwo\nthree");
    }

    #[test]
    fn times_stand_at_the_beginning_of_lines() {
        assert_eq!(
            shown(&["-t", "--since", "2026-01-01T00:00:01Z"]),
            "2026-01-01T00:00:01.000000000Z two\n2026-01-01T00:00:03.000000000Z three"
        );
    }
}
