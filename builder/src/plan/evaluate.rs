//! One stage: each instruction changes the configuration or becomes a step.

use super::build::Planner;
use super::outline::{self, Known};
use super::stages::given;
use super::{Copy, CopySource, NamedContext, Operation, Origin, Step, Tree};
use crate::dockerfile::instruction::{Argument, Text};
use crate::dockerfile::word::Lexer;
use crate::dockerfile::{self, Instruction, Result, Span, Statement, suggest};
use crate::environment::Environment;
use crate::lint::rules::{self, Rule};
use crate::lint::{self, Warning};
use crate::remote::without_passwords;
use crate::report::Problem;
use std::collections::{BTreeSet, HashMap};
use teu_store::image::{History, ImageConfig, Platform, RootFs};

/// The search path of images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that speak to the builder and not to the stage that declares them.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Most triggers taken from one base image.
const TRIGGERS_MAX: usize = 1_000;

/// A stage at some point: what the next instruction starts from.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) config: ImageConfig,
    /// For what the stage's programs are.
    pub(super) platform: Platform,
    /// ENV and ARG together, in the order in which they were set.
    pub(super) variables: Environment,
    /// The ARGs declared so far; RUN's history names them.
    pub(super) arguments: Vec<String>,
    /// Whether this stage set CMD itself: ENTRYPOINT then leaves it alone.
    pub(super) cmd_set: bool,
    /// Whether the Dockerfile, not only the base image, set WORKDIR.
    pub(super) workdir_set: bool,
}

/// A stage being evaluated.
pub(super) struct Evaluator<'p, 'a> {
    pub(super) planner: &'p mut Planner<'a>,
    pub(super) index: usize,
    pub(super) state: State,
    name: String,
    steps: Vec<usize>,
    /// While a trigger of the base runs: its FROM, the only place there is to point at.
    trigger: Option<Span>,
    /// The instruction that is being evaluated.
    pub(super) current: Span,
    /// How many agents the current RUN mounts.
    pub(super) agents: usize,
    /// Where instructions stand of which only the last counts.
    pub(super) last: HashMap<&'static str, Span>,
}

/// Evaluates the stage of that number.
pub(super) fn stage(planner: &mut Planner<'_>, index: usize) -> Result<State> {
    let stage = &planner.stages.list[index];
    let (from, body) = (stage.from, stage.body);
    let whole = stage.from_statement.span.clone();
    let span = from.base.span.clone();
    let replaced = from
        .name
        .as_ref()
        .and_then(|name| planner.named_context(&name.raw).cloned());
    let (state, body) = match replaced {
        Some(context) => {
            let platform = stage.platform.clone();
            (of_context(planner, &context, platform, &span)?, &[][..])
        }
        None => (base(planner, index, &span)?, body),
    };
    let name = from
        .name
        .as_ref()
        .map_or_else(|| format!("stage-{index}"), |name| name.raw.clone());
    let mut evaluator = Evaluator {
        planner,
        index,
        state,
        name,
        steps: Vec::new(),
        trigger: None,
        current: whole,
        agents: 0,
        last: HashMap::new(),
    };
    evaluator.run_triggers(&span)?;
    for statement in body {
        evaluator.statement(statement)?;
    }
    Ok(evaluator.finish())
}

/// Where the stage starts: another stage, nothing, or an image.
fn base(planner: &mut Planner<'_>, index: usize, span: &Span) -> Result<State> {
    let stage = &planner.stages.list[index];
    let (name, platform) = (stage.base.clone(), stage.platform.clone());
    if let Some(earlier) = planner.stages.earlier(&name, index) {
        let state = planner.stage(earlier, span)?;
        return Ok(State {
            cmd_set: false,
            ..state
        });
    }
    if name == "scratch" {
        let config = scratch(&platform);
        return Ok(start(Tree::Empty, config, platform));
    }
    if let Some(context) = planner.named_context(&name).cloned() {
        return of_context(planner, &context, platform, span);
    }
    of_image(planner, &name, platform, span)
}

fn of_image(planner: &mut Planner<'_>, name: &str, wanted: Platform, span: &Span) -> Result<State> {
    let (tree, image) = planner.image(name, &wanted, span)?;
    let config = image.config;
    if (&config.os, &config.architecture) != (&wanted.os, &wanted.architecture) {
        let detail = format!(
            "the base image {name} is for {}/{}, this build is for {}/{}",
            config.os, config.architecture, wanted.os, wanted.architecture
        );
        planner.linter.warn(Warning {
            rule: &rules::INVALID_BASE_IMAGE_PLATFORM,
            detail,
            span: span.clone(),
            statement: span.clone(),
            help: None,
        });
    }
    let platform = match &*config.architecture {
        "" => wanted,
        architecture => Platform {
            architecture: architecture.to_owned(),
            variant: config.variant.clone(),
            ..wanted
        },
    };
    Ok(start(tree, config, platform))
}

