//! The Dockerfile language: text to typed instructions.
//!
//! ```text
//! text -> directive.rs   `# escape=` and its kin at the top
//!      -> lines.rs       logical lines: continuations joined, comments dropped, heredocs attached
//!      -> flags.rs       `--name=value` before the arguments
//!      -> parse.rs       one typed Instruction a line (instruction.rs)
//!      -> word.rs        quotes and variables, when a plan is made: only then are values known
//! ```
//!
//! Nothing here reads a file or knows a build argument's value. Every value keeps
//! the bytes of the file that it came from, so that a later error can point at them.

pub mod directive;
pub mod flags;
pub mod heredoc;
pub mod instruction;
pub mod lines;
mod pairs;
pub mod parse;
pub mod suggest;
pub mod word;

pub use instruction::Instruction;
pub use parse::{parse, parse_until_wrong};

use crate::report::Problem;
use std::ops::Range;

/// Bytes of the Dockerfile that something came from.
pub type Span = Range<usize>;

/// Result of whatever can be wrong with the text of a Dockerfile.
pub type Result<T> = std::result::Result<T, Box<Problem>>;

/// Largest Dockerfile, in bytes. Real ones stay under 100 KiB; heredocs can carry whole files.
pub const DOCKERFILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Most instructions in one Dockerfile. Each becomes a step or a history entry, and
/// registries refuse configurations long before.
pub const INSTRUCTIONS_MAX: usize = 20_000;

/// A parsed Dockerfile.
#[derive(Debug)]
pub struct Dockerfile {
    /// What stood above the first comment or instruction.
    pub directives: directive::Directives,
    /// All instructions in order, `FROM` included.
    pub statements: Vec<Statement>,
    /// The last lines of instructions that are continued over an empty line.
    pub empty_continuations: Vec<Span>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The instruction itself.
    pub instruction: Instruction,
    /// Its bytes, without heredoc bodies.
    pub span: Span,
    /// Its text with continuations joined, as people read it in progress output.
    pub text: String,
    /// The comment lines right above it, without `#`.
    pub comments: Vec<String>,
}

impl Statement {
    /// The instruction's name as it is written.
    pub fn name(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }
}
