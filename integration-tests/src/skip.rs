//! Tests that cannot run here say so; the runner counts them.

use std::io::Write;
use std::path::Path;

/// Prints `SKIPPED <test>: <reason>`, past the test runner's capture of output.
pub fn skipped(test: &str, reason: &str) {
    // Writing to the handle, unlike `eprintln!`, is not captured for tests that pass.
    // In one piece, or it may be torn by what another test writes.
    let line = format!("SKIPPED {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether no executable of this name stands in `PATH`.
#[must_use]
pub fn missing_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    !std::env::split_paths(&path).any(|folder| Path::new(&folder).join(name).is_file())
}
