//! What a person types.

use std::process::ExitCode;

fn main() -> ExitCode {
    teu_shim::sys::keep_ended_children();
    teu_shim::cli::main()
}
