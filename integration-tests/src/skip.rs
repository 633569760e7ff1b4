//! Tests that cannot run here say so; the runner counts them.

use std::io::Write;
use std::path::Path;

/// Prints `SKIPPED <test>: <reason>`, past the test runner's capture of output.
pub fn skipped(test: &str, reason: &str) {
    // Writing to the handle, unlike `eprintln!`, is not captured for tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Whether no executable of this name stands in `PATH`.
#[must_use]
pub fn missing_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    !std::env::split_paths(&path).any(|folder| Path::new(&folder).join(name).is_file())
}
