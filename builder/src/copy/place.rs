//! Where copied files end up: BuildKit's rules for destinations.
//!
//! - A destination that ends in `/`, or is a directory already, takes files under their own names.
//! - A directory's content is copied, not the directory.
//! - Symbolic links in the destination are followed within the tree below.
//! - Directories that are missing are made, owned by `--chown` or root: 0755, or what an octal `--chmod` says
//!   where they only lead to the destination. Those that are there stay as they are.

use super::CopyError;
use super::items::{All, Group, Item, Items, Single};
use crate::modes::ModeChange;
use crate::tree::owner::Owner;
use crate::tree::walk::PathBuffer;
use crate::tree::{Kind, Meta, Root, Time, TreeError, resolve_with};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Permissions of directories and inline files that nothing else decides.
const DIRECTORY_MODE: u32 = 0o755;
const INLINE_MODE: u32 = 0o644;

type Entries = BTreeMap<PathBuf, Entry>;

/// One member of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: Owner,
    /// Last change; the layer's writer clamps it.
    pub mtime: Time,
    /// The number of the item that it is made of.
    pub item: Option<usize>,
    /// Of a file with several names, what its other names have too.
    links: Option<(u64, u64)>,
    /// Of a directory that is new, the items of the last group that are all that is in it.
    below: Range<usize>,
}

/// The members of a layer.
#[derive(Debug)]
pub struct Placed<'a> {
    entries: Entries,
    last: Option<Last<'a>>,
    look: Look<'a>,
}

/// What decides about owners and permissions.
#[derive(Debug, Clone, Copy)]
struct Look<'a> {
    owner: Option<Owner>,
    keep_owner: bool,
    mode: Option<&'a ModeChange>,
}

/// The last group, where it is a directory: where it goes, and the number of its first item.
///
/// Nothing is placed after it, so that what is in its new directories need not be placed one by
/// one: it is where it is in the group.
#[derive(Debug)]
struct Last<'a> {
    items: &'a Items,
    first: usize,
    target: PathBuf,
}

/// What a member consists of. Sources are paths in the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory, and where its extended attributes come from.
    Directory(Option<PathBuf>),
    /// A directory that is below already: written so that the layer stands for itself.
    Existing,
    /// A file.
    File(PathBuf),
    /// Text of the Dockerfile.
    Inline(String),
    /// A symbolic link: the link to copy.
    Symlink(PathBuf),
    /// Another name for an earlier member.
    HardLink(PathBuf),
    /// A named pipe.
    Fifo,
    /// A device: whether block, major, minor.
    Device(bool, u32, u32),
    /// An archive to unpack here, and whose all of it shall be, if not its members' owners'.
    Archive(PathBuf, Option<Owner>),
}

/// Collects entries, knowing what is below and what was placed before.
#[derive(Debug)]
pub struct Placing<'a> {
    below: Option<&'a Root>,
    look: Look<'a>,
    now: Time,
    entries: Entries,
    last: Option<Last<'a>>,
    /// Directories looked up below.
    known: HashMap<PathBuf, bool>,
}

impl<'a> Placing<'a> {
    /// Starts a layer above `below`. `keep_owner` leaves owners as the origin has them, unless `owner` says otherwise.
    pub fn new(
        below: Option<&'a Root>,
        owner: Option<Owner>,
        keep_owner: bool,
        mode: Option<&'a ModeChange>,
        now: Time,
    ) -> Self {
        Self {
            below,
            look: Look {
                owner,
                keep_owner,
                mode,
            },
            now,
            entries: Entries::new(),
            last: None,
            known: HashMap::new(),
        }
    }

