//! Listing a tree's directories on all processors, ahead of a walk that goes through them one by one.
//!
//! To look at a file costs a system call, which is all that an unchanged build spends on it.

use super::Listing;
use super::root::{Root, TreeError};
use super::walk::Filter;
use crate::pattern::ignore::Matched;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most threads: beyond these they wait for one another in the kernel.
const WORKERS_MAX: usize = 8;

/// A directory that is to be listed: its path below the start, as the filter knows it, and what
/// is known of what is in it.
struct Task {
    relative: PathBuf,
    shown: String,
    state: Matched,
}

struct State {
    tasks: Vec<Task>,
    /// Tasks that are being worked on: more may come of them.
    open: usize,
    /// Threads that have nothing to do.
    waiting: usize,
    listings: HashMap<PathBuf, Listing>,
}

struct Ahead<'a> {
    root: &'a Root,
    start: &'a Path,
    filter: &'a dyn Filter,
    state: Mutex<State>,
    changed: Condvar,
}

/// Lists the directory at `start` in `root`, which the filter knows as `shown`, and all below it that
/// `filter` lets a walk enter; by their paths below `start`. What cannot be listed is left out.
///
/// # Errors
/// The directory at `start` cannot be listed.
pub(super) fn list(
    root: &Root,
    start: &Path,
    shown: &str,
    state: &Matched,
    filter: &dyn Filter,
) -> Result<HashMap<PathBuf, Listing>, TreeError> {
    let _turn = root.turn();
    let ahead = Ahead {
        root,
        start,
        filter,
        state: Mutex::new(State {
            tasks: Vec::new(),
            open: 0,
            waiting: 0,
            listings: HashMap::new(),
        }),
        changed: Condvar::new(),
    };
    let first = Task {
        relative: PathBuf::new(),
        shown: shown.to_owned(),
        state: state.clone(),
    };
    let listing = root.list(start)?;
    let below = ahead.below(&first, &listing);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = processors.min(WORKERS_MAX).min(below.len());
    {
        let mut state = ahead.state();
        state.listings.insert(first.relative, listing);
        state.tasks = below;
    }
    if workers > 1 {
        std::thread::scope(|scope| {
            (1..workers).for_each(|_| drop(scope.spawn(|| ahead.work())));
            ahead.work();
        });
    }
    let state = ahead.state.into_inner();
    Ok(state.unwrap_or_else(PoisonError::into_inner).listings)
}

impl Ahead<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.tasks.pop() {
                state.open += 1;
                drop(state);
                // The walk meets the same failure, where it matters.
                let found = self.root.list(&self.start.join(&task.relative)).ok();
                let below = found.as_ref().map(|listing| self.below(&task, listing));
                state = self.state();
                state.open -= 1;
                state.tasks.extend(below.into_iter().flatten());
                let found = found.map(|listing| (task.relative, listing));
                state.listings.extend(found);
                // Others wait only while there is nothing to do.
                if state.waiting > 0 && (state.open == 0 || !state.tasks.is_empty()) {
                    self.changed.notify_all();
                }
            } else if state.open == 0 {
                return;
            } else {
                state.waiting += 1;
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
            }
        }
    }

    /// The directories of a listing that a walk enters.
    fn below(&self, task: &Task, listing: &Listing) -> Vec<Task> {
        let directories = listing.iter().filter(|(_, meta)| meta.is_directory());
        let entered = directories.filter_map(|(name, _)| {
            let separator = if task.shown.is_empty() { "" } else { "/" };
            let shown = format!("{}{separator}{}", task.shown, name.to_string_lossy());
            Some(Task {
                relative: task.relative.join(name),
                state: self.filter.enter(&task.state, &shown)?,
                shown,
            })
        });
        entered.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::ignore::Rules;
    use crate::tree::walk::Excluding;

    #[test]
    fn what_a_walk_enters_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..30 {
            for path in ["kept/a/b", "left/a"] {
                let path = dir.path().join(format!("s/{number}/{path}"));
                std::fs::create_dir_all(path).unwrap();
            }
        }
        let rules = Rules::parse("s/*/left").unwrap();
        let state = Matched::default();
        let excluding = Excluding(&rules);
        for root in [
            Root::open(dir.path()).unwrap(),
            Root::open(dir.path()).unwrap().remembering(),
        ] {
            let found = list(&root, Path::new("s"), "s", &state, &excluding).unwrap();
            assert_eq!(found.len(), 1 + 30 * 4);
            assert_eq!(found[Path::new("7")].len(), 2);
            assert!(found[Path::new("29/kept/a/b")].is_empty());
            assert!(list(&root, Path::new("t"), "t", &state, &excluding).is_err());
        }
    }
}
