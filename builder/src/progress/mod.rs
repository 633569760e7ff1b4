//! What people see of a build: one numbered block of lines a step, or moving lines on a terminal.

mod raw;
mod tail;

pub use tail::Tail;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use raw::Vertex;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

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
                drop(
                    self.progress
                        .bars
                        .println(format!("{:>8} {:6.1}s {}", word, seconds, self.title)),
                );
            }
            (None, Some(vertex)) => self.progress.line(&vertex.end(ending)),
            (None, None) => self.progress.plain(&format!("#{} {line}", self.number)),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{spinner:>8} {elapsed:>7} {prefix:.bold}  {wide_msg:.dim}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
