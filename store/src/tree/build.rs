//! From the members of a tar, in their order, to a tree.

use std::collections::BTreeSet;
use std::collections::HashMap;

use super::budget::{Budget, ENTRIES_MAX};
use super::{Content, DEPTH_MAX, Directory, File, LayerError, Node, NodeId, Tree, shown};
use crate::tar::{Device, Entry, Kind, Reader, Source, Xattrs};

/// Longest name in a directory, in bytes; NAME_MAX.
const NAME_BYTES_MAX: usize = 255;
/// Most symbolic links on the way to one member; the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Longest value of an extended attribute, in bytes. Linux allows one more, which the EROFS index cannot count.
const XATTR_VALUE_BYTES_MAX: usize = 65_535;
/// Longest name of an extended attribute, in bytes; XATTR_NAME_MAX.
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Name spaces of extended attributes that Linux file systems have. What is in no such space
/// (an archive from macOS) cannot exist here and is left out, as other unpackers do.
const XATTR_SPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// The two attributes of the `system.` space that have a meaning on disk.
const XATTR_ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Reads a whole archive as a layer's tree. Also returns the source, where it stands after the end mark.
pub(crate) fn scan<S: Source>(source: S) -> Result<(Tree, S), LayerError> {
    let mut reader = Reader::new(source);
    let mut builder = Builder::default();
    loop {
        let next = reader.next(|| builder.last_file_has_dirty_padding())?;
        match next {
            Some(entry) => builder.add(entry)?,
            None => return Ok((builder.finish(), reader.into_source())),
        }
    }
}

/// A tree being built.
#[derive(Debug)]
pub(crate) struct Builder {
    tree: Tree,
    /// Whiteouts by directory. They only take away what layers below have, wherever in the archive they stand,
    /// so they are settled at the end.
    whiteouts: HashMap<NodeId, BTreeSet<Box<[u8]>>>,
    last_file: Option<NodeId>,
    budget: Budget,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            tree: Tree::new(),
            whiteouts: HashMap::new(),
            last_file: None,
            budget: Budget::default(),
        }
    }
}

