//! Carries out the steps of a plan: each ends in a layer of the store.

mod agent;
mod bind;
mod config;
mod container;
mod copy;
mod fetch;
mod fill;
mod hidden;
mod inputs;
mod key;
mod mounts;
pub(crate) mod rootfs;
mod run;
mod trust;
mod upper;

pub use run::RunError;

use inputs::Described;

use crate::agents::Agent;
use crate::cache::{BuildLog, Key, LoggedStep, Outcome, StepCache};
use crate::cancel::Cancel;
use crate::context::Context;
use crate::copy::CopyError;
use crate::epoch::Epoch;
use crate::isolation::Entered;
use crate::plan::{Operation, Plan, Step, Tree};
use crate::progress::{Ending, Progress, Shown};
use crate::remote::git::Git;
use crate::storage::{Storage, StorageError};
use crate::tree::TreeError;
use key::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use teu_store::DiffId;
use teu_store::image::Platform;

/// What the command line says about executing steps.
#[derive(Debug)]
pub struct Settings {
    /// The runtime's program.
    pub runtime: PathBuf,
    /// The cgroup below which steps run; empty is the top, and in a user's own namespace none.
    pub cgroup_parent: String,
    /// What keeps steps apart from the host.
    pub isolation: Entered,
    /// Secrets by id.
    pub secrets: Vec<(String, SecretSource)>,
    /// Who signs with the user's ssh keys.
    pub agents: Vec<Agent>,
    /// Certificates that RUN steps trust instead of their image's.
    pub ca_bundle: Option<Vec<u8>>,
    /// Limits and names of all RUN steps.
    pub limits: Limits,
    /// Run every step, whatever is remembered.
    pub no_cache: bool,
    /// Stages whose steps are done whatever earlier builds made.
    pub no_cache_stages: Vec<String>,
    /// A failed step is followed by a shell in what it left.
    pub on_failure_shell: bool,
    /// The Dockerfile's name as the user gave it: what has the same place in it is compared.
    pub dockerfile: String,
}

impl Settings {
    /// How git is run for this build; `number` tells it from other work.
    pub(crate) fn git<'a>(&'a self, cancel: &'a Cancel, number: usize) -> Git<'a> {
        Git {
            agent: self.agent("default"),
            secret: self,
            cancel,
            number,
        }
    }

    /// The socket of the agent of that id.
    pub(crate) fn agent(&self, id: &str) -> Option<PathBuf> {
        let agent = self.agents.iter().rev().find(|agent| agent.id == id)?;
        agent.socket()
    }
}

/// What RUN steps are given and may use.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Names and addresses beside those of the host's /etc/hosts.
    pub hosts: Vec<(String, std::net::IpAddr)>,
    /// Size of /dev/shm in bytes.
    pub shm_bytes: Option<u64>,
    /// Resource limits: name without `RLIMIT_`, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// runtime-spec's `linux.resources`; nothing when empty.
    pub resources: serde_json::Map<String, serde_json::Value>,
}

/// Where a secret's value is.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of this process.
    Env(String),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// COPY, ADD or WORKDIR.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// RUN.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The step's key.
    #[error("compute the step's key")]
    Key(#[from] serde_json::Error),
    /// Something else failed, or the user had enough.
    #[error("canceled")]
    Cancelled,
}

impl From<TreeError> for StepError {
    fn from(error: TreeError) -> Self {
        Self::Copy(CopyError::Tree(error))
    }
}

/// A step that failed, and which.
#[derive(Debug)]
pub struct Failure {
    /// Its position in the plan.
    pub step: usize,
    /// Why.
    pub error: StepError,
}

/// Executes the steps of one plan.
#[derive(Debug)]
pub struct Executor<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) storage: &'a Storage,
    pub(crate) context: &'a Context,
    /// Contexts with names, in the order of the command line.
    pub(crate) named: &'a [Context],
    pub(crate) cache: &'a StepCache,
    pub(crate) epoch: Epoch,
    pub(crate) settings: &'a Settings,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a Cancel,
    results: Vec<OnceLock<Vec<DiffId>>>,
    log: Mutex<Vec<LoggedStep>>,
    /// Nothing is looked up and nothing remembered: what comes out is only compared.
    rehearsal: bool,
    /// Steps during which their context changed: what came out is not what their keys say.
    doubted: Mutex<BTreeSet<usize>>,
    /// The platforms that were said to be emulated.
    emulated: Mutex<Vec<Platform>>,
    /// Every key that was used, and what it stands for.
    used: Mutex<BTreeMap<Key, DiffId>>,
}

