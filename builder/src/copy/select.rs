//! Which files a COPY means.

use super::CopyError;
use super::items::{Group, Items, Single};
use crate::dockerfile::suggest;
use crate::pattern::glob::{self, Glob};
use crate::pattern::ignore::{Matched, Rules};
use crate::plan::CopySource;
use crate::tree::walk::{Excluding, Filter, Walked, survey};
use crate::tree::{Kind, Meta, Root, TreeError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A tree that files are copied from.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The tree.
    pub root: &'a Root,
    /// What is not seen of it.
    pub rules: &'a Rules,
    /// The file that the rules stand in.
    pub ignore_file: Option<&'a str>,
    /// What it is, for messages.
    pub name: &'static str,
}

/// Finds what `sources` mean in `origin`, leaving out `exclude`.
///
/// # Errors
/// A source that is not there; a pattern without matches is none of these.
pub fn select(
    origin: &Origin<'_>,
    sources: &[CopySource],
    exclude: &Rules,
) -> Result<Vec<Group>, CopyError> {
    let mut groups = Vec::new();
    for source in sources {
        match source {
            CopySource::Inline { name, content } => {
                groups.push(Group::Inline(name.clone(), content.clone()))
            }
            CopySource::Path {
                path,
                keep: Some(pattern),
            } => groups.extend(keeping_parents(origin, path, pattern, exclude)?),
            CopySource::Path { path, keep: None } => {
                let matched = glob::has_magic(path);
                for path in matches(origin, path)? {
                    groups.extend(group(origin, &path, matched, exclude)?);
                }
            }
            // Fetched, they are groups already.
            CopySource::Http(_) | CopySource::Git(_) => {}
        }
    }
    Ok(groups)
}

/// What a resolved source stands for; `None` when `--exclude` names it. A directory is there all the
/// same, with nothing in it; unless it is the match of a pattern, only what is in it can be excluded.
fn group(
    origin: &Origin<'_>,
    path: &Path,
    matched: bool,
    exclude: &Rules,
) -> Result<Option<Group>, CopyError> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let excluded = !name.is_empty() && exclude.excludes(&name.to_string_lossy());
    let resolved = origin.root.resolve(path)?;
    let meta = origin
        .root
        .meta(&resolved)?
        .filter(|meta| origin.sees(&resolved, meta))
        .ok_or_else(|| missing(origin, path))?;
    if !meta.is_directory() && excluded {
        return Ok(None);
    }
    if excluded && matched {
        return Ok(Some(Group::Directory(
            meta,
            Items::new(&resolved, Walked::default()),
        )));
    }
    if !meta.is_directory() {
        let single = Single {
            source: resolved,
            meta,
        };
        return Ok(Some(Group::File(name, single)));
    }
    let both = Both {
        outer: Excluding(origin.rules),
        inner: Excluding(exclude),
        start: shown(&resolved),
    };
    Ok(Some(Group::Directory(
        meta,
        items(origin, &resolved, &both)?,
    )))
}

fn items(origin: &Origin<'_>, start: &Path, filter: &dyn Filter) -> Result<Items, CopyError> {
    let mut found = survey(origin.root, start, &shown(start), filter)?;
    found.retain(|meta| meta.kind != Kind::Socket);
    Ok(Items::new(start, found))
}

/// `--parents`: what `pattern` matches below `start`, with its directories; below each directory
/// that `start` matches, where that is a pattern itself.
fn keeping_parents(
    origin: &Origin<'_>,
    start: &str,
    pattern: &str,
    exclude: &Rules,
) -> Result<Vec<Group>, CopyError> {
    if !glob::has_magic(start) {
        let group = keeping_parents_below(origin, Path::new(start), pattern, exclude)?;
        return match &group {
            Group::Directory(_, items) if items.is_empty() && !glob::has_magic(pattern) => {
                Err(missing(origin, &Path::new(start).join(pattern)))
            }
            _ => Ok(vec![group]),
        };
    }
    let mut groups = Vec::new();
    for start in matches(origin, start)? {
        let meta = origin.root.meta(&origin.root.resolve(&start)?)?;
        if meta.is_some_and(|meta| meta.is_directory()) {
            groups.push(keeping_parents_below(origin, &start, pattern, exclude)?);
        }
    }
    Ok(groups)
}

fn keeping_parents_below(
    origin: &Origin<'_>,
    start: &Path,
    pattern: &str,
    exclude: &Rules,
) -> Result<Group, CopyError> {
    let start = origin.root.resolve(start)?;
    let meta = origin
        .root
        .meta(&start)?
        .filter(Meta::is_directory)
        .ok_or_else(|| missing(origin, &start))?;
    let wanted = Rules::from_patterns([pattern])?;
    let both = Both {
        outer: Excluding(origin.rules),
        inner: Excluding(exclude),
        start: shown(&start),
    };
    let items = items(
        origin,
        &start,
        &Wanted {
            both,
            pattern: wanted,
        },
    )?;
    Ok(Group::Directory(meta, items))
}