    /// What was placed, with the directories above it as they are below: a layer that names
    /// all its directories needs no other layer to be understood.
    ///
    /// # Errors
    /// The tree below cannot be looked at.
    pub fn finish(mut self) -> Result<Placed<'a>, TreeError> {
        if let Some(below) = self.below {
            self.name_parents(below)?;
        }
        Ok(Placed {
            entries: self.entries,
            last: self.last,
            look: self.look,
        })
    }

    fn name_parents(&mut self, below: &Root) -> Result<(), TreeError> {
        let entries = &mut self.entries;
        let parents: BTreeSet<PathBuf> = entries
            .keys()
            .filter_map(|path| path.parent())
            .flat_map(Path::ancestors)
            .map(Path::to_owned)
            .collect();
        for path in parents {
            if path.as_os_str().is_empty() || entries.contains_key(&path) {
                continue;
            }
            if let Some(meta) = below.meta(&path)?.filter(Meta::is_directory) {
                let owner = Owner {
                    uid: meta.uid,
                    gid: meta.gid,
                };
                let entry = Entry::new(Content::Existing, meta.mode, owner, meta.mtime);
                entries.insert(path, entry);
            }
        }
        Ok(())
    }

    /// Places a directory and its missing parents.
    ///
    /// # Errors
    /// Something else stands in the way.
    pub fn make_directories(&mut self, path: &Path) -> Result<PathBuf, CopyError> {
        self.make(path, DIRECTORY_MODE)
    }

    /// Places the directory that a directory's content goes to.
    fn content_target(&mut self, destination: &str) -> Result<PathBuf, CopyError> {
        let end = destination.rfind('/').unwrap_or(0);
        self.make_leading(Path::new(&destination[..end]))?;
        match destination.ends_with('/') {
            true => self
                .resolve(Path::new(destination))
                .map_err(CopyError::from),
            false => self.make_directories(Path::new(destination)),
        }
    }

    /// Places the directories that lead to a destination.
    fn make_leading(&mut self, path: &Path) -> Result<PathBuf, CopyError> {
        let mode = match self.look.mode {
            Some(ModeChange::Octal(bits)) => bits & 0o777,
            Some(ModeChange::Symbolic(_)) | None => DIRECTORY_MODE,
        };
        self.make(path, mode)
    }

    fn make(&mut self, path: &Path, mode: u32) -> Result<PathBuf, CopyError> {
        let path = self.resolve(path)?;
        let mut at = PathBuf::new();
        for element in &path {
            at.push(element);
            match self.kind(&at)? {
                Some(Kind::Directory) => {}
                Some(_) => {
                    return Err(CopyError::Replace {
                        what: "the file",
                        path: at,
                        by: "a directory",
                    });
                }
                None => {
                    let owner = self.look.owner.unwrap_or_default();
                    let content = Content::Directory(None);
                    let entry = Entry::new(content, mode, owner, self.now);
                    self.entries.insert(at.clone(), entry);
                }
            }
        }
        Ok(path)
    }

    /// Places what was selected; nothing else can be placed after it. `archive` says which files
    /// are archives to unpack.
    ///
    /// # Errors
    /// A file and a directory in each other's way, or several files at one place.
    pub fn place(
        &mut self,
        groups: &'a [Group],
        destination: &str,
        archive: &dyn Fn(&Single) -> Result<bool, CopyError>,
    ) -> Result<(), CopyError> {
        let mut plain_target = None;
        let all = All::of(groups);
        for (number, (first, group)) in all.groups().enumerate() {
            let single = match group {
                Group::Directory(_, items) => {
                    let target = self.content_target(destination)?;
                    if number + 1 == groups.len() {
                        self.last_items(target, items, first)?;
                    } else {
                        let place = &mut |index, item: Item<'_>| {
                            self.item(target.join(item.relative), &item, first + index)
                        };
                        items.each(0..items.len(), place)?;
                    }
                    None
                }
                Group::File(_, single) if archive(single)? => {
                    let target = self.make_directories(Path::new(destination))?;
                    let place = target.join(format!(".archive-{}", self.entries.len()));
                    let content = Content::Archive(single.source.clone(), self.look.owner);
                    let entry = self.look.entry(content, &single.meta, first);
                    self.entries.insert(place, entry);
                    None
                }
                Group::File(name, single) => {
                    let (target, is_plain) = self.file_target(destination, Path::new(name))?;
                    self.item(target.clone(), &single.item(), first)?;
                    is_plain.then_some(target)
                }
                Group::Inline(name, text) => {
                    let (target, is_plain) = self.file_target(
                        destination,
                        Path::new(name.rsplit('/').next().unwrap_or(name)),
                    )?;
                    self.inline(target.clone(), text)?;
                    is_plain.then_some(target)
                }
            };
            if let Some(target) = single
                && plain_target.replace(target.clone()).is_some()
            {
                return Err(CopyError::SeveralToOne {
                    path: Path::new("/").join(target),
                });
            }
        }
        Ok(())
    }

    /// Places the items of the last group, but for what is in directories that are new.
    fn last_items(
        &mut self,
        target: PathBuf,
        items: &'a Items,
        first: usize,
    ) -> Result<(), CopyError> {
        let mut next = 0;
        if let Some(entry) = self.new_directory(&target) {
            (entry.below, next) = (0..items.len(), items.len());
        }
        while next < items.len() {
            let (mut path, mut is_new) = (PathBuf::new(), false);
            items.each(next..next + 1, &mut |index, item| {
                path = target.join(item.relative);
                is_new = item.meta.is_directory() && self.kind(&path)?.is_none();
                self.item(path.clone(), &item, first + index)
            })?;
            next = match self.new_directory(&path).filter(|_| is_new) {
                Some(entry) => {
                    entry.below = next + 1..items.end_of(next);
                    entry.below.end
                }
                None => next + 1,
            };
        }
        self.last = Some(Last {
            items,
            first,
            target,
        });
        Ok(())
    }

    /// The entry of a directory that is in this layer, and neither below it nor holds anything.
    fn new_directory(&mut self, path: &Path) -> Option<&mut Entry> {
        let is_below = self
            .below
            .is_some_and(|below| !matches!(below.meta(path), Ok(None)));
        let mut from = self.entries.range_mut(path.to_owned()..);
        let (found, entry) = from.next().filter(|_| !is_below)?;
        let is_empty = from
            .next()
            .is_none_or(|(after, _)| !after.starts_with(path));
        (found == path && entry.kind() == Kind::Directory && is_empty).then_some(entry)
    }

    /// The final path of a file, and whether the destination itself is that path.
    fn file_target(
        &mut self,
        destination: &str,
        name: &Path,
    ) -> Result<(PathBuf, bool), CopyError> {
        if destination.ends_with('/') {
            return Ok((self.make_leading(Path::new(destination))?.join(name), false));
        }
        let path = self.resolve(Path::new(destination))?;
        if self.kind(&path)? == Some(Kind::Directory) {
            return Ok((path.join(name), false));
        }
        if let Some(parent) = path.parent() {
            self.make_leading(parent)?;
        }
        Ok((path, true))
    }

    fn item(&mut self, path: PathBuf, item: &Item<'_>, number: usize) -> Result<(), CopyError> {
        let directory = item.meta.is_directory();
        match self.kind(&path)? {
            Some(Kind::Directory) if !directory => {
                return Err(CopyError::Replace {
                    what: "the directory",
                    path,
                    by: "a file",
                });
            }
            Some(kind) if directory && kind != Kind::Directory => {
                return Err(CopyError::Replace {
                    what: "the file",
                    path,
                    by: "a directory",
                });
            }
            _ => {}
        }
        let entry = self.look.item(item, number);
        self.entries.insert(path, entry);
        Ok(())
    }

    fn inline(&mut self, path: PathBuf, text: &str) -> Result<(), CopyError> {
        if self.kind(&path)? == Some(Kind::Directory) {
            return Err(CopyError::Replace {
                what: "the directory",
                path,
                by: "a file",
            });
        }
        let change = self.look.mode;
        let mode = change.map_or(INLINE_MODE, |change| change.apply(INLINE_MODE, false));
        let owner = self.look.owner.unwrap_or_default();
        let entry = Entry::new(Content::Inline(text.to_owned()), mode, owner, self.now);
        self.entries.insert(path, entry);
        Ok(())
    }

    /// What is at a path, symbolic links themselves included.
    fn kind(&mut self, path: &Path) -> Result<Option<Kind>, TreeError> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Kind::Directory));
        }
        if let Some(entry) = self.entries.get(path) {
            return Ok(Some(entry.kind()));
        }
        let Some(below) = self.below else {
            return Ok(None);
        };
        if !self.directory_below(below, path.parent().unwrap_or(Path::new("")))? {
            return Ok(None);
        }
        Ok(below.meta(path)?.map(|meta| meta.kind))
    }

    /// Whether the tree below has a directory: asked once each, because most files' directories are new.
    fn directory_below(&mut self, below: &Root, path: &Path) -> Result<bool, TreeError> {
        if path.as_os_str().is_empty() {
            return Ok(true);
        }
        if let Some(known) = self.known.get(path) {
            return Ok(*known);
        }
        let found = below.meta(path)?.is_some_and(|meta| meta.is_directory());
        self.known.insert(path.to_owned(), found);
        Ok(found)
    }

    /// Follows symbolic links, those placed by this layer too.
    fn resolve(&mut self, path: &Path) -> Result<PathBuf, TreeError> {
        let below = self.below;
        resolve_with(path, |at| match self.kind(at)? {
            Some(Kind::Symlink) if !self.entries.contains_key(at) => {
                below.map(|below| below.read_link(at)).transpose()
            }
            _ => Ok(None),
        })
    }
}

