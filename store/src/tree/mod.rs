//! A layer as a tree of plain values: what its tar says, settled by the rules of image-spec, layer.md.
//!
//! tar -> [`build`] -> [`Tree`] -> an EROFS index or a directory. Nothing here touches a file system.

mod budget;
mod build;
mod merge;
mod stack;

use std::collections::BTreeMap;

#[cfg(test)]
pub(crate) use build::Builder;
pub(crate) use build::scan;
pub(crate) use stack::{corrections, flatten};

use crate::tar::{Attributes, Device, FileData, TarError};

/// A node of a tree. Two names with one id are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names in a directory, sorted by their bytes.
pub(crate) type Entries = BTreeMap<Box<[u8]>, NodeId>;

/// A tree; its root is a directory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

/// One inode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) content: Content,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Directory(Directory),
    File(File),
    Symlink(Box<[u8]>),
    Device(Device),
    Fifo,
    /// Takes this name of the layers below away.
    Whiteout,
    /// A hard link to a path that only a layer below can have.
    LowerLink(Box<[u8]>),
}

/// A directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Directory {
    pub(crate) entries: Entries,
    /// The tar does not contain it, only something in it: its attributes are those of the layer below.
    pub(crate) implicit: bool,
    /// Nothing of the layers below shows in it.
    pub(crate) opaque: bool,
}

/// A regular file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct File {
    /// Which of the tree's tars holds the data; 0 in a layer's own tree.
    pub(crate) layer: u16,
    pub(crate) data: FileData,
}

/// Mode of a directory that nothing describes, as every unpacker makes it.
const IMPLICIT_MODE: u16 = 0o755;
/// Deepest directory, so that walking a tree is bounded. Far above what PATH_MAX lets a program reach at once.
const DEPTH_MAX: usize = 4096;
/// Most nodes of one tree, which may be a stack's: four times what one layer can have.
const NODES_MAX: usize = 8 << 20;

impl Node {
    /// A directory that nothing describes.
    pub(crate) fn implicit_directory() -> Node {
        let attributes = Attributes {
            mode: IMPLICIT_MODE,
            ..Attributes::default()
        };
        Node {
            attributes,
            content: Content::Directory(Directory {
                implicit: true,
                ..Directory::default()
            }),
        }
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}

impl Tree {
    /// A tree of a root that nothing describes.
    pub(crate) fn new() -> Tree {
        Tree {
            nodes: vec![Node::implicit_directory()],
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// How many nodes were made; some may have lost all their names since.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The entries of directory `id`; of anything else none.
    pub(crate) fn entries(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        self.node(id).directory().into_iter().flat_map(|directory| {
            directory
                .entries
                .iter()
                .map(|(name, id)| (name.as_ref(), *id))
        })
    }

    /// All nodes' ids, in the order in which they were made.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// Adds a node without a name; `None` where the tree is full.
    fn add(&mut self, node: Node) -> Option<NodeId> {
        let id = NodeId(
            u32::try_from(self.nodes.len())
                .ok()
                .filter(|_| self.nodes.len() < NODES_MAX)?,
        );
        self.nodes.push(node);
        Some(id)
    }

    /// Gives `id` a name in directory `parent`.
    fn link(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        if let Some(directory) = self.node_mut(parent).directory_mut() {
            directory.entries.insert(name.into(), id);
        }
    }

    pub(crate) fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(parent).directory()?.entries.get(name).copied()
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
            match &self.node(id).content {
                Content::Directory(directory) => {
                    on_lower |= directory.implicit && id != NodeId::ROOT;
                    pending.extend(directory.entries.values());
                }
                Content::LowerLink(_) => on_lower = true,
                Content::File(_)
                | Content::Symlink(_)
                | Content::Device(_)
                | Content::Fifo
                | Content::Whiteout => {}
            }
        }
        Dependence { on_lower, root }
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
}

/// A path for a message, without megabytes of it.
fn shown(path: &[u8]) -> Vec<u8> {
    path[..path.len().min(300)].to_vec()
}
