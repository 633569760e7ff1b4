//! From the members of a tar, in their order, to a tree.

use super::budget::{Budget, ENTRIES_MAX, TEXT_BYTES_MAX};
use super::draft::Draft;
use super::text::{self, Xattrs};
use super::{
    Attributes, Content, DEPTH_MAX, Directory, File, LayerError, Node, NodeId, Tree, shown,
};
use crate::tar::{self, Device, Entry, Kind, Reader, Source};

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
            None => return Ok((builder.finish()?, reader.into_source())),
        }
    }
}

/// A tree being built.
#[derive(Debug)]
pub(crate) struct Builder {
    draft: Draft,
    /// Whiteouts: directory, and place of the name. They only take away what layers below have, wherever
    /// in the archive they stand, so they are settled at the end.
    whiteouts: Vec<(NodeId, u32)>,
    last_file: Option<NodeId>,
    budget: Budget,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            draft: Draft::new(),
            whiteouts: Vec::new(),
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
        if self.draft.len() > ENTRIES_MAX {
            return Err(LayerError::TooManyEntries);
        }
        if self.draft.kept_bytes() > TEXT_BYTES_MAX {
            return Err(LayerError::TooMuchText);
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
        let xattrs = text::encode(&attributes.xattrs);
        let attributes = described(&attributes, &xattrs);
        let components = components(&path).map_err(|why| bad(&why))?;
        let Some((name, parents)) = components.split_last() else {
            if kind != Kind::Directory || path.is_empty() {
                return Err(bad("the root can only be a directory"));
            }
            return self.draft.describe(NodeId::ROOT, &attributes);
        };
        let parent = self.directory(parents).map_err(|err| err.at(&path))?;
        if name.starts_with(b".wh.") {
            return self.whiteout(parent, name, bad);
        }
        let content = match kind {
            Kind::Directory => {
                if let Some(existing) = self.draft.lookup(parent, name)
                    && self.draft.directory(existing).is_some()
                {
                    return self.draft.describe(existing, &attributes);
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
            Kind::File(ref data) => Content::File(File {
                layer: 0,
                size: data.size,
                offset: data.offset,
                odd: data.odd.as_ref(),
            }),
            Kind::Symlink(ref target) => Content::Symlink(target),
            Kind::Device(device) => Content::Device(device),
            Kind::Fifo => Content::Fifo,
        };
        let id = self.draft.add(&Node {
            attributes,
            content,
        })?;
        self.draft.link(parent, name, id)?;
        self.last_file = matches!(content, Content::File(_)).then_some(id);
        Ok(())
    }

    /// The bytes after the data of the file added last are not zero.
    pub(crate) fn last_file_has_dirty_padding(&mut self) {
        if let Some(id) = self.last_file {
            self.draft.mark_dirty_padding(id);
        }
    }

    /// The tree, its whiteouts settled.
    pub(crate) fn finish(self) -> Result<Tree, LayerError> {
        let Builder {
            mut draft,
            mut whiteouts,
            ..
        } = self;
        // In this order the same tar always gives the same tree.
        whiteouts.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| draft.name(a.1).cmp(draft.name(b.1)))
        });
        whiteouts.dedup_by(|a, b| a.0 == b.0 && draft.name(a.1) == draft.name(b.1));
        for (parent, name) in whiteouts {
            let name = draft.name(name).to_vec();
            // A directory that is deleted and there hides what the one below held;
            // anything else there hides it anyway.
            match draft.lookup(parent, &name) {
                Some(id) => draft.mark_opaque(id),
                None => {
                    let id = draft.add(&Node::whiteout())?;
                    draft.link(parent, &name, id)?;
                }
            }
        }
        Ok(draft.finish())
    }

    /// image-spec, layer.md, "Whiteouts" and "Opaque Whiteout".
    fn whiteout(
        &mut self,
        parent: NodeId,
        name: &[u8],
        bad: impl FnOnce(&str) -> LayerError,
    ) -> Result<(), LayerError> {
        match &name[b".wh.".len()..] {
            b"" | b"." | b".." => Err(bad("a whiteout of nothing")),
            b".wh..opq" => {
                self.draft.mark_opaque(parent);
                Ok(())
            }
            // Bookkeeping of aufs, where whiteouts come from; no file system can hold what it would delete.
            hidden if hidden.starts_with(b".wh.") => Ok(()),
            hidden => {
                let hidden = self.draft.keep_name(hidden)?;
                self.whiteouts.push((parent, hidden));
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
        attributes: Attributes<'_>,
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
            .and_then(|directory| self.draft.lookup(directory, last));
        match found {
            Some(id) if self.draft.directory(id).is_some() => {
                Err(bad("a hard link to a directory"))
            }
            // A link to itself.
            Some(id) if self.draft.lookup(parent, name) == Some(id) => Ok(()),
            Some(id) => self.draft.link_again(parent, name, id),
            None => {
                let target = components.join(&b'/');
                let id = self.draft.add(&Node {
                    attributes,
                    content: Content::LowerLink(&target),
                })?;
                self.draft.link(parent, name, id)
            }
        }
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
            let Some(id) = self.draft.lookup(here, &name) else {
                let id = self.draft.add(&Node::implicit_directory())?;
                self.draft.link(here, &name, id)?;
                at.push(id);
                continue;
            };
            match self.draft.node(id).content {
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
            let id = self.draft.lookup(at.last().copied()?, name)?;
            match self.draft.node(id).content {
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
    Full(LayerError),
}

impl From<LayerError> for PathError {
    fn from(full: LayerError) -> PathError {
        PathError::Full(full)
    }
}

impl PathError {
    fn at(self, path: &[u8]) -> LayerError {
        let why = match self {
            PathError::Full(full) => return full,
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

/// The attributes of a member, whose extended attributes were encoded.
fn described<'t>(attributes: &tar::Attributes, xattrs: &'t [u8]) -> Attributes<'t> {
    Attributes {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        xattrs: Xattrs(xattrs),
    }
}

/// Keeps what can be set on Linux and does not steer overlay file systems (security.md, S25).
fn keep_linux_xattrs(xattrs: &mut tar::Xattrs) -> Result<(), String> {
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
