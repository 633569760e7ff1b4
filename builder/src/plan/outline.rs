//! What a build can be given: arguments, secrets, agents; `--call outline`.

use crate::dockerfile::instruction::Argument;
use crate::dockerfile::{Span, Statement};

/// What the stages of a build take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target stage's name.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// Build arguments.
    pub arguments: Vec<Known>,
    /// Secrets of RUN.
    pub secrets: Vec<Known>,
    /// Agents of RUN.
    pub ssh: Vec<Known>,
}

/// Something that a build takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name or id.
    pub name: String,
    /// What it is, if nothing else is given.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// It must be given.
    pub required: bool,
    /// Where it is declared or used.
    pub statement: Span,
}

impl Known {
    /// A build argument.
    pub(super) fn argument(
        name: &str,
        value: Option<&str>,
        argument: &Argument,
        statement: &Statement,
    ) -> Self {
        Self {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            description: description(&statement.comments, &argument.name.raw),
            required: false,
            statement: statement.span.clone(),
        }
    }

    /// A secret or an agent.
    pub(super) fn mount(id: &str, required: bool, statement: &Span) -> Self {
        Self {
            name: id.to_owned(),
            value: None,
            description: None,
            required,
            statement: statement.clone(),
        }
    }
}

/// The comment `name what it is` among comments.
pub fn description(comments: &[String], name: &str) -> Option<String> {
    let told = |comment: &String| {
        comment
            .strip_prefix(name)?
            .strip_prefix(' ')
            .map(str::to_owned)
    };
    comments.iter().find_map(told)
}

/// Adds what is new; a later stage is nearer to the target, so its word counts.
pub(super) fn add(list: &mut Vec<Known>, known: Known) {
    list.retain(|other| other.name != known.name);
    list.push(known);
}

impl Outline {
    /// Sorts by place.
    pub(super) fn sorted(mut self) -> Self {
        for list in [&mut self.arguments, &mut self.secrets, &mut self.ssh] {
            list.sort_by_key(|known| known.statement.start);
        }
        self
    }
}
