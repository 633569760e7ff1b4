//! `gc`, `verify`: the store itself.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use teu_store::Store;

use super::{Outcome, people_bytes};

/// Remove what no image, container or cached build step needs
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Empty the build cache, too
    #[arg(long)]
    all: bool,
}

impl Gc {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let removed = if self.all {
            store.gc_all()?
        } else {
            store.gc()?
        };
        writeln!(
            std::io::stdout().lock(),
            "removed {} files, {}",
            removed.files,
            people_bytes(removed.bytes)
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Read everything in the store again and check it against its digest
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Print problems only
    #[arg(short, long)]
    quiet: bool,
}

impl Verify {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let found = store.verify()?;
        let mut out = std::io::stdout().lock();
        for problem in &found.problems {
            writeln!(out, "{} {}: {}", problem.kind, problem.name, problem.why)?;
        }
        if !self.quiet {
            let problems = found.problems.len();
            writeln!(
                out,
                "read {} files, {}: {problems} problems",
                found.files,
                people_bytes(found.bytes)
            )?;
        }
        match found.problems.as_slice() {
            [] => Ok(ExitCode::SUCCESS),
            [only] => Err(format!("1 problem: {} {}", only.kind, only.name).into()),
            [first, ..] => {
                let count = found.problems.len();
                Err(format!("{count} problems, the first: {} {}", first.kind, first.name).into())
            }
        }
    }
}
