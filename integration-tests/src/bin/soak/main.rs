//! `make soak`: what takes longer than a gate has time for. Each part prints its
//! figures; one that does not keep its promise ends the whole with failure.
//!
//! `soak [--quick] [PART]...`; `--quick` does a little of everything, to try the parts
//! themselves. `flood` and `kills` are containerd's face's, others' are parts of their own.

mod crowd;
mod execs;
mod flood;
mod kills;

use std::process::ExitCode;
use std::time::Instant;

/// One part: its name, and what runs it.
type Part = (&'static str, fn(bool) -> Verdict);

const PARTS: [Part; 9] = [
    ("flood", flood::containerd),
    ("flood-conmon", flood::conmon),
    ("flood-own", flood::own),
    ("execs", execs::run),
    ("beside", execs::beside),
    ("crowd", crowd::run),
    ("kills", kills::containerd),
    ("kills-conmon", kills::conmon),
    ("kills-own", kills::own),
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
                let names = PARTS.map(|(name, _)| name).join("|");
                eprintln!("usage: soak [--quick] [{names}]...");
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
