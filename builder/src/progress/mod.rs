//! What people see of a build: one numbered block of lines a step, or moving lines on a terminal.

mod raw;
mod tail;

pub use tail::Tail;

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use raw::Vertex;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes are written between two that are shown: an archive's members come in small pieces.
const SHOWN_BYTES: u64 = 1024 * 1024;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Numbered lines, as logs want them.
    Plain,
    /// Lines that move, for a terminal.
    Terminal,
    /// JSON lines as BuildKit has them, for programs.
    RawJson,
    /// Nothing.
    Quiet,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ran.
    Done,
    /// An earlier build's layer was used.
    Cached,
    /// It failed.
    Failed,
    /// Something else failed.
    Cancelled,
}

/// Shows progress on standard error.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    bars: MultiProgress,
    /// Keeps a step's lines together when several write at once.
    out: Mutex<()>,
    /// How far steps are that move bytes, on a terminal.
    moved: Mutex<HashMap<usize, Moved>>,
}

/// The bytes of a step that runs.
#[derive(Debug)]
struct Moved {
    bar: ProgressBar,
    bytes: u64,
}

/// A step that is being shown.
#[derive(Debug)]
pub struct Shown<'a> {
    progress: &'a Progress,
    number: usize,
    title: String,
    started: Instant,
    bar: Option<ProgressBar>,
    vertex: Option<Vertex>,
}

impl Progress {
    /// Progress in a style.
    pub fn new(style: Style) -> Self {
        Self {
            style,
            bars: MultiProgress::new(),
            out: Mutex::new(()),
            moved: Mutex::default(),
        }
    }

    /// The style.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Where the store shows what it packs and sends, in the same style.
    pub fn of_transfers(&self) -> teu_store::progress::Progress {
        match self.style {
            Style::Quiet | Style::RawJson => teu_store::progress::Progress::quiet(),
            Style::Plain | Style::Terminal => teu_store::progress::Progress::to_stderr(),
        }
    }