impl Origin<'_> {
    /// Whether the rules leave `path` visible. A directory is, if something below it may be.
    fn sees(&self, path: &Path, meta: &Meta) -> bool {
        let shown = shown(path);
        shown.is_empty()
            || !self.rules.excludes(&shown)
            || meta.is_directory() && self.rules.may_reinclude_below(&shown)
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// The paths that a source with `*`, `?` or `[` stands for, sorted; itself without.
fn matches(origin: &Origin<'_>, pattern: &str) -> Result<Vec<PathBuf>, CopyError> {
    if !glob::has_magic(pattern) {
        return Ok(vec![PathBuf::from(pattern.trim_start_matches('/'))]);
    }
    let bad = |_| CopyError::Pattern {
        pattern: pattern.to_owned(),
    };
    let mut paths = vec![PathBuf::new()];
    for element in pattern.split('/').filter(|element| !element.is_empty()) {
        if !glob::has_magic(element) {
            paths.iter_mut().for_each(|path| path.push(element));
            continue;
        }
        let glob = Glob::parse(element).map_err(bad)?;
        let mut next = Vec::new();
        for path in &paths {
            next.extend(
                children(origin, path)?
                    .into_iter()
                    .filter(|name| glob.matches(&name.to_string_lossy()))
                    .map(|name| path.join(name)),
            );
        }
        paths = next;
    }
    let mut found = Vec::new();
    for path in paths {
        let resolved = origin.root.resolve(&path)?;
        if origin
            .root
            .meta(&resolved)?
            .is_some_and(|meta| origin.sees(&resolved, &meta))
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn children(origin: &Origin<'_>, path: &Path) -> Result<Vec<OsString>, TreeError> {
    let resolved = origin.root.resolve(path)?;
    if !origin
        .root
        .meta(&resolved)?
        .is_some_and(|meta| meta.is_directory())
    {
        return Ok(Vec::new());
    }
    Ok(origin
        .root
        .list(&resolved)?
        .iter()
        .map(|(name, _)| name.to_owned())
        .collect())
}

/// Says why a source is not there: excluded, a link to nowhere, or mistyped.
fn missing(origin: &Origin<'_>, path: &Path) -> CopyError {
    let text = shown(path);
    let excluded = origin.rules.deciding(&text).filter(|rule| !rule.reincludes);
    let hint = match (excluded, origin.ignore_file, origin.root.read_link(path)) {
        (Some(rule), Some(file), _) => {
            format!(" (excluded by {file} line {}: {})", rule.line, rule.text)
        }
        (_, _, Ok(target)) => format!(" (a symbolic link to {target:?}, which is not there)"),
        _ => near(origin, path)
            .map(|name| format!(" (did you mean {name:?}?)"))
            .unwrap_or_default(),
    };
    CopyError::Missing {
        path: text,
        place: origin.name,
        hint,
    }
}

fn near(origin: &Origin<'_>, path: &Path) -> Option<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let names = children(origin, parent).ok()?;
    let names: Vec<String> = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let name = suggest::nearest(
        &path.file_name()?.to_string_lossy(),
        names.iter().map(String::as_str),
    )?;
    Some(parent.join(name).to_string_lossy().into_owned())
}

/// The origin's rules, rooted at the origin, and `--exclude`, rooted at the copied directory.
struct Both<'a> {
    outer: Excluding<'a>,
    inner: Excluding<'a>,
    start: String,
}

impl Both<'_> {
    fn inner<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(&self.start)
            .unwrap_or(path)
            .trim_start_matches('/')
    }

    fn leaves(&self, path: &str) -> bool {
        let inner = self.inner(path);
        inner.is_empty() || !self.inner.0.excludes(inner)
    }
}

impl Filter for Both<'_> {
    fn file(&self, state: &Matched, path: &str) -> bool {
        self.outer.file(state, path) && self.leaves(path)
    }

    fn enter(&self, state: &Matched, path: &str) -> Option<Matched> {
        let below = self.leaves(path) || self.inner.0.may_reinclude_below(self.inner(path));
        below.then(|| self.outer.enter(state, path)).flatten()
    }

    fn directory(&self, state: &Matched, path: &str) -> bool {
        self.outer.directory(state, path) && self.leaves(path)
    }
}

/// Only what a pattern matches, or what is below something it matches.
struct Wanted<'a> {
    both: Both<'a>,
    pattern: Rules,
}

impl Wanted<'_> {
    fn wants(&self, path: &str) -> bool {
        self.pattern.deciding(self.both.inner(path)).is_some()
    }
}

impl Filter for Wanted<'_> {
    fn file(&self, state: &Matched, path: &str) -> bool {
        self.wants(path) && self.both.file(state, path)
    }

    fn enter(&self, state: &Matched, path: &str) -> Option<Matched> {
        self.both.enter(state, path)
    }

    fn directory(&self, state: &Matched, path: &str) -> bool {
        self.wants(path) && self.both.directory(state, path)
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
