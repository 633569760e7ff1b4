//! A layer as a tree of plain values: what its tar says, settled by the rules of image-spec, layer.md.
//!
//! tar -> [`build`] -> [`Tree`] -> an EROFS index or a directory. Nothing here touches a file system.

mod budget;
mod build;
mod draft;
mod merge;
mod record;
mod stack;
mod text;

use std::ops::Range;

#[cfg(test)]
pub(crate) use build::Builder;
pub(crate) use build::scan;
pub(crate) use stack::{corrections, flatten};
pub(crate) use text::{Xattr, Xattrs};

use crate::tar::{Device, FileData, Odd, TarError, Time};
use record::Record;
use text::Text;

/// A node of a tree. Two names with one id are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tree; its root is a directory. It is made as a [`draft::Draft`].
///
/// A layer may have a million nodes, so they are kept small: some 40 bytes and a name each.
#[derive(Debug)]
pub(crate) struct Tree {
    records: Vec<Record>,
    /// Sorted by directory and name.
    entries: Vec<Entry>,
    text: Text,
    owners: Vec<Owner>,
    /// Files that a record has no room for.
    odd: Vec<FileData>,
    /// Times that a record has no room for.
    times: Vec<Time>,
    /// Nodes that were given further names, sorted; all others have one.
    several_names: Vec<NodeId>,
    /// Whether there is any [`Content::LowerLink`].
    has_lower_links: bool,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    parent: NodeId,
    /// Its place in the text.
    name: u32,
    node: NodeId,
}

/// What many nodes have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    uid: u32,
    gid: u32,
    /// Their place in the text.
    xattrs: (u32, u32),
}

/// One inode, as it is shown to readers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Node<'t> {
    pub(crate) attributes: Attributes<'t>,
    pub(crate) content: Content<'t>,
}

/// What every inode has, whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Attributes<'t> {
    /// At most 0o7777.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Xattrs<'t>,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Content<'t> {
    Directory(Directory),
    File(File<'t>),
    Symlink(&'t [u8]),
    Device(Device),
    Fifo,
    /// Takes this name of the layers below away.
    Whiteout,
    /// A hard link to a path that only a layer below can have.
    LowerLink(&'t [u8]),
}

/// A directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// The tar does not contain it, only something in it: its attributes are those of the layer below.
    pub(crate) implicit: bool,
    /// Nothing of the layers below shows in it.
    pub(crate) opaque: bool,
}

/// A regular file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct File<'t> {
    /// Which of the tree's tars holds the data; 0 in a layer's own tree.
    pub(crate) layer: u16,
    /// As of [`FileData`].
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) odd: Option<&'t Odd>,
}

/// Mode of a directory that nothing describes, as every unpacker makes it.
const IMPLICIT_MODE: u16 = 0o755;
/// Deepest directory, so that walking a tree is bounded. Far above what PATH_MAX lets a program reach at once.
const DEPTH_MAX: usize = 4096;
/// Most nodes of one tree, which may be a stack's: four times what one layer can have.
const NODES_MAX: usize = 8 << 20;

impl Node<'static> {
    /// A directory that nothing describes.
    pub(crate) fn implicit_directory() -> Node<'static> {
        Node {
            attributes: Attributes {
                mode: IMPLICIT_MODE,
                ..Attributes::default()
            },
            content: Content::Directory(Directory {
                implicit: true,
                opaque: false,
            }),
        }
    }

    pub(crate) fn whiteout() -> Node<'static> {
        Node {
            attributes: Attributes::default(),
            content: Content::Whiteout,
        }
    }
}

impl Node<'_> {
    pub(crate) fn directory(&self) -> Option<Directory> {
        match self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}

impl Tree {
    /// A tree of a root that nothing describes.
    pub(crate) fn new() -> Tree {
        draft::Draft::new().finish()
    }

