//! Statements to stages.

use crate::dockerfile::instruction::{From, Text};
use crate::dockerfile::word::Lexer;
use crate::dockerfile::{Dockerfile, Instruction, Result, Statement, suggest};
use crate::environment::Environment;
use crate::lint::{self, Globals, Linter};
use crate::report::Problem;
use std::collections::BTreeSet;
use teu_store::image::Platform;

use super::{Known, Options};

/// Most stages of one Dockerfile. Planning goes from stage to stage recursively; real files
/// have ten.
pub(super) const STAGES_MAX: usize = 500;

/// A stage before it is evaluated.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) from: &'a From,
    /// The base's name with its variables replaced.
    pub(super) base: String,
    /// For what it is: what `--platform` says, else what the build is for.
    pub(super) platform: Platform,
    pub(super) from_statement: &'a Statement,
    pub(super) body: &'a [Statement],
}

/// All stages and what they share.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pub(super) list: Vec<Stage<'a>>,
    /// The platform's variables and the ARGs before the first FROM: visible in FROM, and in
    /// a stage that declares them.
    pub(super) globals: Environment,
    /// The same as if no build argument were given.
    pub(super) defaults: Environment,
    /// The ARGs before the first FROM.
    pub(super) known: Vec<Global>,
}

/// An ARG before the first FROM.
#[derive(Debug)]
pub(super) struct Global {
    /// It, as `--call outline` tells of it.
    pub(super) argument: Known,
    /// The names that its default is made of.
    made_of: BTreeSet<String>,
}

/// Splits a Dockerfile at its FROMs. What the rules say about its text is noted even where it
/// cannot be split.
pub(super) fn split<'a>(
    file: &'a Dockerfile,
    options: &Options,
    linter: &Linter,
) -> Result<Stages<'a>> {
    let is_from = |statement: &Statement| matches!(statement.instruction, Instruction::From(_));
    let first = file
        .statements
        .iter()
        .position(is_from)
        .ok_or_else(|| no_stage(file))?;
    let before = &file.statements[..first];
    let platform = platform_variables(options, last_stage(file));
    let escape = file.directives.escape;
    let (globals, known) = globals(before, escape, &options.build_args, platform.clone())?;
    let (defaults, _) = self::globals(before, escape, &[], platform).unwrap_or_default();
    let stages = Stages {
        list: Vec::new(),
        globals,
        defaults,
        known,
    };
    lint::check_file(linter, file, stages.as_seen_by_from());
    let lexer = Lexer::new(escape, &stages.globals);
    let list = stages_of(&file.statements[first..], &lexer, options)?;
    Ok(Stages { list, ..stages })
}

/// The stages of what stands from the first FROM on.
fn stages_of<'a>(
    mut rest: &'a [Statement],
    lexer: &Lexer<'_>,
    options: &Options,
) -> Result<Vec<Stage<'a>>> {
    let is_from = |statement: &Statement| matches!(statement.instruction, Instruction::From(_));
    let mut list = Vec::new();
    while let Some((from_statement, after)) = rest.split_first() {
        let length = after.iter().position(is_from).unwrap_or(after.len());
        if let Instruction::From(from) = &from_statement.instruction {
            let base = expand(lexer, &from.base)?;
            if base.is_empty() {
                let problem = Problem::new(
                    "the base image has no name",
                    from.base.span.clone(),
                    "empty",
                );
                return Err(problem
                    .help(
                        "an ARG used in FROM must stand before the first FROM and have a value"
                            .to_owned(),
                    )
                    .into());
            }
            list.push(Stage {
                from,
                base,
                platform: platform_of(from, lexer, &options.platform)?,
                from_statement,
                body: &after[..length],
            });
        }
        if list.len() > STAGES_MAX {
            return Err(Problem::new(
                format!("more than {STAGES_MAX} stages"),
                from_statement.span.clone(),
                "one too many",
            )
            .into());
        }
        rest = &after[length..];
    }
    Ok(list)
}

