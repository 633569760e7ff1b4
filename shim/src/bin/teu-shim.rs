//! The supervisor of one container; `teu run` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    teu_shim::supervisor::main(std::env::args_os().skip(1))
}
