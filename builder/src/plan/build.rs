//! From the target stage backwards to everything it needs.

use super::evaluate::{self, State};
use super::outline::{Outline, description};
use super::stages::{self, Stages};
use super::{Image, Images, NamedContext, Options, Origin, Plan, Step, Target, Tree};
use crate::dockerfile::instruction::Text;
use crate::dockerfile::{self, Dockerfile, Result, Span, suggest};
use crate::environment::Environment;
use crate::lint::{self, Linter, Warning};
use crate::report::Problem;
use std::collections::{BTreeSet, HashMap, HashSet};
use teu_store::Reference;
use teu_store::image::Platform;

/// Plans a build. Asks `images` for each image that a needed stage names, once a name.
///
/// # Errors
/// What is wrong with the Dockerfile or unsupported, or an image that is not to be had, with its place.
pub fn plan(file: &Dockerfile, options: &Options, images: &mut dyn Images) -> Result<Plan> {
    let linter = linter(file, options)?;
    let plan = plan_with(&linter, file, options, images, false)?;
    match violated(&linter, &plan.lint) {
        Some(problem) => Err(problem),
        None => Ok(plan),
    }
}

/// What the rules say about a file.
#[derive(Debug)]
pub struct Checked {
    /// Violations, in the order of the file.
    pub warnings: Vec<Warning>,
    /// What makes it no Dockerfile at all, or a violation where the file says that none is allowed.
    pub error: Option<Box<Problem>>,
}

/// Applies the rules to the target stage and what it needs, or to all stages when none is asked for.
pub fn check(file: &Dockerfile, options: &Options, images: &mut dyn Images) -> Checked {
    let linter = match linter(file, options) {
        Ok(linter) => linter,
        Err(error) => {
            return Checked {
                warnings: Vec::new(),
                error: Some(error),
            };
        }
    };
    let all = options.target.is_none();
    let planned = plan_with(&linter, file, options, images, all);
    let warnings = linter.warnings();
    let error = planned.err().or_else(|| violated(&linter, &warnings));
    Checked { warnings, error }
}

/// What the rules say about the text before something in it is wrong, in the order of the file.
pub fn warnings_before(source: &str, options: &Options) -> Vec<Warning> {
    let Ok((file, _)) = dockerfile::parse_until_wrong(source) else {
        return Vec::new();
    };
    let Ok(linter) = linter(&file, options) else {
        return Vec::new();
    };
    // Whatever is wrong is told by whoever asks.
    let _ = stages::split(&file, options, &linter);
    linter.warnings()
}

fn plan_with(
    linter: &Linter,
    file: &Dockerfile,
    options: &Options,
    images: &mut dyn Images,
    all_stages: bool,
) -> Result<Plan> {
    let stages = stages::split(file, options, linter)?;
    let target = stages.target(options.target.as_deref())?;
    let mut planner = Planner {
        escape: file.directives.escape,
        options,
        stages: &stages,
        source: images,
        images: Vec::new(),
        image_places: HashMap::new(),
        steps: Vec::new(),
        done: HashMap::new(),
        open: Vec::new(),
        declared: stages.declared().map(str::to_owned).collect(),
        linter,
        inherited: BTreeSet::new(),
        outline: Outline::default(),
    };
    if all_stages {
        for index in 0..stages.list.len() {
            planner.stage(index, &(0..0))?;
        }
    }
    let mut state = planner.stage(target, &(0..0))?;
    let labels = &mut state.config.config.labels;
    labels.extend(options.labels.iter().cloned());
    planner.outline_globals();
    let warnings = planner.unused_arguments();
    let stage = &stages.list[target];
    let name = stage.from.name.as_ref().map(|name| name.raw.clone());
    let comments = &stage.from_statement.comments;
    Ok(Plan {
        images: planner.images,
        steps: planner.steps,
        results: vec![Target {
            platform: state.platform,
            tree: state.tree,
            config: state.config,
        }],
        warnings,
        lint: linter.warnings(),
        outline: Outline {
            description: name.as_ref().and_then(|name| description(comments, name)),
            name,
            ..planner.outline.sorted()
        },
    })
}