impl Look<'_> {
    /// The entry that an item becomes.
    fn item(&self, item: &Item<'_>, number: usize) -> Entry {
        let source = item.source.to_owned();
        let content = match item.meta.kind {
            Kind::Directory => Content::Directory(Some(source)),
            Kind::Symlink => Content::Symlink(source),
            Kind::Fifo | Kind::Socket => Content::Fifo,
            Kind::Block(major, minor) => Content::Device(true, major, minor),
            Kind::Character(major, minor) => Content::Device(false, major, minor),
            Kind::File => Content::File(source),
        };
        let has_links = item.meta.kind == Kind::File && item.meta.links > 1;
        Entry {
            links: has_links.then_some(item.meta.id),
            ..self.entry(content, &item.meta, number)
        }
    }

    fn entry(&self, content: Content, meta: &Meta, number: usize) -> Entry {
        let kept = if self.keep_owner {
            Owner {
                uid: meta.uid,
                gid: meta.gid,
            }
        } else {
            Owner::default()
        };
        let mode = match self.mode {
            Some(change) if meta.kind != Kind::Symlink => {
                change.apply(meta.mode, meta.is_directory())
            }
            _ => meta.mode,
        };
        Entry {
            item: Some(number),
            ..Entry::new(content, mode, self.owner.unwrap_or(kept), meta.mtime)
        }
    }
}

