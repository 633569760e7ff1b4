//! The README, whose commands and configuration the tests execute.

use std::path::{Path, PathBuf};

/// Where it is.
#[must_use]
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// The indented block that holds `line`, without the indent.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn block(line: &str) -> String {
    let text = std::fs::read_to_string(path()).expect("README.md");
    let blocks = text.split("\n\n").filter(|part| part.starts_with("    "));
    let block = blocks
        .into_iter()
        .find(|part| part.lines().any(|one| one.trim() == line))
        .unwrap_or_else(|| panic!("README.md has no block with {line:?}"));
    block
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}