/// The linter that the file asks for, or the build argument of that meaning.
fn linter(file: &Dockerfile, options: &Options) -> Result<Linter> {
    let given = stages::given(options, "BUILDKIT_DOCKERFILE_CHECK");
    let directive = file.directives.check.as_ref();
    let text = given.or(directive.map(|text| text.raw.as_str()));
    let span = directive
        .filter(|_| given.is_none())
        .map_or(0..0, |text| text.span.clone());
    let read = lint::Options::parse(text.unwrap_or_default());
    let read = read.map_err(|error| {
        Problem::new(error.to_string(), span.clone(), "in this directive")
            .help("write skip=RULE,RULE;error=true;experimental=RULE".to_owned())
    })?;
    Ok(Linter::new(read))
}

/// Names the violated rules, where the file says that this is an error.
fn violated(linter: &Linter, warnings: &[Warning]) -> Option<Box<Problem>> {
    let first = warnings.first().filter(|_| linter.is_strict())?;
    let mut names: Vec<&str> = warnings.iter().map(|warning| warning.rule.name).collect();
    names.sort_unstable();
    names.dedup();
    let title = format!("lint violation found for rules: {}", names.join(", "));
    Some(Problem::new(title, first.span.clone(), first.detail.clone()).into())
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) escape: char,
    pub(super) options: &'a Options,
    pub(super) stages: &'a Stages<'a>,
    source: &'a mut dyn Images,
    images: Vec<Image>,
    image_places: HashMap<(String, String), usize>,
    pub(super) steps: Vec<Step>,
    done: HashMap<usize, State>,
    /// Stages that wait for others: meeting one again is a circle.
    open: Vec<usize>,
    /// Every build argument that some instruction declared.
    pub(super) declared: HashSet<String>,
    pub(super) linter: &'a Linter,
    /// ARGs of stages that took their value from before the first FROM.
    pub(super) inherited: BTreeSet<String>,
    pub(super) outline: Outline,
}