impl Placed<'_> {
    /// Tells the members by their paths, parents before children, until one fails. The first name
    /// of a file that has several is the file, the others are links to it.
    ///
    /// # Errors
    /// What `tell` fails with.
    pub fn each<E>(&self, tell: &mut dyn FnMut(&Path, &Entry) -> Result<(), E>) -> Result<(), E> {
        let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
        let mut tell = |path: &Path, entry: &Entry| match entry.links {
            None => tell(path, entry),
            Some(id) => match names.get(&id) {
                Some(first) => {
                    let content = Content::HardLink(first.clone());
                    tell(path, &entry.with(content))
                }
                None => {
                    names.insert(id, path.to_owned());
                    tell(path, entry)
                }
            },
        };
        for (path, entry) in &self.entries {
            tell(path, entry)?;
            if let Some(last) = &self.last {
                let mut below = PathBuffer::default();
                last.items.each(entry.below.clone(), &mut |index, item| {
                    let path = below.join([&last.target, item.relative, Path::new("")]);
                    tell(path, &self.look.item(&item, last.first + index))
                })?;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn new(content: Content, mode: u32, owner: Owner, mtime: Time) -> Self {
        Self {
            content,
            mode,
            owner,
            mtime,
            item: None,
            links: None,
            below: 0..0,
        }
    }

    /// The same with another content.
    fn with(&self, content: Content) -> Self {
        Self {
            content,
            below: 0..0,
            ..*self
        }
    }

    fn kind(&self) -> Kind {
        match self.content {
            Content::Directory(_) | Content::Existing => Kind::Directory,
            Content::Symlink(_) => Kind::Symlink,
            _ => Kind::File,
        }
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
