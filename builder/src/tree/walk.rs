//! Walking a tree in the order of names, leaving out what rules exclude.

use super::root::{Meta, Root, TreeError, error};
use crate::pattern::ignore::{Matched, Rules};
use std::path::{Path, PathBuf};

/// Deepest directory that is entered. Archives of two thousand levels exist as tests.
const DEPTH_MAX: usize = 4_096;

/// Something found below the start of a walk.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its path below the start.
    pub relative: PathBuf,
    /// What it is.
    pub meta: Meta,
}

/// What decides whether a path is seen.
pub trait Filter {
    /// Whether something that is no directory is seen.
    fn file(&self, state: &Matched, path: &str) -> bool;
    /// What is known below a directory; `None` when nothing below can be seen.
    fn enter(&self, state: &Matched, path: &str) -> Option<Matched>;
    /// Whether a directory is seen even if nothing in it is.
    fn directory(&self, state: &Matched, path: &str) -> bool;
}

/// What the rules of an ignore file leave.
#[derive(Debug)]
pub struct Excluding<'a>(pub &'a Rules);

impl Filter for Excluding<'_> {
    fn file(&self, state: &Matched, path: &str) -> bool {
        !self.0.excludes_below(state, path)
    }

    fn enter(&self, state: &Matched, path: &str) -> Option<Matched> {
        let seen = self.directory(state, path) || self.0.may_reinclude_below(path);
        seen.then(|| self.0.enter(state, path))
    }

    fn directory(&self, state: &Matched, path: &str) -> bool {
        !self.0.excludes_below(state, path)
    }
}

/// Lists what is below `start` in `root`, parents before children, names in byte order.
///
/// `prefix` stands before each path when `filter` is asked: rules are rooted elsewhere than the walk.
///
/// # Errors
/// A directory that cannot be read, or one deeper than any real tree.
pub fn walk(
    root: &Root,
    start: &Path,
    prefix: &str,
    filter: &dyn Filter,
) -> Result<Vec<Found>, TreeError> {
    let mut found = Vec::new();
    // The rules may already match the start's own parents.
    let mut state = Matched::default();
    for (at, _) in prefix
        .match_indices('/')
        .chain([(prefix.len(), "")])
        .filter(|(at, _)| *at > 0)
    {
        state = filter.enter(&state, &prefix[..at]).unwrap_or_default();
    }
    let mut walker = Walker {
        root,
        start,
        filter,
        found: &mut found,
    };
    walker.directory(Path::new(""), prefix, &state, 0)?;
    Ok(found)
}

struct Walker<'a> {
    root: &'a Root,
    start: &'a Path,
    filter: &'a dyn Filter,
    found: &'a mut Vec<Found>,
}

impl Walker<'_> {
    fn directory(
        &mut self,
        relative: &Path,
        shown: &str,
        state: &Matched,
        depth: usize,
    ) -> Result<(), TreeError> {
        let path = self.start.join(relative);
        if depth > DEPTH_MAX {
            return Err(error("enter", &path, rustix::io::Errno::NAMETOOLONG));
        }
        for (name, meta) in self.root.list(&path)?.iter() {
            let (child, meta) = (relative.join(name), *meta);
            let shown = if shown.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{shown}/{}", name.to_string_lossy())
            };
            if !meta.is_directory() {
                if self.filter.file(state, &shown) {
                    self.found.push(Found {
                        relative: child,
                        meta,
                    });
                }
                continue;
            }
            let Some(below) = self.filter.enter(state, &shown) else {
                continue;
            };
            let own = self.filter.directory(state, &shown);
            let before = self.found.len();
            self.found.push(Found {
                relative: child.clone(),
                meta,
            });
            self.directory(&child, &shown, &below, depth + 1)?;
            if !own && self.found.len() == before + 1 {
                self.found.pop();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_sorted_and_filtered() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/x.go", "b/y.js", "a", "c/d/e", "skip/z.go"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let list = |start: &str, prefix: &str, rules: &str| -> Vec<String> {
            let rules = Rules::parse(rules).unwrap();
            let found = walk(&root, Path::new(start), prefix, &Excluding(&rules)).unwrap();
            found
                .iter()
                .map(|found| found.relative.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(
            list("", "", "skip"),
            ["a", "b", "b/x.go", "b/y.js", "c", "c/d", "c/d/e"]
        );
        assert_eq!(list("", "", "*\n!b/*.go"), ["b", "b/x.go"]);
        assert_eq!(list("b", "b", "b/y.js"), ["x.go"]);
        assert_eq!(list("b", "b", "b\n!b/y.js"), ["y.js"]);
    }
}