impl<'a> Executor<'a> {
    /// Prepares to execute `plan`.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is one thing the steps need, named once, here"
    )]
    pub fn new(
        plan: &'a Plan,
        storage: &'a Storage,
        context: &'a Context,
        named: &'a [Context],
        cache: &'a StepCache,
        epoch: Epoch,
        settings: &'a Settings,
        progress: &'a Progress,
        cancel: &'a Cancel,
    ) -> Self {
        let results = plan.steps.iter().map(|_| OnceLock::new()).collect();
        Self {
            plan,
            storage,
            context,
            named,
            cache,
            epoch,
            settings,
            progress,
            cancel,
            results,
            log: Mutex::default(),
            used: Mutex::default(),
            emulated: Mutex::default(),
            doubted: Mutex::default(),
            rehearsal: false,
        }
    }

    /// The same, but nothing is looked up and nothing remembered.
    #[must_use]
    pub fn rehearsing(self) -> Self {
        Self {
            rehearsal: true,
            ..self
        }
    }

    /// The keys whose layers are among `layers`.
    pub fn keys_of(&self, layers: &[DiffId]) -> BTreeMap<Key, DiffId> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter()
            .filter(|(_, layer)| layers.contains(layer))
            .map(|(key, layer)| (key.clone(), *layer))
            .collect()
    }

    /// Remembers what keys stand for, and hands it to caches elsewhere.
    fn used(&self, index: usize, keys: &[Key], layer: DiffId) {
        if self.rehearsal {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(keys.iter().map(|key| (key.clone(), layer)));
        drop(used);
        self.cache
            .exchange
            .offer(keys, layer, self.in_result(index));
    }

    /// Whether the step's layer is one of the result's.
    fn in_result(&self, index: usize) -> bool {
        self.plan.results.iter().any(|target| {
            let mut tree = target.tree;
            while let Tree::Step(step) = tree {
                if step == index {
                    return true;
                }
                tree = self.plan.steps[step].parent;
            }
            false
        })
    }

    /// What became of the steps so far, by their numbers.
    pub fn log(&self) -> BuildLog {
        let mut steps = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        steps.sort_by_key(|step| step.number);
        BuildLog { steps }
    }

    fn note(&self, index: usize, outcome: Outcome) {
        let step = &self.plan.steps[index];
        let logged = LoggedStep {
            number: index + 1,
            place: step.place.clone(),
            text: step.text.clone(),
            outcome,
        };
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(logged);
    }

    /// The layers of a tree, bottom first. Those of a step are known once it is done.
    pub fn layers(&self, tree: Tree) -> &[DiffId] {
        match tree {
            Tree::Empty => &[],
            Tree::Image(index) => &self.plan.images[index].layers,
            Tree::Step(index) => self.results[index].get().map_or(&[], Vec::as_slice),
        }
    }

    /// Executes the step of that position; those it needs must be done.
    ///
    /// # Errors
    /// Why it failed.
    pub fn step(&self, index: usize) -> Result<(), Failure> {
        let step = &self.plan.steps[index];
        let shown = self
            .progress
            .start(index + 1, &format!("[{}] {}", step.place, step.text));
        let result = if self.cancel.is_stopped() {
            Err(StepError::Cancelled)
        } else {
            self.layer(index, step, &shown)
        };
        match result {
            Ok((layer, cached)) => {
                let mut layers = self.layers(step.parent).to_vec();
                layers.push(layer);
                // A step is executed once, so nothing was set before.
                let _ = self.results[index].set(layers);
                shown.end(if cached { Ending::Cached } else { Ending::Done });
                Ok(())
            }
            Err(error) => {
                // A shell after a step ends the others, and the step failed all the same.
                let failed = matches!(error, StepError::Run(RunError::Status { .. }));
                let cancelled = !failed && self.cancel.is_stopped();
                shown.end(if cancelled {
                    Ending::Cancelled
                } else {
                    Ending::Failed
                });
                Err(Failure { step: index, error })
            }
        }
    }

    /// The step's layer, and whether an earlier build made it.
    fn layer(
        &self,
        index: usize,
        step: &Step,
        shown: &Shown<'_>,
    ) -> Result<(DiffId, bool), StepError> {
        let parent = self.layers(step.parent);
        match &step.operation {
            Operation::Copy(copy) => self.copy(index, step, copy),
            Operation::Directory(directory) => {
                let key = self.directory_key(directory, parent)?;
                let inputs = || Ok(self.directory_inputs(step, directory).into());
                self.cached(index, &[key], inputs, || {
                    self.make_directory(index, directory, step.parent)
                })
            }
            Operation::Run(run) => {
                let key = self.run_key(run, parent, Seen::First)?;
                let inputs = || self.run_inputs(step, run);
                self.cached(index, std::slice::from_ref(&key), inputs, || {
                    Ok((self.run(index, step, run, &key, shown)?, false))
                })
            }
        }
    }

    /// The layer of an earlier build under one of `keys`, else what `make` makes or finds,
    /// remembered under all of them; and whether it was found.
    fn cached<'i>(
        &self,
        index: usize,
        keys: &[Key],
        inputs: impl FnOnce() -> Result<Described<'i>, StepError>,
        make: impl FnOnce() -> Result<(DiffId, bool), StepError>,
    ) -> Result<(DiffId, bool), StepError> {
        let Some(last) = keys.last().filter(|_| !self.rehearsal) else {
            return make();
        };
        if let Some(layer) = self.reused(index, keys)? {
            return Ok((layer, true));
        }
        let _turn = self.cache.take_turn(last, &|| self.cancel.is_stopped());
        // Whoever had the turn before may have done the work.
        if let Some(layer) = self.reused(index, keys)? {
            return Ok((layer, true));
        }
        if self.cancel.is_stopped() {
            return Err(StepError::Cancelled);
        }
        let lost = self.cache.find(last).is_some();
        let (layer, found) = make()?;
        let is_doubted = self.is_doubted(index);
        if !is_doubted {
            keys.iter().for_each(|key| self.cache.remember(key, &layer));
            self.used(index, keys, layer);
        }
        if found {
            self.note(index, Outcome::Reused);
            return Ok((layer, true));
        }
        let Described { inputs, files } = inputs()?;
        let outcome = if self.forgets(index) {
            Outcome::Forced
        } else if lost {
            Outcome::Lost
        } else {
            Outcome::Ran {
                key: last.clone(),
                near: self.cache.near(last, &inputs),
            }
        };
        if !is_doubted {
            self.cache.explain(last, &inputs, &files);
        }
        self.note(index, outcome);
        Ok((layer, false))
    }

    /// A layer that is known by what is in it, whatever led to it; else the one that `make` makes.
    fn known_or(
        &self,
        index: usize,
        content: &Key,
        make: impl FnOnce() -> Result<DiffId, StepError>,
    ) -> Result<(DiffId, bool), StepError> {
        let keys = std::slice::from_ref(content);
        if let Some(layer) = self.find(index, keys)? {
            self.used(index, keys, layer);
            return Ok((layer, true));
        }
        let layer = make()?;
        if self.is_doubted(index) {
            return Ok((layer, false));
        }
        if !self.rehearsal {
            self.cache.remember(content, &layer);
        }
        self.used(index, keys, layer);
        Ok((layer, false))
    }

    /// `what` changed while the step read it: its result serves this build alone.
    fn doubt(&self, index: usize, what: &str) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        if doubted.insert(index) {
            let place = &self.plan.steps[index].place;
            self.progress.note(&format!(
                "warning: {what} changed while the step [{place}] read it, whose result is not remembered"
            ));
        }
    }

    fn is_doubted(&self, index: usize) -> bool {
        let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.contains(&index)
    }

    /// What one of `keys` stands for, if that is known, for the step of that position.
    fn reused(&self, index: usize, keys: &[Key]) -> Result<Option<DiffId>, StepError> {
        let found = self.find(index, keys)?;
        if let Some(layer) = found {
            self.note(index, Outcome::Reused);
            self.used(index, keys, layer);
        }
        Ok(found)
    }

    /// Whether the step of that position is done whatever is remembered.
    fn forgets(&self, index: usize) -> bool {
        let stage = self.plan.steps[index].stage();
        let is_it = |name: &String| name.eq_ignore_ascii_case(stage);
        self.settings.no_cache || self.settings.no_cache_stages.iter().any(is_it)
    }

    /// A remembered layer that is still in the store, or one that a cache elsewhere has.
    fn find(&self, step: usize, keys: &[Key]) -> Result<Option<DiffId>, StepError> {
        if self.forgets(step) || self.rehearsal {
            return Ok(None);
        }
        for (index, key) in keys.iter().enumerate() {
            if let Some(layer) = self.cache.find(key)
                && self.storage.has_layer(&layer)?
            {
                keys[..index]
                    .iter()
                    .for_each(|missed| self.cache.remember(missed, &layer));
                return Ok(Some(layer));
            }
        }
        let warn = |text: &str| self.progress.note(text);
        let fetch = |key| self.cache.exchange.fetch(key, self.storage, &warn);
        let found = keys.iter().find_map(fetch);
        if let Some(layer) = found {
            keys.iter().for_each(|key| self.cache.remember(key, &layer));
        }
        Ok(found)
    }
}
