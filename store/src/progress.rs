//! What people see while bytes move: bars on a terminal, plain lines elsewhere,
//! nothing when they asked for nothing. All of it goes to standard error;
//! results go to standard output and are not ours.

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a task that takes long says so where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How often bars are drawn, a second.
const DRAWS_PER_SECOND: u8 = 10;

/// Where progress is shown. Tasks may run in parallel.
#[derive(Debug)]
pub struct Progress(Kind);

#[derive(Debug)]
enum Kind {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

impl Progress {
    /// Bars if standard error is a terminal, else lines.
    #[must_use]
    pub fn to_stderr() -> Self {
        if !io::stderr().is_terminal() {
            return Self(Kind::Lines);
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        Self(Kind::Bars(MultiProgress::with_draw_target(target)))
    }

    /// Nothing at all.
    #[must_use]
    pub fn quiet() -> Self {
        Self(Kind::Quiet)
    }

    /// A line of its own, for what has no length: `resolving docker.io/library/alpine:latest`.
    /// Words of a registry may be in it: control characters never reach the terminal.
    pub fn note(&self, line: impl fmt::Display) {
        if matches!(self.0, Kind::Quiet) {
            return;
        }
        let line = line.to_string().replace(char::is_control, "");
        match &self.0 {
            Kind::Quiet => {}
            // Progress that nobody can see is no reason to stop.
            Kind::Lines => {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Kind::Bars(bars) => {
                let _ = bars.println(line);
            }
        }
    }

    /// Something of `total` bytes that begins now.
    #[must_use]
    pub fn task(&self, name: impl Into<String>, total: u64) -> Task<'_> {
        let name = name.into();
        let bar = match &self.0 {
            Kind::Bars(bars) => {
                let bar = ProgressBar::new(total)
                    .with_style(style())
                    .with_prefix(name.clone());
                Some(bars.add(bar))
            }
            Kind::Quiet | Kind::Lines => None,
        };
        let now = Instant::now();
        Task {
            progress: self,
            name,
            total,
            done: AtomicU64::new(0),
            began: now,
            said: Mutex::new(now),
            bar,
        }
    }

    /// Something of `size` bytes that need not move.
    pub fn reused(&self, name: &str, size: u64, why: &str) {
        self.note(format_args!("{name}  {}  {why}", DecimalBytes(size)));
    }
}

/// The template is ours and constant; were it wrong, the default style would show.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}  {bar:30}  {decimal_bytes:>9} of {decimal_total_bytes:<9} {decimal_bytes_per_sec}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// One thing that moves.
#[derive(Debug)]
pub struct Task<'p> {
    progress: &'p Progress,
    name: String,
    total: u64,
    done: AtomicU64,
    began: Instant,
    /// When this task last wrote a line.
    said: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Task<'_> {
    /// So many bytes more.
    pub fn advance(&self, bytes: u64) {
        self.show(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    /// So many bytes in all; fewer than before when something is moved again.
    pub fn reach(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
        self.show(bytes);
    }

    fn show(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if matches!(self.progress.0, Kind::Lines) {
            self.say_now_and_then(done);
        }
    }

    /// It is done; `how` says in a word or two what was done: `pulled`.
    pub fn finish(self, how: &str) {
        let done = self.done.load(Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.note(format_args!(
            "{}  {}  {how}{}",
            self.name,
            DecimalBytes(done),
            self.rate(done)
        ));
    }

    /// Bytes a second, when it took long enough to tell.
    fn rate(&self, done: u64) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        if seconds < 0.5 {
            return String::new();
        }
        format!(" at {}/s", DecimalBytes((done as f64 / seconds) as u64))
    }

    fn say_now_and_then(&self, done: u64) {
        let Ok(mut said) = self.said.try_lock() else {
            return;
        };
        if said.elapsed() >= LINE_INTERVAL {
            *said = Instant::now();
            let total = DecimalBytes(self.total);
            self.progress.note(format_args!(
                "{}  {} of {total}{}",
                self.name,
                DecimalBytes(done),
                self.rate(done)
            ));
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A reader whose bytes count for a task.
#[derive(Debug)]
pub struct Counted<'t, R> {
    inner: R,
    task: &'t Task<'t>,
}

impl<'t, R: Read> Counted<'t, R> {
    /// Counts what is read of `inner` for `task`.
    pub fn new(inner: R, task: &'t Task<'t>) -> Self {
        Self { inner, task }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.task.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_a_template_that_parses() {
        let text = "{prefix}  {bar:30}  {decimal_bytes:>9} of {decimal_total_bytes:<9} {decimal_bytes_per_sec}  {msg}";
        assert!(ProgressStyle::with_template(text).is_ok());
    }

    #[test]
    fn bytes_are_counted() {
        let progress = Progress::quiet();
        let task = progress.task("layer", 5);
        let mut bytes = Vec::new();
        Counted::new(&b"hello"[..], &task)
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(task.done.load(Ordering::Relaxed), 5);
        task.finish("read");
    }
}
