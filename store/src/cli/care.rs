//! `gc`, `prune`, `verify`: the store itself.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use teu_store::image::Platform;
use teu_store::{Checked, Problem, PrunePolicy, Pruned, Reference, Removed, Store, transfer};

use super::format::{self, Format, Listed};
use super::registry::RegistryArgs;
use super::transfer::{Failed, ProgressArgs};
use super::{Outcome, people_bytes, quantity};

/// Remove what no image, container or cached build step needs
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Empty the build cache, too
    #[arg(long)]
    all: bool,
    /// Only print how much would go
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        if self.dry_run {
            let usages = store.usage()?;
            let cache = usages
                .iter()
                .filter(|usage| self.all && usage.kind == "cache");
            let cache: Vec<_> = cache.map(|usage| (usage.files, usage.size)).collect();
            let garbage = usages
                .iter()
                .map(|usage| (usage.garbage_files, usage.garbage));
            let (files, bytes) = garbage
                .chain(cache)
                .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
            return print_removed("would remove", Removed { files, bytes });
        }
        let removed = if self.all {
            store.gc_all()?
        } else {
            store.gc()?
        };
        print_removed("removed", removed)
    }
}

fn print_removed(verb: &str, removed: Removed) -> Outcome {
    writeln!(
        std::io::stdout().lock(),
        "{verb} {} files, {}",
        removed.files,
        people_bytes(removed.bytes)
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Take the names of images away that no container uses, oldest first, and remove what nothing needs any more
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["all", "older_than", "keep_storage", "name"]))]
pub(crate) struct Prune {
    /// All of them
    #[arg(short, long, conflicts_with_all = ["older_than", "keep_storage", "name"])]
    all: bool,
    /// Those that were pulled, built or tagged longer ago than this: 12h, 7d, 2w
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    older_than: Option<Duration>,
    /// As many as it takes until all images together take no more room than this: 10GB, 512MiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    keep_storage: Option<u64>,
    /// Those with names like this, in which * stands for any text; may be repeated
    #[arg(long, value_name = "PATTERN")]
    name: Vec<String>,
    /// Only print which would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// How to print: table, json for a line each, or a text with fields in it such as '{name}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Listed for Pruned {
    const HEAD: &'static [&'static str] = &["IMAGE", "UPDATED", "FREES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.familiar(),
            self.updated.clone(),
            people_bytes(self.frees),
        ]
    }
}

impl Prune {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let age = self.older_than.map(jiff::SignedDuration::try_from);
        let policy = PrunePolicy {
            before: age
                .transpose()?
                .map(|age| jiff::Timestamp::now().checked_sub(age))
                .transpose()?,
            keep_bytes: self.keep_storage,
            names: self.name,
        };
        let mut plan = store.prune_plan(&policy)?;
        if !self.dry_run {
            let gone = store.prune(&plan)?;
            plan.retain(|pruned| gone.contains(&pruned.name));
        }
        format::print(&self.format, plan)?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let removed = store.gc()?;
        if self.format == Format::Table {
            print_removed("removed", removed)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Read everything in the store again and check it against its digest
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Put right what is wrong: from what is here, or by pulling the image again by its digest
    #[arg(long)]
    repair: bool,
    /// How to print problems: table, json for a line each, or a text with fields in it such as '{kind} {name}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Listed for Problem {
    const HEAD: &'static [&'static str] = &["KIND", "NAME", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        vec![self.kind.to_owned(), self.name.clone(), self.why.clone()]
    }
}

impl Verify {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let mut found = store.verify()?;
        if self.repair && !found.problems.is_empty() {
            found = self.repair(store, &found)?;
        }
        if !found.problems.is_empty() || self.format != Format::Table {
            format::print(&self.format, found.problems.clone())?;
        }
        if !self.progress.is_quiet() && self.format == Format::Table {
            println!(
                "read {} files, {}: {} problems",
                found.files,
                people_bytes(found.bytes),
                found.problems.len()
            );
        }
        let hint = match self.repair {
            true => "pull, import or build the image again",
            false => "--repair puts right what can be",
        };
        match found.problems.as_slice() {
            [] => Ok(ExitCode::SUCCESS),
            [only] => Err(format!("1 problem: {} {}; {hint}", only.kind, only.name).into()),
            [first, ..] => {
                let count = found.problems.len();
                let first = format!("{} {}", first.kind, first.name);
                Err(format!("{count} problems, the first: {first}; {hint}").into())
            }
        }
    }

    /// Puts right what was found; what is still wrong then.
    fn repair(&self, store: &Store, found: &Checked) -> Result<Checked, Box<dyn Error>> {
        let options = self.registry.clone().options();
        let progress = self.progress.progress();
        let mut fetch = |name: &Reference, platform: &Platform| -> Result<(), Box<dyn Error>> {
            let pulled = transfer::pull(store, name, platform, &options, &progress);
            pulled.map_err(|source| Failed::new("pull", name, source))?;
            Ok(())
        };
        let repaired = store.repair(found, &mut fetch)?;
        for done in repaired.done {
            eprintln!("{done}");
        }
        for (name, why) in repaired.failed {
            eprintln!("{} could not be fetched again: {why}", name.familiar());
        }
        Ok(store.verify()?)
    }
}
