//! What is wrong with a Dockerfile, with the bytes it stands in, and its picture with a caret.

use crate::dockerfile::Span;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;

/// Something wrong at a place of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, lower case.
    pub title: String,
    /// The bytes that it is about.
    pub span: Span,
    /// What stands under the caret; may be empty.
    pub label: String,
    /// What the author probably meant, or can do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without advice.
    pub fn new(title: impl Into<String>, span: Span, label: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            span,
            label: label.into(),
            help: None,
        }
    }

    /// The same with advice, when there is some.
    #[must_use]
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// Draws the lines of `source` that the problem is about, with a caret below.
    /// `name` is the file's name as the user gave it.
    pub fn render(&self, name: &str, source: &str, color: bool) -> String {
        renderer(color).render(&self.groups(Level::ERROR, name, source))
    }

    /// The same for what does not fail the build.
    pub fn render_warning(&self, name: &str, source: &str, color: bool) -> String {
        renderer(color).render(&self.groups(Level::WARNING, name, source))
    }

    fn groups<'a>(&'a self, level: Level<'a>, name: &'a str, source: &'a str) -> Vec<Group<'a>> {
        let annotation = AnnotationKind::Primary
            .span(clamp(source, &self.span))
            .label(self.label.as_str());
        let snippet = Snippet::source(source).path(name).annotation(annotation);
        let mut group = level.primary_title(self.title.as_str()).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        vec![group]
    }
}

fn renderer(color: bool) -> Renderer {
    if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if !self.label.is_empty() {
            write!(f, " ({})", self.label)?;
        }
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Trims a span to the source and to character borders, which the renderer insists on.
fn clamp(source: &str, span: &Span) -> Span {
    let border = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = border(span.start);
    start..border(span.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_a_caret_and_advice() {
        let source = "FROM scratch\nCOPPY a b\n";
        let problem = Problem::new("unknown instruction `COPPY`", 13..18, "not an instruction")
            .help("did you mean `COPY`?".to_owned());
        let text = problem.render("Dockerfile", source, false);
        for part in [
            "error: unknown instruction `COPPY`",
            "Dockerfile:2:1",
            "2 | COPPY a b",
            "^^^^^ not an instruction",
            "did you mean `COPY`?",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_span_out_of_range_is_clamped() {
        Problem::new("x", 5..900, "").render("f", "aé", false);
        Problem::new("x", 2..2, "").render("f", "aé", false);
        Problem::new("x", 0..0, "").render("f", "", false);
    }
}
