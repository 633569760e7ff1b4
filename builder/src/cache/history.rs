//! What the last build of a context did with each step.

use super::{Inputs, Key, StepCache, causes, name_of};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Largest log that is read, in bytes: thousands of steps.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Most differences that are shown of one step.
const CAUSES_MAX: usize = 10;

/// The steps of one build, in the order of the plan.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BuildLog {
    /// The steps that ended, by their numbers from 1.
    pub steps: Vec<LoggedStep>,
}

/// A step of a build that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoggedStep {
    /// Its number, from 1.
    pub number: usize,
    /// `build 2/5`.
    pub place: String,
    /// The instruction as it stands in the Dockerfile.
    pub text: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An earlier build's layer was used.
    Reused,
    /// It ran, because nothing was looked up.
    Forced,
    /// It ran, though its key was known: the layer is no longer in the store.
    Lost,
    /// It ran under this key, which no earlier build had; those were near, the latest first.
    Ran {
        /// Its key.
        key: Key,
        /// Keys of earlier builds to compare with.
        near: Vec<Key>,
    },
}

impl StepCache {
    /// Remembers a build of the context at `context`, which is absolute. Failure costs only an explanation.
    pub fn log(&self, context: &Path, log: &BuildLog) {
        let folder = self.cache.join("builds");
        if std::fs::create_dir_all(&folder).is_ok()
            && let Ok(bytes) = serde_json::to_vec(log)
        {
            self.replace(
                &folder.join(name_of(context.as_os_str().as_bytes())),
                &bytes,
            );
        }
    }

    /// The last build of the context at `context`, if one is remembered.
    pub fn last_build(&self, context: &Path) -> Option<BuildLog> {
        let path = self
            .cache
            .join("builds")
            .join(name_of(context.as_os_str().as_bytes()));
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(LOG_BYTES_MAX).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Why a step ran, a line each; nothing for one that was reused.
    pub fn why(&self, step: &LoggedStep) -> Vec<String> {
        match &step.outcome {
            Outcome::Reused => Vec::new(),
            Outcome::Forced => vec!["--no-cache".to_owned()],
            Outcome::Lost => vec!["its layer is no longer in the store".to_owned()],
            Outcome::Ran { key, near } => self.why_ran(key, near),
        }
    }

    fn why_ran(&self, key: &Key, near: &[Key]) -> Vec<String> {
        let Some(now) = self.inputs(key) else {
            return vec!["what it saw is no longer known".to_owned()];
        };
        let earlier = near.iter().filter_map(|key| self.inputs(key));
        let compared = earlier.map(|before: Inputs| causes(&before, &now));
        // The first of equals is the latest.
        let Some(nearest) = compared.min_by_key(Vec::len) else {
            return vec!["no earlier build had a step like it".to_owned()];
        };
        let more = nearest.len().saturating_sub(CAUSES_MAX);
        let mut lines: Vec<String> = nearest
            .iter()
            .take(CAUSES_MAX)
            .map(ToString::to_string)
            .collect();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}
