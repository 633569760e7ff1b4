//! From the target stage backwards to everything it needs.

use super::evaluate::{self, State};
use super::stages::{self, Stages};
use super::{Image, Images, Options, Plan, Step, Tree};
use crate::dockerfile::instruction::Text;
use crate::dockerfile::{Dockerfile, Result, Span};
use crate::report::Problem;
use std::collections::{HashMap, HashSet};

/// Plans a build. Asks `images` for each image that a needed stage names, once a name.
///
/// # Errors
/// What is wrong with the Dockerfile or unsupported, or an image that is not to be had, with its place.
pub fn plan(file: &Dockerfile, options: &Options, images: &mut dyn Images) -> Result<Plan> {
    let stages = stages::split(file, options)?;
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
        declared: stages.declared.iter().cloned().collect(),
    };
    let state = planner.stage(target, &(0..0))?;
    let warnings = planner.unused_arguments();
    Ok(Plan {
        images: planner.images,
        steps: planner.steps,
        tree: state.tree,
        config: state.config,
        warnings,
    })
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) escape: char,
    pub(super) options: &'a Options,
    pub(super) stages: &'a Stages<'a>,
    source: &'a mut dyn Images,
    images: Vec<Image>,
    image_places: HashMap<String, usize>,
    pub(super) steps: Vec<Step>,
    done: HashMap<usize, State>,
    /// Stages that wait for others: meeting one again is a circle.
    open: Vec<usize>,
    /// Every build argument that some instruction declared.
    pub(super) declared: HashSet<String>,
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
    pub(super) fn image(&mut self, name: &str, span: &Span) -> Result<(Tree, Image)> {
        if let Some(&place) = self.image_places.get(name) {
            return Ok((Tree::Image(place), self.images[place].clone()));
        }
        let image = self.source.image(name).map_err(|error| {
            let title = format!("the image `{name}` cannot be used");
            Problem::new(title, span.clone(), crate::build::chain(error.as_ref()))
        })?;
        self.images.push(image.clone());
        let place = self.images.len() - 1;
        self.image_places.insert(name.to_owned(), place);
        Ok((Tree::Image(place), image))
    }

    /// The file system that `--from` means: a stage, or an image.
    pub(super) fn source_tree(&mut self, from: &Text, own: usize) -> Result<Tree> {
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
        match self.stages.referred(&from.raw, own) {
            Some(index) => Ok(self.stage(index, &from.span)?.tree),
            None if from.raw == "scratch" => Ok(Tree::Empty),
            None if is_number(&from.raw) => {
                let title = format!("there is no stage `{}`", from.raw);
                Err(Problem::new(
                    title,
                    from.span.clone(),
                    format!("the file has {} stages", self.stages.list.len()),
                )
                .into())
            }
            None => Ok(self.image(&from.raw, &from.span)?.0),
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
pub(super) fn is_proxy(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
    ];
    NAMES
        .iter()
        .any(|proxy| *proxy == name || proxy.to_lowercase() == name)
}
