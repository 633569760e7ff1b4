//! The supervisor of a pod's containers; containerd starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    teu_shim::sys::keep_ended_children();
    teu_shim::containerd::main(std::env::args_os())
}