    pub(crate) fn node(&self, id: NodeId) -> Node<'_> {
        let record = self.records[id.index()];
        let owner = self.owners[record.owner as usize];
        Node {
            attributes: Attributes {
                mode: record.mode(),
                uid: owner.uid,
                gid: owner.gid,
                mtime: record.time.unpack(&self.times),
                xattrs: Xattrs(self.text.get(owner.xattrs)),
            },
            content: record.content(|place| self.text.get(place), &self.odd),
        }
    }

    /// The directory at `id`; as [`Tree::node`], but quicker.
    pub(crate) fn directory(&self, id: NodeId) -> Option<Directory> {
        self.records[id.index()].directory()
    }

    /// How many nodes were made; some may have lost all their names since.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// All nodes' ids, in the order in which they were made.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        (0..).map(NodeId).take(self.records.len())
    }

    /// The entries of directory `id`, sorted by the bytes of their names; of anything else none.
    pub(crate) fn entries(
        &self,
        id: NodeId,
    ) -> impl DoubleEndedIterator<Item = (&[u8], NodeId)> + ExactSizeIterator {
        self.places(id).map(|at| self.entry(at))
    }

    /// The places of directory `id`'s entries among those of the whole tree.
    pub(crate) fn places(&self, id: NodeId) -> Range<usize> {
        let record = self.records[id.index()];
        let first = record.a as usize;
        match record.directory() {
            Some(_) => first..first + record.b as usize,
            None => 0..0,
        }
    }

    /// The entry at a place of [`Tree::places`].
    pub(crate) fn entry(&self, place: usize) -> (&[u8], NodeId) {
        let entry = self.entries[place];
        (self.text.name(entry.name), entry.node)
    }

    /// Whether node `id` is not a directory and was given several names; some may be gone.
    pub(crate) fn has_several_names(&self, id: NodeId) -> bool {
        self.several_names.binary_search(&id).is_ok()
    }

    /// The nodes of which [`Tree::has_several_names`] is true, sorted.
    pub(crate) fn several_names(&self) -> &[NodeId] {
        &self.several_names
    }

    /// Whether it is what it shows without any layer below: no deletions, no hard links to elsewhere.
    pub(crate) fn is_flat(&self) -> bool {
        let mut shapes = self.records.iter().map(|record| record.shape());
        !shapes.any(|shape| matches!(shape, record::Shape::Whiteout | record::Shape::LowerLink))
    }

    fn has_lower_links(&self) -> bool {
        self.has_lower_links
    }

    /// Whether any node has extended attributes.
    pub(crate) fn has_xattrs(&self) -> bool {
        self.owners.iter().any(|owner| owner.xattrs.1 > 0)
    }

    /// Whether any directory hides what layers below have in it.
    pub(crate) fn has_opaque(&self) -> bool {
        let mut directories = self.records.iter().filter_map(|record| record.directory());
        directories.any(|directory| directory.opaque)
    }

    /// Finds the paths of entries.
    pub(crate) fn paths(&self) -> Paths<'_> {
        let mut directories = vec![0; self.len()];
        for (place, entry) in (0..).zip(&self.entries) {
            if self.directory(entry.node).is_some() {
                directories[entry.node.index()] = place;
            }
        }
        Paths {
            tree: self,
            directories,
        }
    }

    /// What `name` means in directory `parent`.
    pub(crate) fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let entries = &self.entries[self.places(parent)];
        let at = entries.binary_search_by(|entry| self.text.name(entry.name).cmp(name));
        Some(entries[at.ok()?].node)
    }

    /// What the layers below can change about this one.
    pub(crate) fn dependence(&self) -> Dependence {
        let root = self.node(NodeId::ROOT);
        let plain = root.attributes.mode == IMPLICIT_MODE
            && root.attributes.uid == 0
            && root.attributes.gid == 0
            && root.attributes.xattrs.is_empty();
        let root = match root.directory() {
            Some(directory) if directory.implicit => RootKind::Implicit,
            _ if plain => RootKind::Plain,
            _ => RootKind::Special,
        };
        let mut on_lower = false;
        let mut pending = vec![NodeId::ROOT];
        while let Some(id) = pending.pop() {
            if let Some(directory) = self.directory(id) {
                on_lower |= directory.implicit && id != NodeId::ROOT;
            }
            for (_, id) in self.entries(id) {
                match self.records[id.index()].shape() {
                    record::Shape::LowerLink => on_lower = true,
                    _ if self.directory(id).is_some() => pending.push(id),
                    _ => {}
                }
            }
        }
        Dependence { on_lower, root }
    }
}

