//! A whole build, from the text of a Dockerfile to a named image.

use crate::agents::AgentError;
use crate::attest::{self, Predicate};
use crate::cache::StepCache;
use crate::cancel::Cancel;
use crate::context::{ContextError, Place};
use crate::dockerfile::{self, Dockerfile};
use crate::epoch::{BadEpoch, Epoch};
use crate::exchange::{self, Exchange, INLINE_FIELD, Records};
use crate::execute::{Executor, Failure, RunError, Settings, StepError};
use crate::images::{self, StoreImages};
use crate::isolation::Isolation;
use crate::lint::Warning;
use crate::output::{Built, OutputError, Outputs, Sending, Sent};
use crate::plan::{self, Checked, Images as _, Plan, Target};
use crate::prepare::{DockerfilePlace, NamedPlace, Prepared, Source};
use crate::progress::Progress;
use crate::report::Problem;
use crate::repro;
use crate::schedule;
use crate::storage::{Storage, StorageError};
use std::io::IsTerminal;
use std::path::PathBuf;
use teu_store::image::Platform;
use teu_store::{DiffId, Reference, Store};

/// Steps that run at once, beyond the number of processors: most of them wait for a network or a disk.
const WORKERS_MIN: usize = 4;

/// Everything that the command line says about a build.
#[derive(Debug)]
pub struct Request {
    /// The store.
    pub store: Store,
    /// Where the context is.
    pub context: Place,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfilePlace,
    /// What names mean instead of the stages and images of those names.
    pub contexts: Vec<(String, NamedPlace)>,
    /// Names for the result.
    pub names: Vec<Reference>,
    /// Where the result goes.
    pub outputs: Outputs,
    /// Run all steps twice, and fail if they do not make the same.
    pub verify_repro: bool,
    /// What is said about the result.
    pub attest: attest::Wanted,
    /// Where steps' results are looked for besides the store.
    pub cache_from: Vec<exchange::From>,
    /// Where steps' results go besides the store.
    pub cache_to: Vec<exchange::To>,
    /// What shapes the plan; its platform is the first of `platforms`.
    pub options: plan::Options,
    /// What images are built for; at least one.
    pub platforms: Vec<Platform>,
    /// What shapes its execution.
    pub settings: Settings,
    /// The latest time in the image, whatever else says so.
    pub epoch: Option<Epoch>,
    /// The program that pulls base images.
    pub puller: PathBuf,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error("read the Dockerfile {name:?}")]
    Read {
        /// As the user gave it.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The Dockerfile, or the plan, is longer than any is.
    #[error("{name:?} has more than {bytes_max} bytes")]
    TooLong {
        /// As the user gave it.
        name: String,
        /// What it may have.
        bytes_max: u64,
    },
    /// What is to be executed instead of a Dockerfile.
    #[error("execute the plan {name:?}")]
    Plan {
        /// As the user gave it.
        name: String,
        /// Why not.
        source: plan::BadPlan,
    },
    /// An image of a plan that now is another one.
    #[error("the plan was made for another image {0:?} than its name means now")]
    OtherImage(String),
    /// An image of a plan that is not to be had.
    #[error("take the image {name:?} of the plan")]
    NoImage {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something in the Dockerfile; shown with its lines.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// A step failed; shown with its lines.
    #[error("{problem}")]
    Step {
        /// What failed, where in the Dockerfile.
        problem: Box<Problem>,
        /// `build 2/5`.
        place: String,
        /// The last lines of the step's output.
        output: Vec<String>,
    },
    /// The user had enough.
    #[error("interrupted")]
    Interrupted,
    /// There is nothing to build for.
    #[error("no platform is given")]
    NoPlatform,
    /// Two things are to be read from standard input.
    #[error("the context and the Dockerfile cannot both be read from standard input")]
    StdinTwice,
    /// An OCI layout of the command line.
    #[error("take the image of the OCI layout {layout}")]
    Layout {
        /// Which, and which image of it.
        layout: String,
        /// Why not.
        source: images::ImageError,
    },
    /// The latest time in the image.
    #[error(transparent)]
    Epoch(#[from] BadEpoch),
    /// The keys of `--ssh`.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The step cache's folder.
    #[error("open the step cache")]
    Cache(#[source] std::io::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Steps that made something else the second time.
    #[error("not reproducible: a second run made something else\n{0}")]
    NotReproducible(String),
    /// The package databases of the result.
    #[error("read the result's packages")]
    Packages(#[source] Box<crate::tree::TreeError>),
    /// An output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Request {
    /// Makes the plan, pulling base images that are missing.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile.
    pub fn plan(&self, prepared: &Prepared, progress: &Progress) -> Result<Plan, BuildError> {
        if let Some(given) = &prepared.given {
            self.find_images(given, &prepared.storage, progress)?;
            return Ok(given.clone());
        }
        let file = self.parse(&prepared.source)?;
        let mut images = self.images(progress);
        let mut whole: Option<Plan> = None;
        for platform in &self.platforms {
            let options = plan::Options {
                platform: platform.clone(),
                ..prepared.options.clone()
            };
            let planned = plan::plan(&file, &options, &mut images);
            let mut planned = planned.map_err(BuildError::Problem)?;
            if self.platforms.len() > 1 {
                planned.name_platform();
            }
            match &mut whole {
                None => whole = Some(planned),
                Some(whole) => whole.join(planned),
            }
        }
        whole.ok_or(BuildError::NoPlatform)
    }

    /// Makes sure that the layers of a plan's images are here, pulling what is missing.
    fn find_images(
        &self,
        plan: &Plan,
        storage: &Storage,
        progress: &Progress,
    ) -> Result<(), BuildError> {
        for image in &plan.images {
            let mut is_here = true;
            for layer in &image.layers {
                is_here &= storage.has_layer(layer)?;
            }
            if is_here {
                continue;
            }
            let found = self.images(progress).image(&image.name, &image.platform);
            let found = found.map_err(|source| BuildError::NoImage {
                name: image.name.clone(),
                source,
            })?;
            if found.layers != image.layers {
                return Err(BuildError::OtherImage(image.name.clone()));
            }
        }
        Ok(())
    }

    /// Applies the rules to the Dockerfile.
    ///
    /// # Errors
    /// It is no Dockerfile.
    pub fn check(&self, prepared: &Prepared, progress: &Progress) -> Result<Checked, BuildError> {
        let file = match self.parse(&prepared.source) {
            Ok(file) => file,
            Err(BuildError::Problem(problem)) => {
                return Ok(Checked {
                    warnings: plan::warnings_before(&prepared.source.text, &prepared.options),
                    error: Some(problem),
                });
            }
            Err(error) => return Err(error),
        };
        let mut images = self.images(progress);
        Ok(plan::check(&file, &prepared.options, &mut images))
    }

    /// Reads the instructions.
    ///
    /// # Errors
    /// It is no Dockerfile, or asks for a front end that is not built in.
    pub fn parse(&self, source: &Source) -> Result<Dockerfile, BuildError> {
        let file = dockerfile::parse(&source.text).map_err(BuildError::Problem)?;
        check_syntax(&file, &self.options)?;
        Ok(file)
    }

    fn images<'a>(&'a self, progress: &'a Progress) -> StoreImages<'a> {
        StoreImages {
            store: &self.store,
            puller: &self.puller,
            progress,
        }
    }

    /// Builds, and sends the result where it is wanted.
    ///
    /// # Errors
    /// The first thing that failed. What was finished by then is remembered for the next build.
    pub fn build(
        &self,
        prepared: &Prepared,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<Sent, BuildError> {
        let plan = self.plan(prepared, progress).inspect_err(|error| {
            if let BuildError::Problem(_) = error {
                let warnings = plan::warnings_before(&prepared.source.text, &prepared.options);
                show_lint(&warnings, prepared, progress);
            }
        })?;
        plan.warnings
            .iter()
            .for_each(|warning| progress.note(&format!("warning: {warning}")));
        let folder = self.store.root_path().join("cache");
        let (context, storage) = (&prepared.context, &prepared.storage);
        let mut cache = StepCache::open(&folder).map_err(BuildError::Cache)?;
        let warn = |text: &str| progress.note(text);
        cache.exchange = Exchange::begin(&self.store, &self.cache_from, &self.cache_to, &warn);
        let prepare = || {
            Executor::new(
                &plan,
                storage,
                context,
                &prepared.named,
                &cache,
                prepared.epoch,
                &self.settings,
                progress,
                cancel,
            )
        };
        let executor = prepare();
        let done = run_steps(&plan, &executor, cancel);
        for context in prepared.named.iter().chain([context]) {
            context.hashes.save();
        }
        cache.log(&context.path, &executor.log());
        if cancel.is_interrupted() {
            return Err(BuildError::Interrupted);
        }
        cache.exchange.finish(&warn);
        show_lint(&plan.lint, prepared, progress);
        let isolation = self.settings.isolation.isolation;
        done.map_err(|failure| step_error(&plan, failure, isolation))?;
        if self.verify_repro {
            let second = prepare().rehearsing();
            run_steps(&plan, &second, cancel)
                .map_err(|failure| step_error(&plan, failure, isolation))?;
            let text = repro::differences(&plan, storage, &executor, &second)?;
            if !text.is_empty() {
                return Err(BuildError::NotReproducible(text));
            }
        }
        let built = plan
            .results
            .iter()
            .map(|target| self.built(&plan, target, &executor))
            .collect::<Result<Vec<_>, _>>()?;
        self.send(storage, &built, progress)
    }

    /// One image that came out.
    fn built(
        &self,
        plan: &Plan,
        target: &Target,
        executor: &Executor<'_>,
    ) -> Result<Built, BuildError> {
        let layers = executor.layers(target.tree).to_vec();
        let mut config = Self::finished_config(target, executor.epoch);
        let is_inline = |to: &exchange::To| to.place == exchange::Place::Inline;
        if self.cache_to.iter().any(is_inline) {
            let records = Records {
                keys: executor.keys_of(&layers),
                layers: Vec::new(),
            };
            let value = serde_json::json!(records);
            config.other.insert(INLINE_FIELD.to_owned(), value);
        }
        Ok(Built {
            platform: target.platform.clone(),
            config,
            predicates: self.predicates(plan, target, executor, &layers)?,
            layers,
        })
    }

    /// What is said about the result, as far as it is asked for.
    fn predicates(
        &self,
        plan: &Plan,
        target: &Target,
        executor: &Executor<'_>,
        layers: &[DiffId],
    ) -> Result<Vec<Predicate>, BuildError> {
        let mut predicates = Vec::new();
        if self.attest.sbom {
            let tree = executor.storage.view(layers)?;
            let inventory = attest::inventory(&tree);
            let inventory = inventory.map_err(|error| BuildError::Packages(Box::new(error)))?;
            if let Some(missing) = inventory.missing() {
                executor
                    .progress
                    .note(&format!("warning: the SBOM is {missing}"));
            }
            let about = teu_store::ChainId::of(layers).map(|chain| chain.0.hex());
            let created = executor.epoch.rfc3339();
            let about = about.unwrap_or_default();
            predicates.push(Predicate {
                referrer: self.attest.referrers.sbom,
                ..attest::sbom(&inventory, &created, &about)
            });
        }
        if let Some(detail) = self.attest.provenance {
            let material = |image: &plan::Image| {
                let found = self.store.find_image_for(&image.name, &image.platform);
                let digest = found.ok()?.manifest_digest();
                Some(attest::Material {
                    name: image.name.clone(),
                    platform: image.platform.clone(),
                    digest,
                })
            };
            let needed = plan.images_of(target.tree);
            let used = plan.images.iter().enumerate();
            let used = used.filter(|(place, _)| needed.contains(place));
            let recipe = attest::Recipe {
                dockerfile: &self.settings.dockerfile,
                options: &self.options,
                platform: &target.platform,
                plan,
                materials: &used
                    .filter_map(|(_, image)| material(image))
                    .collect::<Vec<_>>(),
            };
            predicates.push(Predicate {
                referrer: self.attest.referrers.provenance,
                ..attest::provenance(&recipe, detail)
            });
        }
        Ok(predicates)
    }

    fn send(
        &self,
        storage: &Storage,
        built: &[Built],
        progress: &Progress,
    ) -> Result<Sent, BuildError> {
        let sending = Sending {
            storage,
            built,
            names: &self.names,
            annotations: &self.outputs.annotations,
            progress: &progress.of_transfers(),
        };
        Ok(sending.all(&self.outputs.list)?)
    }

    /// The configuration with the times that only now are needed: those of our own instructions.
    fn finished_config(target: &Target, epoch: Epoch) -> teu_store::image::ImageConfig {
        let mut config = target.config.clone();
        let time = epoch.rfc3339();
        config.created = Some(time.clone());
        let ours = |comment: &Option<String>| comment.as_deref() == Some(plan::HISTORY_COMMENT);
        for line in config
            .history
            .iter_mut()
            .filter(|line| line.created.is_none() && ours(&line.comment))
        {
            line.created = Some(time.clone());
        }
        config
    }
}

/// Runs the steps of a plan, as many at once as can.
fn run_steps(plan: &Plan, executor: &Executor<'_>, cancel: &Cancel) -> Result<(), Failure> {
    let needs: Vec<Vec<usize>> = plan.steps.iter().map(plan::Step::needs).collect();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .max(WORKERS_MIN);
    schedule::run(
        &needs,
        workers,
        |step| executor.step(step),
        || cancel.stop(),
    )
}

/// What is probably a mistake, after the steps: there it is seen.
fn show_lint(warnings: &[Warning], prepared: &Prepared, progress: &Progress) {
    let Source { name, text } = &prepared.source;
    let color = std::io::stderr().is_terminal();
    for warning in warnings {
        progress.note(&warning.problem().render_warning(name, text, color));
    }
    let found = match warnings.len() {
        0 => return,
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    progress.note(&format!("{found} (`# check=skip=RULE` turns a rule off)"));
}

/// The published front ends only add to the language what is built in here; of any other
/// nothing is known, and none is ever fetched.
fn check_syntax(file: &Dockerfile, options: &plan::Options) -> Result<(), BuildError> {
    let given = options
        .build_args
        .iter()
        .find(|(name, _)| name == "BUILDKIT_SYNTAX")
        .map(|(_, value)| (value.as_str(), 0..0));
    let directive = file.directives.syntax.as_ref();
    let asked = given.or(directive.map(|syntax| (syntax.raw.as_str(), syntax.span.clone())));
    let Some((syntax, span)) = asked else {
        return Ok(());
    };
    let name = syntax.trim_start_matches("docker.io/");
    let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
    let is_known = known.iter().any(|known| {
        name.strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    });
    if is_known {
        return Ok(());
    }
    let problem = Problem::new(
        format!("the front end `{syntax}` is unsupported"),
        span,
        "asked for here",
    );
    Err(BuildError::Problem(Box::new(problem.help(
        "front ends are never fetched; docker/dockerfile is built in".to_owned(),
    ))))
}

fn step_error(plan: &Plan, failure: Failure, isolation: Isolation) -> BuildError {
    let step = &plan.steps[failure.step];
    let (label, output) = match failure.error {
        StepError::Run(RunError::Status { ending, output }) => (ending, output),
        error => (chain(&error), Vec::new()),
    };
    let title = format!("the step [{}] failed", step.place);
    BuildError::Step {
        problem: Box::new(with_advice(
            Problem::new(title, step.span.clone(), label),
            matches!(step.operation, plan::Operation::Run(_)) && isolation == Isolation::OneId,
        )),
        place: step.place.clone(),
        output,
    }
}

/// Adds what a RUN step may have stumbled over that only root's id exists for.
fn with_advice(problem: Problem, has_one_id: bool) -> Problem {
    if !has_one_id {
        return problem;
    }
    problem.help(
        "steps have one id here: they can give files to nobody and become nobody else; `teu-build doctor` says what more ids need"
            .to_owned(),
    )
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
