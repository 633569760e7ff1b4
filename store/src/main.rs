//! `teu-store`: the image store's command line.

mod cli;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(err)
            if err
                .downcast_ref::<std::io::Error>()
                .is_some_and(|err| err.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(err) => {
            // Where nobody can be told, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "teu-store: {}", cli::chain(err.as_ref()));
            ExitCode::FAILURE
        }
    }
}
