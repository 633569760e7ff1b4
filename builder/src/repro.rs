//! `--verify-repro`: a second run of every step, and what came out otherwise.

use crate::execute::Executor;
use crate::plan::{Plan, Tree};
use crate::storage::{Storage, StorageError};
use std::fmt::Write;

/// Most paths that are named of one step.
const PATHS_MAX: usize = 20;

/// What the steps made that did not make the same twice: each with the paths that differ. Steps
/// that only follow from others are left out. Empty if the build can be repeated.
///
/// # Errors
/// The store.
pub fn differences(
    plan: &Plan,
    storage: &Storage,
    first: &Executor<'_>,
    second: &Executor<'_>,
) -> Result<String, StorageError> {
    let differs = |step: usize| {
        let tree = Tree::Step(step);
        first.layers(tree).last() != second.layers(tree).last()
    };
    let mut text = String::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if !differs(index) || step.needs().into_iter().any(differs) {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[{}] {}", step.place, step.text.trim());
        let image = |executor: &Executor<'_>| {
            storage.put_image(
                plan.results[0].config.clone(),
                executor.layers(Tree::Step(index)),
                &[],
            )
        };
        let (before, after) = (image(first)?, image(second)?);
        let mut found = storage.store().diff(&before, &after, false)?;
        if found.is_empty() {
            found = storage.store().diff(&before, &after, true)?;
        }
        let more = found.len().saturating_sub(PATHS_MAX);
        for path in found.iter().take(PATHS_MAX) {
            let change = format!("{:?}", path.change).to_lowercase();
            let what = path.differs.join(", ");
            let _ = writeln!(text, "    {}: {change} {what}", path.path);
        }
        if more > 0 {
            let _ = writeln!(text, "    and {more} more");
        }
    }
    Ok(text)
}
