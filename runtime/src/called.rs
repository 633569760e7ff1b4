//! The name that the program was called by, and what depends on it.

use std::path::Path;

/// The program's own name.
pub(crate) const OWN_NAME: &str = "teu-runtime";

/// The name that the user knows the program by: `runc` where it is called so,
/// through a link that makes it stand in for that.
pub(crate) fn program() -> &'static str {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name() {
        Some(name) if name == "runc" => "runc",
        _ => OWN_NAME,
    }
}

/// What stands before the reason why a command on a container failed. Scripts
/// written for runc look for its words; whoever calls us by our own name is
/// told which container it was.
pub(crate) fn failed(command: &str, id: &str) -> String {
    match (program(), command) {
        ("runc", "run" | "create") => format!("runc {command} failed"),
        ("runc", "exec") => "exec failed".into(),
        _ => format!("{command} {id}"),
    }
}

/// What stands before the reason why init could not become the program, in
/// runc's words, as far as scripts can expect them.
pub(crate) fn init_failed() -> &'static str {
    match program() {
        "runc" => "unable to start container process: error during container init",
        _ => "unable to start container process",
    }
}

/// The same of a process of `exec`, which says so where [`failed`] does not.
pub(crate) fn process_failed() -> &'static str {
    match program() {
        "runc" => "unable to start container process",
        _ => "exec failed: unable to start container process",
    }
}