    /// A step starts; `number` counts from 1.
    pub fn start(&self, number: usize, title: &str) -> Shown<'_> {
        let title = title.split_whitespace().map(tail::printable);
        let title = title.collect::<Vec<_>>().join(" ");
        let bar = (self.style == Style::Terminal).then(|| {
            let bar = self
                .bars
                .add(ProgressBar::new_spinner().with_style(style()));
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            let moved = Moved {
                bar: bar.clone(),
                bytes: 0,
            };
            self.moved().insert(number, moved);
            bar
        });
        self.plain(&format!("#{number} {title}"));
        let vertex = (self.style == Style::RawJson).then(|| Vertex::new(number, &title));
        if let Some(vertex) = &vertex {
            self.line(&vertex.begin());
        }
        Shown {
            progress: self,
            number,
            title,
            started: Instant::now(),
            bar,
            vertex,
        }
    }

    /// The step of that number has `verb` so many bytes until now: `fetched`, `written`.
    pub fn bytes(&self, number: usize, verb: &str, bytes: u64) {
        if let Some(moved) = self.moved().get_mut(&number) {
            moved.bytes = bytes;
            moved
                .bar
                .set_message(format!("{} {verb}", DecimalBytes(bytes)));
        }
    }

    fn moved(&self) -> MutexGuard<'_, HashMap<usize, Moved>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the moving lines away: the terminal is somebody else's now.
    pub fn stand_aside(&self) {
        if self.style == Style::Terminal {
            let _ = self.bars.clear();
            self.bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// A line that belongs to no step.
    pub fn note(&self, text: &str) {
        match self.style {
            Style::Quiet => {}
            Style::Plain => self.plain(text),
            Style::RawJson => self.line(&raw::note(text)),
            Style::Terminal => drop(self.bars.println(text)),
        }
    }

    fn plain(&self, line: &str) {
        if self.style == Style::Plain {
            self.line(line);
        }
    }

    fn line(&self, line: &(impl std::fmt::Display + ?Sized)) {
        let _one_line = self.out.lock();
        // A closed standard error is no reason to stop building.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

impl Shown<'_> {
    /// Seconds since the step started.
    pub fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A line of the step's output.
    pub fn line(&self, text: &str) {
        match (&self.bar, &self.vertex) {
            (Some(bar), _) => bar.set_message(text.to_owned()),
            (None, Some(vertex)) => self.progress.line(&vertex.log(text)),
            (None, None) => {
                self.progress
                    .plain(&format!("#{} {:.3} {text}", self.number, self.elapsed()))
            }
        }
    }

    /// The step ended.
    pub fn end(self, ending: Ending) {
        let seconds = self.elapsed();
        let (word, line) = match ending {
            Ending::Done => ("done", format!("DONE {seconds:.1}s")),
            Ending::Cached => ("reused", "CACHED".to_owned()),
            Ending::Failed => ("failed", "ERROR".to_owned()),
            Ending::Cancelled => ("canceled", "CANCELED".to_owned()),
        };
        match (&self.bar, &self.vertex) {
            (Some(bar), _) => {
                bar.finish_and_clear();
                let moved = self.progress.moved().remove(&self.number);
                let line = ended(
                    word,
                    seconds,
                    moved.map_or(0, |moved| moved.bytes),
                    &self.title,
                );
                drop(self.progress.bars.println(line));
            }
            (None, Some(vertex)) => self.progress.line(&vertex.end(ending)),
            (None, None) => self.progress.plain(&format!("#{} {line}", self.number)),
        }
    }
}

/// What stays of a step on a terminal: how it ended, its time, the size of what it made, its title.
fn ended(word: &str, seconds: f64, bytes: u64, title: &str) -> String {
    let size = match bytes {
        0 => String::new(),
        bytes => DecimalBytes(bytes).to_string(),
    };
    format!("{word:>8} {seconds:6.1}s {size:>10} {title}")
}

/// Counts what is written, for a step that is shown.
#[derive(Debug)]
pub struct Counted<'a, W> {
    inner: W,
    progress: &'a Progress,
    number: usize,
    bytes: u64,
    /// How many were shown.
    shown: u64,
}

impl<'a, W> Counted<'a, W> {
    /// Counts for the step of that number.
    pub fn new(inner: W, progress: &'a Progress, number: usize) -> Self {
        Self {
            inner,
            progress,
            number,
            bytes: 0,
            shown: 0,
        }
    }
}

impl<W> Counted<'_, W> {
    fn show(&mut self) {
        self.shown = self.bytes;
        self.progress.bytes(self.number, "written", self.bytes);
    }
}

impl<W> Drop for Counted<'_, W> {
    fn drop(&mut self) {
        self.show();
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        if self.bytes - self.shown >= SHOWN_BYTES {
            self.show();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn style() -> ProgressStyle {
    let template = "{spinner:>8} {elapsed:>7} {prefix:.bold}  {wide_msg:.dim}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_ended_shows_what_it_made() {
        let line = |bytes| ended("done", 1.25, bytes, "[a 1/2] RUN x");
        assert_eq!(
            line(45_100_000),
            "    done    1.2s   45.10 MB [a 1/2] RUN x"
        );
        assert_eq!(line(0), "    done    1.2s            [a 1/2] RUN x");
    }

    #[test]
    fn bytes_are_counted_for_steps_that_run() {
        let progress = Progress::new(Style::Terminal);
        let shown = progress.start(1, "x");
        let mut counted = Counted::new(io::sink(), &progress, 1);
        counted.write_all(&[0; 1000]).unwrap();
        counted.write_all(&[0; 500]).unwrap();
        drop(counted);
        // Nobody is shown for this one.
        progress.bytes(2, "fetched", 7);
        assert_eq!(
            progress.moved().get(&1).map(|moved| moved.bytes),
            Some(1500)
        );
        shown.end(Ending::Done);
        assert!(progress.moved().is_empty());
    }
}
