//! What a person types.

use std::process::ExitCode;

fn main() -> ExitCode {
    teu_shim::cli::main()
}
