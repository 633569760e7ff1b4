//! The supervisor of one container: `teu run` starts it, or podman as its conmon.

use std::process::ExitCode;

fn main() -> ExitCode {
    teu_shim::sys::keep_ended_children();
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|word| word == "run") {
        return teu_shim::supervisor::main(arguments);
    }
    teu_shim::conmon::main(arguments)
}