/// A stage that starts from, or is replaced by, what the command line gives.
fn of_context(
    planner: &mut Planner<'_>,
    context: &NamedContext,
    platform: Platform,
    span: &Span,
) -> Result<State> {
    let place = match context {
        NamedContext::Image(name) if name == "scratch" => {
            return Ok(start(Tree::Empty, scratch(&platform), platform));
        }
        NamedContext::Image(name) => return of_image(planner, name, platform, span),
        NamedContext::Files(place) => *place,
    };
    let path = CopySource::Path {
        path: "/".to_owned(),
        keep: None,
    };
    let copy = Copy {
        origin: Origin::Named(place),
        sources: vec![path],
        destination: "/".to_owned(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
    };
    planner.steps.push(Step {
        parent: Tree::Empty,
        operation: Operation::Copy(Box::new(copy)),
        place: "context".to_owned(),
        text: "FROM the named context".to_owned(),
        span: span.clone(),
    });
    let config = scratch(&platform);
    let mut state = start(Tree::Step(planner.steps.len() - 1), config, platform);
    state.config.history.push(History {
        created_by: Some("FROM a named context".to_owned()),
        comment: Some(super::HISTORY_COMMENT.to_owned()),
        ..History::default()
    });
    Ok(state)
}

/// A stage with nothing done in it.
fn start(tree: Tree, mut config: ImageConfig, platform: Platform) -> State {
    let mut variables = Environment::from_strings(&config.config.env);
    if variables.get("PATH").is_none() {
        variables.set("PATH", DEFAULT_PATH);
        config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    State {
        tree,
        config,
        platform,
        variables,
        arguments: Vec::new(),
        cmd_set: false,
        workdir_set: false,
    }
}

fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs::default(),
        ..ImageConfig::default()
    };
    "/".clone_into(&mut config.config.working_dir);
    config
}

impl Evaluator<'_, '_> {
    /// Executes what the base image recorded with ONBUILD.
    fn run_triggers(&mut self, from: &Span) -> Result<()> {
        let triggers = std::mem::take(&mut self.state.config.config.on_build);
        if triggers.len() > TRIGGERS_MAX {
            return Err(Problem::new(
                "the base image has too many triggers",
                from.clone(),
                format!("more than {TRIGGERS_MAX}"),
            )
            .into());
        }
        self.trigger = Some(from.clone());
        for text in triggers {
            let within = |problem: Box<Problem>| {
                let title = format!("in the base image's trigger `{text}`: {}", problem.title);
                Box::new(Problem {
                    title,
                    span: from.clone(),
                    ..*problem
                })
            };
            let parsed = dockerfile::parse(&text).map_err(within)?;
            for statement in &parsed.statements {
                if matches!(
                    statement.instruction,
                    Instruction::From(_) | Instruction::Onbuild(_) | Instruction::Maintainer(_)
                ) {
                    return Err(within(
                        Problem::new("not allowed in a trigger", from.clone(), "this base").into(),
                    ));
                }
                self.statement(statement).map_err(within)?;
            }
        }
        self.trigger = None;
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        let place = self.trigger.as_ref().unwrap_or(&statement.span);
        self.current = place.clone();
        match &statement.instruction {
            Instruction::Run(run) => self.run(run, statement),
            Instruction::Copy(copy) => self.copy(copy, statement),
            Instruction::Add(add) => self.add(add, statement),
            Instruction::Workdir(path) => self.workdir(path, statement),
            Instruction::Arg(arguments) => self.arg(arguments, statement),
            Instruction::Env(pairs) => self.env(pairs),
            Instruction::Label(pairs) => self.label(pairs),
            Instruction::Cmd(command) => self.cmd(command),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Expose(ports) => self.expose(ports),
            Instruction::Volume(paths) => self.volume(paths),
            Instruction::User(user) => self.user(user),
            Instruction::Shell(words) => self.shell(words),
            Instruction::StopSignal(signal) => self.stop_signal(signal),
            Instruction::Healthcheck(check) => self.healthcheck(check),
            Instruction::Onbuild(onbuild) => self.onbuild(onbuild),
            Instruction::Maintainer(name) => self.maintainer(name),
            // Stages were split at every FROM.
            Instruction::From(_) => Ok(()),
        }
    }

