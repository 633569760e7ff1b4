//! `make bench`: teu against its peers on this machine, in turn, as ratios.
//!
//! `bench [--rounds N] [runtime|pull|store|build]...`; results are printed and written
//! to `target/bench` as Markdown tables and SVG charts. `CRUN=`, `RUNC=` and
//! `YOUKI=` name other binaries of the peers.

mod build;
mod measure;
mod pull;
mod report;
mod runtime;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut rounds = None;
    let mut chosen = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().and_then(|count| count.parse().ok()),
            "runtime" | "pull" | "store" | "build" => chosen.push(arg),
            _ => {
                eprintln!("usage: bench [--rounds N] [runtime|pull|store|build]...");
                return ExitCode::from(2);
            }
        }
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    let folder = PathBuf::from("target/bench");
    let mut tables = Vec::new();
    if wanted("runtime") {
        tables.extend(runtime::tables(rounds.unwrap_or(30)));
    }
    if wanted("pull") {
        tables.push(pull::table(rounds.unwrap_or(3)));
    }
    let mut goals = Vec::new();
    if wanted("store") {
        let (measured, asked) = store::measure(rounds.unwrap_or(3));
        tables.extend(measured);
        goals.push(("store", asked));
    }
    if wanted("build") {
        let (measured, asked) = build::measure(rounds.unwrap_or(3));
        tables.extend(measured);
        goals.push(("builder", asked));
    }
    match report::write(&folder, &tables, &goals) {
        Ok(()) => {
            println!("written to {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: write {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
