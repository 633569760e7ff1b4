//! Where copied files end up: BuildKit's rules for destinations.
//!
//! - A destination that ends in `/`, or is a directory already, takes files under their own names.
//! - A directory's content is copied, not the directory.
//! - Symbolic links in the destination are followed within the tree below.
//! - Directories that are missing are made, 0755, owned by `--chown` or root. Those that are there stay as they are.

use super::CopyError;
use super::select::{Group, Item};
use crate::modes::ModeChange;
use crate::tree::owner::Owner;
use crate::tree::{Kind, Meta, Root, Time, TreeError, resolve_with};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Permissions of directories and inline files that nothing else decides.
const DIRECTORY_MODE: u32 = 0o755;
const INLINE_MODE: u32 = 0o644;

/// The members of a layer by path, parents before children.
pub type Entries = BTreeMap<PathBuf, Entry>;

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
    /// An archive to unpack here.
    Archive(PathBuf),
}

/// Collects entries, knowing what is below and what was placed before.
#[derive(Debug)]
pub struct Placing<'a> {
    below: Option<&'a Root>,
    owner: Option<Owner>,
    keep_owner: bool,
    mode: Option<&'a ModeChange>,
    now: Time,
    entries: Entries,
    /// Names of files with several, for hard links.
    linked: HashMap<(u64, u64), PathBuf>,
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
            owner,
            keep_owner,
            mode,
            now,
            entries: Entries::new(),
            linked: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// What was placed, with the directories above it as they are below: a layer that names
    /// all its directories needs no other layer to be understood.
    ///
    /// # Errors
    /// The tree below cannot be looked at.
    pub fn finish(self) -> Result<Entries, TreeError> {
        let Some(below) = self.below else {
            return Ok(self.entries);
        };
        let mut entries = self.entries;
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
                entries.insert(
                    path,
                    Entry {
                        content: Content::Existing,
                        mode: meta.mode,
                        owner,
                        mtime: meta.mtime,
                    },
                );
            }
        }
        Ok(entries)
    }

    /// Places a directory and its missing parents.
    ///
    /// # Errors
    /// Something else stands in the way.
    pub fn make_directories(&mut self, path: &Path) -> Result<PathBuf, CopyError> {
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
                    let owner = self.owner.unwrap_or_default();
                    let entry = Entry {
                        content: Content::Directory(None),
                        mode: DIRECTORY_MODE,
                        owner,
                        mtime: self.now,
                    };
                    self.entries.insert(at.clone(), entry);
                }
            }
        }
        Ok(path)
    }

    /// Places what was selected. `archive` says which files are archives to unpack.
    ///
    /// # Errors
    /// A file and a directory in each other's way, or several files at one place.
    pub fn place(
        &mut self,
        groups: &[Group],
        destination: &str,
        archive: &dyn Fn(&Item) -> Result<bool, CopyError>,
    ) -> Result<(), CopyError> {
        let mut plain_target = None;
        for group in groups {
            let single = match group {
                Group::Directory(_, items) => {
                    let target = self.make_directories(Path::new(destination))?;
                    self.items(&target, items)?;
                    None
                }
                Group::File(_, item) if archive(item)? => {
                    let target = self.make_directories(Path::new(destination))?;
                    let place = target.join(format!(".archive-{}", self.entries.len()));
                    self.entries.insert(
                        place,
                        self.entry(Content::Archive(item.source.clone()), &item.meta),
                    );
                    None
                }
                Group::File(name, item) => {
                    let (target, single) = self.file_target(destination, Path::new(name))?;
                    self.item(target.clone(), item)?;
                    single.then_some(target)
                }
                Group::Inline(name, text) => {
                    let (target, single) = self.file_target(
                        destination,
                        Path::new(name.rsplit('/').next().unwrap_or(name)),
                    )?;
                    self.inline(target.clone(), text)?;
                    single.then_some(target)
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

    /// The final path of a file, and whether the destination itself is that path.
    fn file_target(
        &mut self,
        destination: &str,
        name: &Path,
    ) -> Result<(PathBuf, bool), CopyError> {
        if destination.ends_with('/') {
            return Ok((
                self.make_directories(Path::new(destination))?.join(name),
                false,
            ));
        }
        let path = self.resolve(Path::new(destination))?;
        if self.kind(&path)? == Some(Kind::Directory) {
            return Ok((path.join(name), false));
        }
        if let Some(parent) = path.parent() {
            self.make_directories(parent)?;
        }
        Ok((path, true))
    }

    fn items(&mut self, target: &Path, items: &[Item]) -> Result<(), CopyError> {
        items
            .iter()
            .try_for_each(|item| self.item(target.join(&item.relative), item))
    }

    fn item(&mut self, path: PathBuf, item: &Item) -> Result<(), CopyError> {
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
        let content = self.content(&path, item);
        let entry = self.entry(content, &item.meta);
        self.entries.insert(path, entry);
        Ok(())
    }

    fn content(&mut self, path: &Path, item: &Item) -> Content {
        let source = item.source.clone();
        match item.meta.kind {
            Kind::Directory => Content::Directory(Some(source)),
            Kind::Symlink => Content::Symlink(source),
            Kind::Fifo | Kind::Socket => Content::Fifo,
            Kind::Block(major, minor) => Content::Device(true, major, minor),
            Kind::Character(major, minor) => Content::Device(false, major, minor),
            Kind::File if item.meta.links > 1 => match self.linked.get(&item.meta.id) {
                // A link must come after its target, and members are written in the order of their paths.
                Some(first) if first.as_path() < path && self.entries.contains_key(first) => {
                    Content::HardLink(first.clone())
                }
                _ => {
                    self.linked.insert(item.meta.id, path.to_owned());
                    Content::File(source)
                }
            },
            Kind::File => Content::File(source),
        }
    }

    fn entry(&self, content: Content, meta: &Meta) -> Entry {
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
            content,
            mode,
            owner: self.owner.unwrap_or(kept),
            mtime: meta.mtime,
        }
    }

    fn inline(&mut self, path: PathBuf, text: &str) -> Result<(), CopyError> {
        if self.kind(&path)? == Some(Kind::Directory) {
            return Err(CopyError::Replace {
                what: "the directory",
                path,
                by: "a file",
            });
        }
        let mode = self
            .mode
            .map_or(INLINE_MODE, |change| change.apply(INLINE_MODE, false));
        let entry = Entry {
            content: Content::Inline(text.to_owned()),
            mode,
            owner: self.owner.unwrap_or_default(),
            mtime: self.now,
        };
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

impl Entry {
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