impl Builder {
    /// Adds one member. Of several with one name the last wins, as unpacking one after another would have it.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), LayerError> {
        self.budget.charge(&entry)?;
        // A member also makes the directories on its way.
        if self.tree.len() > ENTRIES_MAX {
            return Err(LayerError::TooManyEntries);
        }
        let Entry {
            path,
            mut attributes,
            kind,
        } = entry;
        let bad = |why: &str| LayerError::Member {
            path: shown(&path),
            why: why.to_owned(),
        };
        self.last_file = None;
        keep_linux_xattrs(&mut attributes.xattrs).map_err(|why| bad(&why))?;
        let components = components(&path).map_err(|why| bad(&why))?;
        let Some((name, parents)) = components.split_last() else {
            if kind != Kind::Directory || path.is_empty() {
                return Err(bad("the root can only be a directory"));
            }
            self.describe(NodeId::ROOT, attributes);
            return Ok(());
        };
        let parent = self.directory(parents).map_err(|err| err.at(&path))?;
        if name.starts_with(b".wh.") {
            return self.whiteout(parent, name).map_err(bad);
        }
        let content = match kind {
            Kind::Directory => {
                if let Some(existing) = self.tree.lookup(parent, name)
                    && self.tree.node(existing).directory().is_some()
                {
                    self.describe(existing, attributes);
                    return Ok(());
                }
                Content::Directory(Directory::default())
            }
            Kind::HardLink(target) => {
                return self.hard_link(parent, name, &path, &target, attributes);
            }
            // The kernel's sign for a whiteout must not come from outside (security.md, S25).
            Kind::Device(Device {
                block: false,
                major: 0,
                minor: 0,
            }) => {
                return Err(bad(
                    "a character device 0:0, which overlay file systems take for a deletion",
                ));
            }
            Kind::File(data) => Content::File(File { layer: 0, data }),
            Kind::Symlink(target) => Content::Symlink(target.into()),
            Kind::Device(device) => Content::Device(device),
            Kind::Fifo => Content::Fifo,
        };
        let is_file = matches!(content, Content::File(_));
        let id = self
            .tree
            .add(Node {
                attributes,
                content,
            })
            .ok_or(LayerError::TooManyNodes)?;
        self.tree.link(parent, name, id);
        self.last_file = is_file.then_some(id);
        Ok(())
    }

    /// The bytes after the data of the file added last are not zero.
    pub(crate) fn last_file_has_dirty_padding(&mut self) {
        if let Some(id) = self.last_file
            && let Content::File(file) = &mut self.tree.node_mut(id).content
        {
            file.data.mark_dirty_padding();
        }
    }

    /// The tree, its whiteouts settled.
    pub(crate) fn finish(mut self) -> Tree {
        for (parent, names) in std::mem::take(&mut self.whiteouts) {
            for name in names {
                self.settle_whiteout(parent, &name);
            }
        }
        self.tree
    }

    /// A directory that is deleted and there hides what the one below held; anything else there hides it anyway.
    fn settle_whiteout(&mut self, parent: NodeId, name: &[u8]) {
        match self.tree.lookup(parent, name) {
            Some(id) => {
                if let Some(directory) = self.tree.node_mut(id).directory_mut() {
                    directory.opaque = true;
                }
            }
            None => {
                let node = Node {
                    attributes: crate::tar::Attributes::default(),
                    content: Content::Whiteout,
                };
                if let Some(id) = self.tree.add(node) {
                    self.tree.link(parent, name, id);
                }
            }
        }
    }

    fn describe(&mut self, id: NodeId, attributes: crate::tar::Attributes) {
        let node = self.tree.node_mut(id);
        node.attributes = attributes;
        if let Some(directory) = node.directory_mut() {
            directory.implicit = false;
        }
    }

    /// image-spec, layer.md, "Whiteouts" and "Opaque Whiteout".
    fn whiteout(&mut self, parent: NodeId, name: &[u8]) -> Result<(), &'static str> {
        match &name[b".wh.".len()..] {
            b"" | b"." | b".." => Err("a whiteout of nothing"),
            b".wh..opq" => {
                if let Some(directory) = self.tree.node_mut(parent).directory_mut() {
                    directory.opaque = true;
                }
                Ok(())
            }
            // Bookkeeping of aufs, where whiteouts come from; no file system can hold what it would delete.
            hidden if hidden.starts_with(b".wh.") => Ok(()),
            hidden => {
                self.whiteouts
                    .entry(parent)
                    .or_default()
                    .insert(hidden.into());
                Ok(())
            }
        }
    }

    /// A further name for what is at `target` now; if nothing is, for what a lower layer has there.
    fn hard_link(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        attributes: crate::tar::Attributes,
    ) -> Result<(), LayerError> {
        let bad = |why: &str| LayerError::Member {
            path: shown(path),
            why: why.to_owned(),
        };
        let components =
            components(target).map_err(|why| bad(&format!("its link target: {why}")))?;
        let (last, parents) = components
            .split_last()
            .ok_or_else(|| bad("a hard link to the root"))?;
        if last.starts_with(b".wh.") {
            return Err(bad("a hard link to a whiteout"));
        }
        let found = self
            .find(parents)
            .and_then(|directory| self.tree.lookup(directory, last));
        let id = match found {
            Some(id) if self.tree.node(id).directory().is_some() => {
                return Err(bad("a hard link to a directory"));
            }
            Some(id) => id,
            None => {
                let content = Content::LowerLink(components.join(&b'/').into());
                self.tree
                    .add(Node {
                        attributes,
                        content,
                    })
                    .ok_or(LayerError::TooManyNodes)?
            }
        };
        if self.tree.lookup(parent, name) != Some(id) {
            self.tree.link(parent, name, id);
        }
        Ok(())
    }

    /// The directory that `path` leads to inside the root, symbolic links of this layer followed;
    /// what is missing becomes an implicit directory.
    fn directory(&mut self, path: &[&[u8]]) -> Result<NodeId, PathError> {
        let mut at = vec![NodeId::ROOT];
        let mut links = 0;
        let mut rest: Vec<Box<[u8]>> = path.iter().rev().map(|name| (*name).into()).collect();
        while let Some(name) = rest.pop() {
            let here = at.last().copied().unwrap_or(NodeId::ROOT);
            match name.as_ref() {
                b"" | b"." => continue,
                b".." => {
                    if at.len() > 1 {
                        at.pop();
                    }
                    continue;
                }
                name if name.len() > NAME_BYTES_MAX => return Err(PathError::Name),
                _ => {}
            }
            if at.len() > DEPTH_MAX {
                return Err(PathError::Depth);
            }
            let Some(id) = self.tree.lookup(here, &name) else {
                let id = self
                    .tree
                    .add(Node::implicit_directory())
                    .ok_or(PathError::Full)?;
                self.tree.link(here, &name, id);
                at.push(id);
                continue;
            };
            match &self.tree.node(id).content {
                Content::Directory(_) => at.push(id),
                Content::Symlink(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(PathError::Loop);
                    }
                    if target.starts_with(b"/") {
                        at.truncate(1);
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev().map(Box::from));
                }
                _ => return Err(PathError::NotDirectory(name)),
            }
        }
        Ok(at.last().copied().unwrap_or(NodeId::ROOT))
    }

    /// As [`Builder::directory`], but makes nothing.
    fn find(&self, path: &[&[u8]]) -> Option<NodeId> {
        let mut at = vec![NodeId::ROOT];
        let mut links = 0;
        let mut rest: Vec<&[u8]> = path.iter().rev().copied().collect();
        while let Some(name) = rest.pop() {
            if matches!(name, b"" | b".") {
                continue;
            }
            if name == b".." {
                at.truncate((at.len() - 1).max(1));
                continue;
            }
            let id = self.tree.lookup(at.last().copied()?, name)?;
            match &self.tree.node(id).content {
                Content::Directory(_) => at.push(id),
                Content::Symlink(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.starts_with(b"/") {
                        at.truncate(1);
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev());
                }
                _ => return None,
            }
        }
        at.last().copied()
    }
}

