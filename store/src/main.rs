//! `teu-store`: the image store's command line.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(err) => {
            eprintln!("teu-store: {}", cli::chain(err.as_ref()));
            ExitCode::FAILURE
        }
    }
}
