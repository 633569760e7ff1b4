//! What is allowed and yet probably a mistake: the rules of BuildKit's linter, by its names.
//!
//! [`file`](self) has the rules that the text alone decides; those that need values are
//! applied where a stage is evaluated (`plan/`).

mod file;
mod options;
pub mod rules;

pub use file::{Globals, check_file};
pub use options::{BadOption, Options, boolean};
pub use rules::Rule;

use crate::dockerfile::Span;
use crate::report::Problem;
use std::cell::RefCell;

/// A violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong here.
    pub detail: String,
    /// The bytes that it is about.
    pub span: Span,
    /// The bytes of the instruction: people and programs are told its lines.
    pub statement: Span,
    /// What was probably meant.
    pub help: Option<String>,
}

impl Warning {
    /// The same as a problem, for showing its lines.
    pub fn problem(&self) -> Problem {
        let title = format!("{}: {}", self.rule.name, self.detail);
        Problem::new(title, self.span.clone(), "").help(self.help.clone())
    }
}

/// Whether a variable's name, or a part of it between underscores, speaks of a secret.
pub fn names_a_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "passwd",
        "password",
        "pword",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["file", "public", "version"];
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}

/// Collects violations of the rules that apply.
#[derive(Debug, Default)]
pub struct Linter {
    options: Options,
    found: RefCell<Vec<Warning>>,
}

impl Linter {
    /// A linter with these options.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            found: RefCell::default(),
        }
    }

    /// Notes a violation, if the rule applies and the same was not noted before: a stage may be
    /// looked at for several reasons.
    pub fn warn(&self, warning: Warning) {
        let mut found = self.found.borrow_mut();
        if self.options.applies(warning.rule) && !found.contains(&warning) {
            found.push(warning);
        }
    }

    /// Whether a violation fails the build.
    pub fn is_strict(&self) -> bool {
        self.options.error
    }

    /// What was found, in the order of the file.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut found = self.found.borrow().clone();
        found.sort_by_key(|warning| warning.statement.start);
        found
    }
}

#[cfg(test)]
mod tests;
