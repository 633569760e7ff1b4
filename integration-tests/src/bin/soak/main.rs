//! `make soak`: what takes longer than a gate has time for. Each part prints its
//! figures; one that does not keep its promise ends the whole with failure.
//!
//! `soak [--quick] [flood|monitor|execs|crowd|kills]...`; `--quick` does a little of
//! everything, to try the parts themselves.

mod crowd;
mod execs;
mod flood;
mod kills;
mod monitor;
mod sequence;

use std::process::ExitCode;
use std::time::Instant;

/// One part: its name, and what runs it.
type Part = (&'static str, fn(bool) -> Verdict);

const PARTS: [Part; 5] = [
    ("flood", flood::run),
    ("monitor", monitor::run),
    ("execs", execs::run),
    ("crowd", crowd::run),
    ("kills", kills::run),
];

/// Whether a part kept its promises; the broken ones, a line each.
#[derive(Debug, Default)]
struct Verdict(Vec<String>);

impl Verdict {
    /// Notes a promise, kept or broken.
    fn check(&mut self, kept: bool, promise: impl Into<String>) {
        let promise = promise.into();
        println!("  {} {promise}", if kept { "kept  " } else { "BROKEN" });
        if !kept {
            self.0.push(promise);
        }
    }
}

fn main() -> ExitCode {
    let mut quick = false;
    let mut chosen = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--quick" => quick = true,
            name if PARTS.iter().any(|(part, _)| *part == name) => chosen.push(arg),
            _ => {
                eprintln!("usage: soak [--quick] [flood|monitor|execs|crowd|kills]...");
                return ExitCode::from(2);
            }
        }
    }
    let mut broken = Vec::new();
    for (name, run) in PARTS {
        if !chosen.is_empty() && !chosen.iter().any(|one| one == name) {
            continue;
        }
        println!("{name}");
        let begin = Instant::now();
        broken.extend(run(quick).0);
        println!("  {:.0} s", begin.elapsed().as_secs_f64());
    }
    for promise in &broken {
        println!("BROKEN: {promise}");
    }
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