/// The value that an ARG before the first FROM gives to a variable.
pub fn declared(file: &Dockerfile, options: &Options, name: &str) -> Option<String> {
    let statements = file.statements.iter();
    let before = statements.take_while(|one| matches!(one.instruction, Instruction::Arg(_)));
    let before: Vec<Statement> = before.cloned().collect();
    let platform = platform_variables(options, last_stage(file));
    let found = globals(
        &before,
        file.directives.escape,
        &options.build_args,
        platform,
    );
    let (values, _) = found.ok()?;
    values.get(name).map(str::to_owned)
}

fn no_stage(file: &Dockerfile) -> Problem {
    let span = file
        .statements
        .last()
        .map_or(0..0, |statement| statement.span.clone());
    Problem::new("the file has no build stage", span, "no FROM in the file")
        .help("start with `FROM image`".to_owned())
}

/// The variables outside of stages: the platform's own, then each ARG.
fn globals(
    statements: &[Statement],
    escape: char,
    build_args: &[(String, String)],
    mut globals: Environment,
) -> Result<(Environment, Vec<Global>)> {
    let mut known = Vec::new();
    for statement in statements {
        let Instruction::Arg(arguments) = &statement.instruction else {
            let problem = Problem::new(
                "no build stage in current context",
                statement.span.clone(),
                "before the first FROM",
            );
            return Err(problem
                .help("only ARG may stand before FROM".to_owned())
                .into());
        };
        for argument in arguments {
            let lexer = Lexer::new(escape, &globals);
            let name = expand(&lexer, &argument.name)?;
            let mut made_of = BTreeSet::new();
            let value = match (value_of(build_args, &name), &argument.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => {
                    made_of = names_in(&lexer, default);
                    Some(expand(&lexer, default)?)
                }
                (None, None) => None,
            };
            if let Some(value) = &value {
                globals.set(&name, value);
            }
            known.push(Global {
                argument: Known::argument(&name, value.as_deref(), argument, statement),
                made_of,
            });
        }
    }
    Ok((globals, known))
}

/// The name of the stage that is built when none is asked for.
fn last_stage(file: &Dockerfile) -> Option<&str> {
    let name = file.statements.iter().rev().find_map(|statement| {
        if let Instruction::From(from) = &statement.instruction {
            Some(from.name.as_ref().map(|name| name.raw.as_str()))
        } else {
            None
        }
    });
    name.flatten()
}

/// What needs no ARG before the first FROM. Build arguments of these names count instead.
fn platform_variables(options: &Options, last_stage: Option<&str>) -> Environment {
    let mut variables = Environment::default();
    for (side, platform) in [
        ("BUILD", &options.build_platform),
        ("TARGET", &options.platform),
    ] {
        let variant = platform.variant.as_deref().unwrap_or_default();
        variables.set(&format!("{side}PLATFORM"), &platform.to_string());
        variables.set(&format!("{side}OS"), &platform.os);
        variables.set(&format!("{side}ARCH"), &platform.architecture);
        variables.set(&format!("{side}VARIANT"), variant);
    }
    variables.set(
        "TARGETSTAGE",
        options
            .target
            .as_deref()
            .or(last_stage)
            .unwrap_or("default"),
    );
    for (name, value) in &options.build_args {
        if variables.get(name).is_some() {
            variables.set(name, value);
        }
    }
    variables
}

/// `FROM --platform`, else what the build is for.
fn platform_of(from: &From, lexer: &Lexer, own: &Platform) -> Result<Platform> {
    let Some(text) = &from.platform else {
        return Ok(own.clone());
    };
    let wanted = expand(lexer, text)?;
    let unset = lexer.expand_and_tell(&text.raw).map(|told| told.unset);
    let near = unset.unwrap_or_default().into_iter().find_map(|name| {
        suggest::nearest(&name, lexer.variables.iter().map(|(known, _)| known)).map(str::to_owned)
    });
    let unknown = |label: String| {
        let title = format!("`{wanted}` is no platform");
        let help = near.as_ref().map(|near| format!("did you mean `{near}`?"));
        Problem::new(title, text.span.clone(), label).help(help)
    };
    let platform = wanted
        .parse::<Platform>()
        .map_err(|_| unknown("want OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT".to_owned()))?;
    if platform.os != own.os {
        return Err(unknown(format!("only {} can be built here", own.os)).into());
    }
    Ok(platform)
}

/// The value that the command line gives to a build argument.
pub(super) fn given<'a>(options: &'a Options, name: &str) -> Option<&'a str> {
    value_of(&options.build_args, name)
}

