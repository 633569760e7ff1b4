//! One stage: each instruction changes the configuration or becomes a step.

use super::build::Planner;
use super::stages::{self, given};
use super::{Operation, Step, Tree};
use crate::dockerfile::instruction::{Argument, Text};
use crate::dockerfile::word::Lexer;
use crate::dockerfile::{self, Instruction, Result, Span, Statement};
use crate::environment::Environment;
use crate::report::Problem;
use teu_store::image::{History, ImageConfig, RootFs};

/// The search path of images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most triggers taken from one base image.
const TRIGGERS_MAX: usize = 1_000;

/// A stage at some point: what the next instruction starts from.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) config: ImageConfig,
    /// ENV and ARG together, in the order in which they were set.
    pub(super) variables: Environment,
    /// The ARGs declared so far; RUN's history names them.
    pub(super) arguments: Vec<String>,
    /// Whether this stage set CMD itself: ENTRYPOINT then leaves it alone.
    pub(super) cmd_set: bool,
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
}

/// Evaluates the stage of that number.
pub(super) fn stage(planner: &mut Planner<'_>, index: usize) -> Result<State> {
    let stage = &planner.stages.list[index];
    let (from, body) = (stage.from, stage.body);
    let span = from.base.span.clone();
    let state = base(planner, index, &span)?;
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
    };
    evaluator.run_triggers(&span)?;
    for statement in body {
        evaluator.statement(statement)?;
    }
    Ok(evaluator.finish())
}

/// Where the stage starts: another stage, nothing, or an image.
fn base(planner: &mut Planner<'_>, index: usize, span: &Span) -> Result<State> {
    let name = planner.stages.list[index].base.clone();
    if let Some(earlier) = planner.stages.earlier(&name, index) {
        let state = planner.stage(earlier, span)?;
        return Ok(State {
            cmd_set: false,
            ..state
        });
    }
    let (tree, mut config) = if name == "scratch" {
        (Tree::Empty, scratch(planner))
    } else {
        let (tree, image) = planner.image(&name, span)?;
        (tree, image.config)
    };
    let mut variables = Environment::from_strings(&config.config.env);
    if variables.get("PATH").is_none() {
        variables.set("PATH", DEFAULT_PATH);
        config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    Ok(State {
        tree,
        config,
        variables,
        arguments: Vec::new(),
        cmd_set: false,
    })
}

fn scratch(planner: &Planner<'_>) -> ImageConfig {
    let platform = &planner.options.platform;
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
        match &statement.instruction {
            Instruction::Run(run) => self.run(run, statement),
            Instruction::Copy(copy) => self.copy(copy, statement),
            Instruction::Add(add) => self.add(add, statement),
            Instruction::Workdir(path) => self.workdir(path, statement),
            Instruction::Arg(arguments) => self.arg(arguments),
            Instruction::Env(pairs) => self.env(pairs),
            Instruction::Label(pairs) => self.label(pairs),
            Instruction::Cmd(command) => self.cmd(command),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Expose(ports) => self.expose(ports),
            Instruction::Volume(paths) => self.volume(paths),
            Instruction::User(user) => self.user(user),
            Instruction::Shell(words) => self.shell(words),
            Instruction::StopSignal(signal) => self.stop_signal(signal),
            Instruction::Healthcheck(check) => self.healthcheck(check, statement),
            Instruction::Onbuild(onbuild) => self.onbuild(onbuild),
            Instruction::Maintainer(name) => self.maintainer(name),
            // Stages were split at every FROM.
            Instruction::From(_) => Ok(()),
        }
    }

    /// `ARG`: the command line's value, else the default, else the one before the first FROM.
    fn arg(&mut self, arguments: &[Argument]) -> Result<()> {
        let mut shown = Vec::new();
        for argument in arguments {
            let name = self.expand(&argument.name)?;
            let value = match (given(self.planner.options, &name), &argument.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.planner.stages.globals.get(&name).map(str::to_owned),
            };
            match value {
                Some(value) => {
                    self.state.variables.set(&name, &value);
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
        stages::expand(&self.lexer(), text)
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
            text: statement.text.clone(),
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