    /// `ARG`: the command line's value, else the default, else the one before the first FROM.
    fn arg(&mut self, arguments: &[Argument], statement: &Statement) -> Result<()> {
        let mut shown = Vec::new();
        for argument in arguments {
            let name = self.expand(&argument.name)?;
            self.warn_of_secret("ARG", &name, &argument.name.span);
            let globals = &self.planner.stages.globals;
            let (value, inherited) = match (given(self.planner.options, &name), &argument.default) {
                (Some(value), _) => (Some(value.to_owned()), false),
                (None, Some(default)) => (Some(self.expand(default)?), false),
                (None, None) => (
                    globals.get(&name).map(str::to_owned),
                    globals.get(&name).is_some(),
                ),
            };
            if inherited {
                self.planner.inherited.insert(name.clone());
            } else {
                let known = Known::argument(&name, value.as_deref(), argument, statement);
                outline::add(&mut self.planner.outline.arguments, known);
            }
            match value {
                Some(value) => {
                    if !NOT_VARIABLES.contains(&name.as_str()) {
                        self.state.variables.set(&name, &value);
                    }
                    shown.push(format!("{name}={value}"));
                }
                None => shown.push(name.clone()),
            }
            self.planner.declared.insert(name.clone());
            if !self.state.arguments.contains(&name) {
                self.state.arguments.push(name);
            }
        }
        self.history(format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    /// A value with its variables replaced.
    pub(super) fn expand(&self, text: &Text) -> Result<String> {
        let fail = |title: String| Problem::new(title, text.span.clone(), "in this value");
        let expansion = self
            .lexer()
            .expand_and_tell(&text.raw)
            .map_err(|error| fail(error.to_string()))?;
        self.warn_of_unset(&expansion.unset, &text.span);
        Ok(expansion.text)
    }

    /// Variables that nothing set and no ARG declared.
    pub(super) fn warn_of_unset(&self, unset: &BTreeSet<String>, span: &Span) {
        for name in unset {
            if self.state.arguments.contains(name) {
                continue;
            }
            let known = self.state.variables.iter().map(|(name, _)| name);
            let near = suggest::nearest(name, known);
            self.planner.linter.warn(Warning {
                rule: &rules::UNDEFINED_VAR,
                detail: format!("nothing sets `${name}`"),
                span: span.clone(),
                statement: self.current.clone(),
                help: near.map(|near| format!("did you mean `${near}`?")),
            });
        }
    }

    /// Notes a violation by the current instruction.
    pub(super) fn warn(&self, rule: &'static Rule, span: &Span, detail: String) {
        self.planner.linter.warn(Warning {
            rule,
            detail,
            span: span.clone(),
            statement: self.current.clone(),
            help: None,
        });
    }

    /// Names that speak of secrets do not belong where everybody reads the values.
    pub(super) fn warn_of_secret(&self, instruction: &str, name: &str, span: &Span) {
        if lint::names_a_secret(name) {
            let detail = format!(
                "{instruction} `{name}` seems to be a secret, and is readable in the image"
            );
            self.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, span, detail);
        }
    }

    /// Notes that an instruction of which only the last counts stood before.
    pub(super) fn warn_of_repetition(&mut self, name: &'static str) {
        let current = self.current.clone();
        if let Some(earlier) = self.last.insert(name, current) {
            self.planner.linter.warn(Warning {
                rule: &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED,
                detail: format!("a later {name} of this stage replaces this one"),
                span: earlier.clone(),
                statement: earlier,
                help: None,
            });
        }
    }

    /// The instruction that is being evaluated.
    pub(super) fn current(&self) -> &Span {
        &self.current
    }

    /// The reader of words with this stage's variables.
    pub(super) fn lexer(&self) -> Lexer<'_> {
        Lexer::new(self.planner.escape, &self.state.variables)
    }

    /// Records an instruction that makes no layer.
    pub(super) fn history(&mut self, created_by: String) {
        self.record(created_by, true);
    }

    fn record(&mut self, created_by: String, empty_layer: bool) {
        let comment = Some(super::HISTORY_COMMENT.to_owned());
        self.state.config.history.push(History {
            created_by: Some(created_by),
            comment,
            empty_layer,
            ..History::default()
        });
    }

    /// Adds a step and the layer's line in the history.
    pub(super) fn step(&mut self, operation: Operation, created_by: String, statement: &Statement) {
        let span = self
            .trigger
            .clone()
            .unwrap_or_else(|| statement.span.clone());
        let step = Step {
            parent: self.state.tree,
            operation,
            place: String::new(),
            text: without_passwords(&statement.text),
            span,
        };
        self.planner.steps.push(step);
        let number = self.planner.steps.len() - 1;
        self.state.tree = Tree::Step(number);
        self.steps.push(number);
        self.record(created_by, false);
    }

    /// Numbers the stage's steps, now that their count is known.
    fn finish(self) -> State {
        let total = self.steps.len();
        for (position, step) in self.steps.iter().enumerate() {
            self.planner.steps[*step].place = format!("{} {}/{total}", self.name, position + 1);
        }
        self.state
    }
}