/// Whether the command line turns on what a build argument is the switch of.
pub fn is_asked(options: &Options, name: &str) -> bool {
    given(options, name).is_some_and(|value| matches!(value, "1" | "true" | "True" | "TRUE"))
}

fn value_of<'a>(build_args: &'a [(String, String)], name: &str) -> Option<&'a str> {
    build_args
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// The variables that a value names.
fn names_in(lexer: &Lexer, text: &Text) -> BTreeSet<String> {
    let named = lexer.expand_and_tell(&text.raw);
    named.map_or_else(|_| BTreeSet::new(), |told| &told.set | &told.unset)
}

/// Replaces the variables of a value.
pub(super) fn expand(lexer: &Lexer, text: &Text) -> Result<String> {
    lexer
        .expand(&text.raw)
        .map_err(|error| Problem::new(error.to_string(), text.span.clone(), "in this value").into())
}

impl Stages<'_> {
    /// What a FROM can use.
    pub(super) fn as_seen_by_from(&self) -> Globals<'_> {
        Globals {
            values: &self.globals,
            defaults: &self.defaults,
            declared: self.declared().collect(),
        }
    }

    /// Names declared by an ARG before the first FROM.
    pub(super) fn declared(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|known| known.argument.name.as_str())
    }

    /// The ARGs before the first FROM that these names and the FROMs of these stages mean, and
    /// those that their defaults are made of.
    pub(super) fn used(
        &self,
        names: &BTreeSet<String>,
        stages: impl Iterator<Item = usize>,
        escape: char,
    ) -> impl Iterator<Item = &Known> {
        let lexer = Lexer::new(escape, &self.globals);
        let mut open: Vec<String> = names.iter().cloned().collect();
        for from in stages.map(|index| self.list[index].from) {
            for text in [Some(&from.base), from.platform.as_ref()] {
                open.extend(text.into_iter().flat_map(|text| names_in(&lexer, text)));
            }
        }
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            let same = self
                .known
                .iter()
                .filter(|known| known.argument.name == name);
            open.extend(
                same.flat_map(|known| known.made_of.iter().cloned())
                    .filter(|name| !seen.contains(name)),
            );
            seen.insert(name);
        }
        let arguments = self.known.iter().map(|known| &known.argument);
        arguments.filter(move |argument| seen.contains(&argument.name))
    }

    /// The names of all stages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self
            .list
            .iter()
            .filter_map(|stage| stage.from.name.as_ref());
        names.map(|name| name.raw.as_str())
    }

    /// The stage that a FROM below `before` means by a name.
    pub(super) fn earlier(&self, name: &str, before: usize) -> Option<usize> {
        self.named(name).filter(|index| *index < before).max()
    }

    /// The stage that `--from` in stage `own` means: a name, preferably of an earlier stage, or a number.
    pub(super) fn referred(&self, name: &str, own: usize) -> Option<usize> {
        let named = self.earlier(name, own).or_else(|| self.named(name).max());
        named.or_else(|| name.parse().ok().filter(|index| *index < self.list.len()))
    }

    /// The stage that `--target` means.
    pub(super) fn target(&self, name: Option<&str>) -> Result<usize> {
        let Some(name) = name else {
            return Ok(self.list.len().saturating_sub(1));
        };
        self.referred(&name.to_lowercase(), self.list.len())
            .ok_or_else(|| {
                let span = self
                    .list
                    .last()
                    .map_or(0..0, |stage| stage.from_statement.span.clone());
                let near = suggest::nearest(name, self.names())
                    .map(|near| format!("did you mean `{near}`?"));
                Problem::new(
                    format!("the target stage `{name}` does not exist"),
                    span,
                    "the last stage",
                )
                .help(near)
                .into()
            })
    }

    fn named<'b>(&'b self, name: &str) -> impl Iterator<Item = usize> + use<'b> {
        let name = name.to_lowercase();
        let matches = move |(index, stage): (usize, &Stage)| {
            stage
                .from
                .name
                .as_ref()
                .is_some_and(|own| own.raw == name)
                .then_some(index)
        };
        self.list.iter().enumerate().filter_map(matches)
    }
}
