//! Why steps ran, in words.

use crate::cache::{BuildLog, LoggedStep, Outcome, StepCache};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use teu_store::Store;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The step cache's folder.
    #[error("open the step cache")]
    Cache(#[source] std::io::Error),
    /// The context.
    #[error("resolve the context {path:?}")]
    Context {
        /// As the user gave it.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing is remembered.
    #[error("no build of the context {0:?} is remembered in this store")]
    NoBuild(PathBuf),
    /// The last build had no such step.
    #[error("the last build had no step {step:?}: it had {list}")]
    NoStep {
        /// What was asked for.
        step: String,
        /// What there is.
        list: String,
    },
}

/// Why the steps that `step` means ran in the last build of a context.
///
/// # Errors
/// No such build or step.
pub fn why(store: &Store, step: &str, context: &Path) -> Result<String, ExplainError> {
    let (cache, log) = open(store, context)?;
    let meant: Vec<&LoggedStep> = log.steps.iter().filter(|own| own.is_meant(step)).collect();
    if meant.is_empty() {
        let places = log
            .steps
            .iter()
            .map(|own| format!("{} [{}]", own.number, own.place));
        return Err(ExplainError::NoStep {
            step: step.to_owned(),
            list: places.collect::<Vec<_>>().join(", "),
        });
    }
    Ok(meant.into_iter().map(|own| shown(&cache, own)).collect())
}

/// Why the steps of the last build of a context ran; those that were reused are left out.
///
/// # Errors
/// Nothing is remembered.
pub fn last_build(store: &Store, context: &Path) -> Result<String, ExplainError> {
    let (cache, log) = open(store, context)?;
    let ran = log
        .steps
        .iter()
        .filter(|step| !matches!(step.outcome, Outcome::Reused));
    Ok(ran.map(|step| shown(&cache, step)).collect())
}

fn open(store: &Store, context: &Path) -> Result<(StepCache, BuildLog), ExplainError> {
    let full = context
        .canonicalize()
        .map_err(|source| ExplainError::Context {
            path: context.to_owned(),
            source,
        })?;
    let cache = StepCache::open(&store.root_path().join("cache")).map_err(ExplainError::Cache)?;
    let log = cache.last_build(&full).ok_or(ExplainError::NoBuild(full))?;
    Ok((cache, log))
}

fn shown(cache: &StepCache, step: &LoggedStep) -> String {
    let title = step.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let ending = match step.outcome {
        Outcome::Reused => "was reused",
        _ => "ran:",
    };
    let mut text = format!("#{} [{}] {title}\n  {ending}\n", step.number, step.place);
    for line in cache.why(step) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {line}");
    }
    text
}

impl LoggedStep {
    /// Whether people mean it by its number, its place or the beginning of its instruction.
    fn is_meant(&self, text: &str) -> bool {
        let text = text.trim().trim_start_matches('#');
        text.parse() == Ok(self.number)
            || text.trim_matches(['[', ']']) == self.place
            || !text.is_empty() && self.text.starts_with(text)
    }
}
