//! Tables and charts of what was measured.

use crate::measure::{Sample, median};
use std::fmt::Write;
use std::path::Path;

/// One measured task with its contenders, the first of which is ours.
pub(crate) struct Table {
    /// File name stem.
    pub(crate) name: String,
    /// What was done.
    pub(crate) title: String,
    /// A row each: contender and its samples.
    pub(crate) rows: Vec<(String, Vec<Sample>)>,
}

/// A figure of ours, and what was asked of it.
pub(crate) struct Goal {
    /// What was measured, unit included.
    pub(crate) what: String,
    /// The figure.
    pub(crate) is: f64,
    /// What it should not exceed; `None`: nothing was asked, the figure explains another.
    pub(crate) at_most: Option<f64>,
}

impl Goal {
    /// Tells it on standard error, too: a whole run takes long.
    pub(crate) fn new(what: impl Into<String>, is: f64, at_most: impl Into<Option<f64>>) -> Self {
        let (what, at_most) = (what.into(), at_most.into());
        eprintln!("{what}: {is:.2}");
        Self { what, is, at_most }
    }
}

/// The goals of a subject as a table in Markdown; what was missed is marked.
fn goals_markdown(subject: &str, goals: &[Goal]) -> String {
    let mut out = format!("## What was asked of the {subject}\n\n");
    out.push_str("| | is | at most | |\n|---|---:|---:|---|\n");
    for Goal { what, is, at_most } in goals {
        let (limit, verdict) = match at_most {
            None => (String::new(), ""),
            Some(limit) if is <= limit => (limit.to_string(), "met"),
            Some(limit) => (limit.to_string(), "**missed**"),
        };
        let _ = writeln!(out, "| {what} | {is:.2} | {limit} | {verdict} |");
    }
    out
}

impl Table {
    pub(crate) fn wall_ms(samples: &[Sample]) -> f64 {
        median(samples, |sample| sample.wall.as_secs_f64() * 1e3)
    }

    /// Wall time of row `a` over that of row `b`.
    pub(crate) fn ratio(&self, a: usize, b: usize) -> f64 {
        Self::wall_ms(&self.rows[a].1) / Self::wall_ms(&self.rows[b].1)
    }

    /// The table in Markdown: medians, and how many times ours each takes.
    pub(crate) fn markdown(&self) -> String {
        let ours = self
            .rows
            .first()
            .map_or(f64::NAN, |(_, samples)| Self::wall_ms(samples));
        let rounds = self.rows.first().map_or(0, |(_, samples)| samples.len());
        let mut out = format!(
            "## {}\n\nMedians of {rounds} rounds in turn.\n\n",
            self.title
        );
        out.push_str("| | wall ms | times teu | CPU ms | peak MB |\n|---|---:|---:|---:|---:|\n");
        for (name, samples) in &self.rows {
            let wall = Self::wall_ms(samples);
            let cpu = median(samples, |sample| sample.cpu.as_secs_f64() * 1e3);
            let peak = median(samples, |sample| sample.peak_kib as f64 / 1024.0);
            let _ = writeln!(
                out,
                "| {name} | {wall:.1} | {:.2} | {cpu:.1} | {peak:.1} |",
                wall / ours
            );
        }
        out
    }

    /// Wall time as horizontal bars.
    pub(crate) fn svg(&self) -> String {
        const BAR: f64 = 420.0;
        const ROW: usize = 26;
        let longest = self
            .rows
            .iter()
            .map(|(_, samples)| Self::wall_ms(samples))
            .fold(0.0, f64::max);
        let height = 40 + ROW * self.rows.len();
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n<text x=\"8\" y=\"20\" font-weight=\"bold\">{}</text>\n",
            self.title
        );
        for (index, (name, samples)) in self.rows.iter().enumerate() {
            let wall = Self::wall_ms(samples);
            let top = 34 + ROW * index;
            let width = (BAR * wall / longest).max(1.0);
            let colour = if index == 0 { "#2a7f62" } else { "#9aa5b1" };
            let _ = writeln!(
                out,
                "<text x=\"8\" y=\"{text}\">{name}</text><rect x=\"230\" y=\"{top}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/><text x=\"{after:.1}\" y=\"{text}\">{wall:.1} ms</text>",
                text = top + 14,
                after = 236.0 + width,
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

/// Prints the tables and the goals of each subject, and writes `results.md` and one chart each into `folder`.
///
/// # Errors
/// When the folder or a file cannot be written.
pub(crate) fn write(
    folder: &Path,
    tables: &[Table],
    goals: &[(&str, Vec<Goal>)],
) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut all = String::from("# Measured by `make bench`\n");
    for table in tables {
        let text = table.markdown();
        println!("\n{text}");
        let _ = write!(all, "\n{text}\n![{}]({}.svg)\n", table.title, table.name);
        std::fs::write(folder.join(format!("{}.svg", table.name)), table.svg())?;
    }
    for (subject, goals) in goals {
        let text = goals_markdown(subject, goals);
        println!("\n{text}");
        let _ = write!(all, "\n{text}");
    }
    std::fs::write(folder.join("results.md"), all)
}
