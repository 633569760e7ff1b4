//! Walking a tree in the order of names, leaving out what rules exclude.

use super::root::{Meta, Root, TreeError, error};
use super::{Listing, ahead};
use crate::pattern::ignore::{Matched, Rules};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
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
pub trait Filter: Sync {
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

/// What a walk found, kept as places in the listings of its directories: some eight bytes each.
#[derive(Debug, Default)]
pub struct Walked {
    /// The directories that were entered, by their paths below the start.
    directories: Vec<(PathBuf, Listing)>,
    /// A directory of these, and a position in its listing.
    found: Vec<(u32, u32)>,
}

impl Walked {
    /// How much was found.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found at that position, which must be below [`Walked::len`]: its directory's
    /// path below the start, its name, and what it is.
    pub fn get(&self, index: usize) -> (&Path, &OsStr, Meta) {
        let (directory, place) = self.found[index];
        let (path, listing) = &self.directories[directory as usize];
        let (name, meta) = listing.get(place as usize);
        (path, name, meta)
    }

    /// Leaves out what `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Meta) -> bool) {
        let directories = &self.directories;
        self.found.retain(|(directory, place)| {
            let (_, listing) = &directories[*directory as usize];
            keep(&listing.get(*place as usize).1)
        });
    }

    /// The position after all that is below the directory at `index`.
    pub fn end_of(&self, index: usize) -> usize {
        let (path, name, _) = self.get(index);
        let path = path.join(name);
        let (mut asked, mut is_below) = (u32::MAX, false);
        let rest = self.found[index + 1..].iter();
        let below = rest.take_while(|(directory, _)| {
            if *directory != asked {
                asked = *directory;
                is_below = self.directories[asked as usize].0.starts_with(&path);
            }
            is_below
        });
        index + 1 + below.count()
    }

    /// Everything that was found, with paths of their own.
    pub fn into_found(self) -> Vec<Found> {
        let found = |index| {
            let (directory, name, meta) = self.get(index);
            Found {
                relative: directory.join(name),
                meta,
            }
        };
        (0..self.len()).map(found).collect()
    }

    /// What a walk would have found, as tests need it.
    #[cfg(test)]
    pub(crate) fn of<'a>(found: impl IntoIterator<Item = (&'a Path, Meta)>) -> Self {
        let mut walked = Self {
            directories: Vec::new(),
            found: Vec::new(),
        };
        for (path, meta) in found {
            let listing = Listing::of_one(path.file_name().unwrap(), meta);
            let number = u32::try_from(walked.directories.len()).unwrap();
            let directory = path.parent().unwrap().to_owned();
            walked.directories.push((directory, listing));
            walked.found.push((number, 0));
        }
        walked
    }
}

/// A path that is written over and over again in one piece of memory.
#[derive(Debug, Default)]
pub struct PathBuffer(Vec<u8>);

impl PathBuffer {
    /// Becomes these paths, joined; empty ones are left out.
    pub fn join(&mut self, parts: [&Path; 3]) -> &Path {
        self.0.clear();
        for part in parts.map(|part| part.as_os_str().as_bytes()) {
            if !self.0.is_empty() && !part.is_empty() {
                self.0.push(b'/');
            }
            self.0.extend(part);
        }
        Path::new(OsStr::from_bytes(&self.0))
    }
}

/// Lists what is below `start` in `root`, parents before children, names in byte order.
///
/// # Errors
/// As [`survey`].
pub fn walk(
    root: &Root,
    start: &Path,
    prefix: &str,
    filter: &dyn Filter,
) -> Result<Vec<Found>, TreeError> {
    Ok(survey(root, start, prefix, filter)?.into_found())
}

/// Finds what is below `start` in `root`, parents before children, names in byte order.
///
/// `prefix` stands before each path when `filter` is asked: rules are rooted elsewhere than the walk.
///
/// # Errors
/// A directory that cannot be read, or one deeper than any real tree.
pub fn survey(
    root: &Root,
    start: &Path,
    prefix: &str,
    filter: &dyn Filter,
) -> Result<Walked, TreeError> {
    // The rules may already match the start's own parents.
    let mut state = Matched::default();
    for (at, _) in prefix
        .match_indices('/')
        .chain([(prefix.len(), "")])
        .filter(|(at, _)| *at > 0)
    {
        state = filter.enter(&state, &prefix[..at]).unwrap_or_default();
    }
    let listings = ahead::list(root, start, prefix, &state, filter)?;
    let mut walker = Walker {
        root,
        start,
        filter,
        listings,
        shown: prefix.to_owned(),
        walked: Walked {
            directories: Vec::new(),
            found: Vec::new(),
        },
    };
    walker.directory(PathBuf::new(), &state, 0)?;
    Ok(walker.walked)
}

struct Walker<'a> {
    root: &'a Root,
    start: &'a Path,
    filter: &'a dyn Filter,
    /// What was listed ahead.
    listings: HashMap<PathBuf, Listing>,
    /// The directory that is walked, as the filter is asked about it.
    shown: String,
    walked: Walked,
}

impl Walker<'_> {
    fn directory(
        &mut self,
        relative: PathBuf,
        state: &Matched,
        depth: usize,
    ) -> Result<(), TreeError> {
        let path = self.start.join(&relative);
        let too_many = || error("list", &path, rustix::io::Errno::OVERFLOW);
        if depth > DEPTH_MAX {
            return Err(error("enter", &path, rustix::io::Errno::NAMETOOLONG));
        }
        let listing = match self.listings.remove(&relative) {
            Some(listing) => listing,
            None => self.root.list(&path)?,
        };
        let number = self.walked.directories.len();
        self.walked.directories.push((relative, listing.clone()));
        let number = u32::try_from(number).map_err(|_| too_many())?;
        let above = self.shown.len();
        for (place, (name, meta)) in (0..).zip(listing.iter()) {
            self.shown.truncate(above);
            if above > 0 {
                self.shown.push('/');
            }
            self.shown.push_str(&name.to_string_lossy());
            if !meta.is_directory() {
                if self.filter.file(state, &self.shown) {
                    self.walked.found.push((number, place));
                }
                continue;
            }
            let Some(below) = self.filter.enter(state, &self.shown) else {
                continue;
            };
            let own = self.filter.directory(state, &self.shown);
            let before = self.walked.found.len();
            self.walked.found.push((number, place));
            let child = self.walked.directories[number as usize].0.join(name);
            self.directory(child, &below, depth + 1)?;
            if !own && self.walked.found.len() == before + 1 {
                self.walked.found.pop();
            }
        }
        self.shown.truncate(above);
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