/// Why a member's directory cannot be.
enum PathError {
    NotDirectory(Box<[u8]>),
    Loop,
    Depth,
    Name,
    Full,
}

impl PathError {
    fn at(self, path: &[u8]) -> LayerError {
        let why = match self {
            PathError::Full => return LayerError::TooManyNodes,
            PathError::NotDirectory(name) => format!(
                "{:?} on its way is no directory",
                String::from_utf8_lossy(&name)
            ),
            PathError::Loop => "too many symbolic links on its way".to_owned(),
            PathError::Depth => format!("deeper than {DEPTH_MAX} directories"),
            PathError::Name => format!("a name of more than {NAME_BYTES_MAX} bytes on its way"),
        };
        LayerError::Member {
            path: shown(path),
            why,
        }
    }
}

/// The names of a member's path. Slashes at the start and single dots mean nothing; `..` could only lead out.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .collect();
    for (at, name) in names.iter().enumerate() {
        if *name == b".." {
            return Err("its path holds ..".into());
        }
        if name.contains(&0) {
            return Err("its path holds a NUL".into());
        }
        // The name behind a whiteout's prefix must itself fit.
        if name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "a name of {} bytes, more than {NAME_BYTES_MAX}",
                name.len()
            ));
        }
        if name.starts_with(b".wh.") && at + 1 < names.len() {
            return Err("it lies in a directory named as a whiteout".into());
        }
    }
    if names.len() > DEPTH_MAX {
        return Err(format!("deeper than {DEPTH_MAX} directories"));
    }
    Ok(names)
}

/// Keeps what can be set on Linux and does not steer overlay file systems (security.md, S25).
fn keep_linux_xattrs(xattrs: &mut Xattrs) -> Result<(), String> {
    xattrs.retain(|name, _| {
        let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        let known = XATTR_SPACES
            .iter()
            .any(|space| name.starts_with(space) && name.len() > space.len())
            || XATTR_ACLS.contains(&name.as_ref());
        known && !overlay
    });
    for (name, value) in xattrs {
        if name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
            return Err(format!(
                "an extended attribute's name of {} bytes, more than {XATTR_NAME_BYTES_MAX}, or with a NUL",
                name.len()
            ));
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(format!(
                "an extended attribute's value of {} bytes, more than {XATTR_VALUE_BYTES_MAX}",
                value.len()
            ));
        }
    }
    Ok(())
}