impl Planner<'_> {
    /// Plans a stage, once; `asked` is the place that needs it.
    pub(super) fn stage(&mut self, index: usize, asked: &Span) -> Result<State> {
        if let Some(state) = self.done.get(&index) {
            return Ok(state.clone());
        }
        if self.open.contains(&index) {
            return Err(Problem::new(
                "stages depend on each other in a circle",
                asked.clone(),
                "leads back to this stage",
            )
            .into());
        }
        self.open.push(index);
        let state = evaluate::stage(self, index)?;
        self.open.pop();
        self.done.insert(index, state.clone());
        Ok(state)
    }

    /// The file system that a base name means, with its configuration.
    pub(super) fn image(
        &mut self,
        name: &str,
        platform: &Platform,
        span: &Span,
    ) -> Result<(Tree, Image)> {
        let key = (name.to_owned(), platform.to_string());
        if let Some(&place) = self.image_places.get(&key) {
            return Ok((Tree::Image(place), self.images[place].clone()));
        }
        let image = self.source.image(name, platform).map_err(|error| {
            let title = format!("the image `{name}` cannot be used");
            let near = suggest::nearest(name, self.stages.names());
            Problem::new(title, span.clone(), crate::build::chain(error.as_ref()))
                .help(near.map(|near| format!("did you mean the stage `{near}`?")))
        })?;
        self.images.push(image.clone());
        let place = self.images.len() - 1;
        self.image_places.insert(key, place);
        Ok((Tree::Image(place), image))
    }

    /// What the command line lets a name mean: the very name, or another way to write the same image.
    pub(super) fn named_context(&self, name: &str) -> Option<&NamedContext> {
        let wanted = name.parse::<Reference>().ok().map(|name| name.to_string());
        let means = |(own, _): &&(String, NamedContext)| {
            own.eq_ignore_ascii_case(name)
                || wanted.is_some()
                    && own.parse::<Reference>().ok().map(|own| own.to_string()) == wanted
        };
        let contexts = &self.options.contexts;
        contexts
            .iter()
            .rev()
            .find(means)
            .map(|(_, context)| context)
    }

    /// The files that `--from` means: of a stage, a named context or an image.
    pub(super) fn source(
        &mut self,
        from: &Text,
        own: usize,
        platform: &Platform,
    ) -> Result<Origin> {
        if from.raw.contains('$') {
            let problem = Problem::new(
                "variables are not replaced in `from`",
                from.span.clone(),
                "a variable here",
            );
            return Err(problem
                .help("name a stage with `FROM $image AS name` and copy from that".to_owned())
                .into());
        }
        let name = from.raw.clone();
        match self.stages.referred(&name, own) {
            Some(index) => Ok(Origin::Tree(self.earlier_stage(index, own, from)?)),
            None if name == "scratch" => Ok(Origin::Tree(Tree::Empty)),
            None if is_number(&name) => {
                let title = format!("there is no stage `{name}`");
                let label = format!("the file has {} stages", self.stages.list.len());
                Err(Problem::new(title, from.span.clone(), label).into())
            }
            None => match self.named_context(&name).cloned() {
                Some(NamedContext::Files(place)) => Ok(Origin::Named(place)),
                Some(NamedContext::Image(image)) if image == "scratch" => {
                    Ok(Origin::Tree(Tree::Empty))
                }
                Some(NamedContext::Image(image)) => {
                    Ok(Origin::Tree(self.image(&image, platform, &from.span)?.0))
                }
                None => Ok(Origin::Tree(self.image(&name, platform, &from.span)?.0)),
            },
        }
    }

    /// A stage's files, for a stage that comes after it.
    fn earlier_stage(&mut self, index: usize, own: usize, from: &Text) -> Result<Tree> {
        let state = self.stage(index, &from.span)?;
        if index < own {
            return Ok(state.tree);
        }
        let problem = Problem::new(
            format!("the stage `{}` comes later in the file", from.raw),
            from.span.clone(),
            "not defined before this stage",
        );
        Err(problem.help("move that stage up".to_owned()).into())
    }

    /// Tells of what stands before the first FROM and counts. A stage's own ARG of a name is nearer.
    fn outline_globals(&mut self) {
        let planned = self.done.keys().copied();
        for argument in self.stages.used(&self.inherited, planned, self.escape) {
            let own = &mut self.outline.arguments;
            if !own.iter().any(|known| known.name == argument.name) {
                own.push(argument.clone());
            }
        }
    }

    fn unused_arguments(&self) -> Vec<String> {
        let known = |name: &str| self.declared.contains(name) || is_predefined(name);
        let mut names: Vec<&str> = self
            .options
            .build_args
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !known(name))
            .collect();
        names.dedup();
        names
            .iter()
            .map(|name| {
                format!("the build argument {name} is declared by no ARG that the build uses")
            })
            .collect()
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// Build arguments that need no ARG: proxies, and those that BuildKit gives a meaning of its own.
fn is_predefined(name: &str) -> bool {
    is_proxy(name) || name.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH"
}

/// The proxy variables, which are passed to RUN and appear in no key and no history.
fn is_proxy(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
    ];
    NAMES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

/// The proxies among build arguments, `NAME=value`, each under both its names: programs disagree
/// about which of them counts. Where both were given, the one in small letters does.
pub(super) fn proxies(
    build_args: &[(String, String)],
    is_set: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut given: Vec<&(String, String)> = build_args
        .iter()
        .filter(|(name, value)| is_proxy(name) && !value.is_empty())
        .collect();
    given.sort_by_key(|(name, _)| name);
    let mut proxies = Environment::default();
    for (name, value) in given {
        for name in [name.to_uppercase(), name.to_lowercase()] {
            if !is_set(&name) {
                proxies.set(&name, value);
            }
        }
    }
    proxies.to_strings()
}