/// Where every directory of a tree has its name.
#[derive(Debug)]
pub(crate) struct Paths<'t> {
    tree: &'t Tree,
    /// By node; of the root, which has none, and of files it means nothing.
    directories: Vec<u32>,
}

impl Paths<'_> {
    /// The path of the entry at `place`, without a slash at its start.
    pub(crate) fn of(&self, place: usize) -> Vec<u8> {
        let mut names = vec![self.tree.entry(place).0];
        let mut parent = self.tree.entries[place].parent;
        while parent != NodeId::ROOT && names.len() <= DEPTH_MAX {
            let place = self.directories[parent.index()] as usize;
            names.push(self.tree.entry(place).0);
            parent = self.tree.entries[place].parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// Whether a layer can simply be stacked on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dependence {
    /// It has implicit directories other than the root, or hard links into layers below.
    pub(crate) on_lower: bool,
    /// What it says about the root directory.
    pub(crate) root: RootKind,
}

/// What a layer says about its root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RootKind {
    /// Nothing.
    Implicit,
    /// What an implicit root is given anyway: 0755, root:root.
    Plain,
    /// Something else.
    Special,
}

impl Dependence {
    /// Whether layers, bottom first, need no corrections over the plain overlay of them all.
    pub(crate) fn is_plain_stack(layers: &[Dependence]) -> bool {
        let upper = layers.get(1..).unwrap_or_default();
        let lost_root = layers
            .last()
            .is_some_and(|top| top.root == RootKind::Implicit)
            && layers.iter().any(|layer| layer.root == RootKind::Special);
        !lost_root && upper.iter().all(|layer| !layer.on_lower)
    }
}

/// Why an archive is no layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// It is no archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A member that no layer may have.
    #[error("layer member {:?}: {why}", String::from_utf8_lossy(path))]
    Member {
        /// Its name.
        path: Vec<u8>,
        /// What is wrong with it.
        why: String,
    },
    /// A hard link to nothing.
    #[error(
        "hard link {:?} leads to {:?}, which is neither in its layer nor in one below",
        String::from_utf8_lossy(path),
        String::from_utf8_lossy(target)
    )]
    NoTarget {
        /// The link.
        path: Vec<u8>,
        /// What it should be a further name of.
        target: Vec<u8>,
    },
    /// More than [`NODES_MAX`].
    #[error("layers of more than {NODES_MAX} files together")]
    TooManyNodes,
    /// More than [`ENTRIES_MAX`](budget::ENTRIES_MAX).
    #[error("a layer of more than {} files and directories", budget::ENTRIES_MAX)]
    TooManyEntries,
    /// More than [`TEXT_BYTES_MAX`](budget::TEXT_BYTES_MAX).
    #[error(
        "a layer with more than {} bytes of names, links, attributes and sparse maps",
        budget::TEXT_BYTES_MAX
    )]
    TooMuchText,
    /// More than [`PATH_BYTES_MAX`](budget::PATH_BYTES_MAX).
    #[error("a layer with more than {} bytes of paths", budget::PATH_BYTES_MAX)]
    TooLongPaths,
}

/// A path for a message, without megabytes of it.
fn shown(path: &[u8]) -> Vec<u8> {
    path[..path.len().min(300)].to_vec()
}
