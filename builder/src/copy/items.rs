//! What was selected to be copied.

use crate::context::Files;
use crate::tree::Meta;
use crate::tree::walk::{PathBuffer, Walked};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What one source, or one match of its pattern, stands for.
#[derive(Debug)]
pub enum Group {
    /// A single file or symbolic link's target, and the name to give it in a directory.
    File(OsString, Single),
    /// A directory: what is below it, and the directory's own permissions.
    Directory(Meta, Items),
    /// Text from the Dockerfile.
    Inline(String, String),
}

/// One file of the origin.
#[derive(Debug, Clone)]
pub struct Single {
    /// Where it is in the origin, free of symbolic links.
    pub source: PathBuf,
    /// What it is.
    pub meta: Meta,
}

/// What is below a directory, parents before children.
///
/// There may be a million items, so they are places in listings and are told one by one.
#[derive(Debug)]
pub struct Items {
    start: PathBuf,
    walked: Walked,
}

/// A file, directory or special file to copy.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Where it is in the origin, free of symbolic links.
    pub source: &'a Path,
    /// Where it goes below the group's target; empty for a single file.
    pub relative: &'a Path,
    /// What it is.
    pub meta: Meta,
}

impl Items {
    /// What a walk found below `start`, a path of the origin.
    pub fn new(start: &Path, walked: Walked) -> Self {
        Self {
            start: start.to_owned(),
            walked,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.walked.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.walked.is_empty()
    }

    /// The position after all that is below the directory at `index`.
    pub fn end_of(&self, index: usize) -> usize {
        self.walked.end_of(index)
    }

    /// Tells the items of these positions, each with its position, until one fails.
    ///
    /// # Errors
    /// What `tell` fails with.
    pub fn each<E>(
        &self,
        range: Range<usize>,
        tell: &mut dyn FnMut(usize, Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut source, mut relative) = (PathBuffer::default(), PathBuffer::default());
        for index in range {
            let (directory, name, meta) = self.walked.get(index);
            let item = Item {
                source: source.join([&self.start, directory, Path::new(name)]),
                relative: relative.join([Path::new(""), directory, Path::new(name)]),
                meta,
            };
            tell(index, item)?;
        }
        Ok(())
    }

    /// Where the item at `index` is in the origin, and what it is.
    fn place(&self, index: usize) -> (PathBuf, Meta) {
        let (directory, name, meta) = self.walked.get(index);
        (self.start.join(directory).join(name), meta)
    }
}

impl Group {
    /// How many items there are.
    pub fn count(&self) -> usize {
        match self {
            Self::File(..) => 1,
            Self::Directory(_, items) => items.len(),
            Self::Inline(..) => 0,
        }
    }

    /// Tells the items, each with its position, until one fails.
    ///
    /// # Errors
    /// What `tell` fails with.
    pub fn each<E>(&self, tell: &mut dyn FnMut(usize, Item<'_>) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::File(_, single) => tell(0, single.item()),
            Self::Directory(_, items) => items.each(0..items.len(), tell),
            Self::Inline(..) => Ok(()),
        }
    }
}

impl Single {
    /// It, as an item of its group.
    pub fn item(&self) -> Item<'_> {
        Item {
            source: &self.source,
            relative: Path::new(""),
            meta: self.meta,
        }
    }
}

/// The items of groups, numbered through.
#[derive(Debug)]
pub struct All<'a> {
    groups: &'a [Group],
    /// The number of each group's first item.
    firsts: Vec<usize>,
}

impl<'a> All<'a> {
    /// Numbers the items of `groups`.
    pub fn of(groups: &'a [Group]) -> Self {
        let mut next = 0;
        let first = |group: &Group| {
            let first = next;
            next += group.count();
            first
        };
        Self {
            groups,
            firsts: groups.iter().map(first).collect(),
        }
    }

    /// The groups, each with the number of its first item.
    pub fn groups(&self) -> impl Iterator<Item = (usize, &'a Group)> {
        self.firsts.iter().copied().zip(self.groups)
    }

    /// Tells all items by their numbers, until one fails.
    ///
    /// # Errors
    /// What `tell` fails with.
    pub fn each<E>(&self, tell: &mut dyn FnMut(usize, Item<'_>) -> Result<(), E>) -> Result<(), E> {
        for (first, group) in self.groups() {
            group.each(&mut |index, item| tell(first + index, item))?;
        }
        Ok(())
    }
}

impl Files for All<'_> {
    fn count(&self) -> usize {
        self.groups.iter().map(Group::count).sum()
    }

    fn each(&self, tell: &mut dyn FnMut(&Meta)) {
        for group in self.groups {
            match group {
                Group::File(_, single) => tell(&single.meta),
                Group::Directory(_, items) => {
                    (0..items.len()).for_each(|index| tell(&items.walked.get(index).2));
                }
                Group::Inline(..) => {}
            }
        }
    }

    fn place(&self, number: usize) -> Option<(PathBuf, Meta)> {
        let after = self.firsts.partition_point(|first| *first <= number);
        let group = after.saturating_sub(1);
        match self.groups.get(group)? {
            Group::File(_, single) => Some((single.source.clone(), single.meta)),
            Group::Directory(_, items) => Some(items.place(number - self.firsts[group])),
            Group::Inline(..) => None,
        }
    }
}
