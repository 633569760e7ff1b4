//! How the root filesystems of two images differ.

use std::collections::BTreeSet;
use std::fs::File;

use serde::Serialize;

use crate::digest::{ChainId, DiffId};
use crate::error::{Context, Error};
use crate::images::Image;
use crate::store::Store;
use crate::tar::content::{Content as FileContent, same};
use crate::tree::{self, Content, Node, NodeId, Tree};

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Only the second image has it.
    Added,
    /// Both have it.
    Changed,
    /// Only the first image has it.
    Removed,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// From the root, with a slash at its start; bytes that are no UTF-8 are shown as `\xNN`.
    pub path: String,
    /// How.
    pub change: DifferenceKind,
    /// What it is now, or was: `file`, `directory`, `link`, `device`, `pipe`.
    pub kind: &'static str,
    /// Of what both have: what of it differs.
    pub differs: Vec<&'static str>,
    /// Bytes of content before; `null` where it was no file.
    pub before: Option<u64>,
    /// Bytes of content after; `null` where it is no file.
    pub after: Option<u64>,
}

/// An image's root filesystem as a tree, with what holds its files' data.
struct Side {
    tree: Tree,
    layers: Vec<DiffId>,
    tars: Vec<File>,
}

impl Side {
    /// Where a file's data lies: the same place is the same data.
    fn origin(&self, file: tree::File<'_>) -> (DiffId, u64) {
        (self.layers[usize::from(file.layer)], file.offset)
    }

    fn content<'a>(&'a self, file: tree::File<'a>) -> FileContent<'a> {
        let tar = &self.tars[usize::from(file.layer)];
        FileContent::new(tar, file.size, file.offset, file.odd)
    }
}

impl Store {
    /// The paths in which `after` differs from `before`, in the order of a walk. Times count only if `times` says so:
    /// nearly everything that was built again has other ones. Contents are read only where nothing else tells.
    pub fn diff(
        &self,
        before: &Image,
        after: &Image,
        times: bool,
    ) -> Result<Vec<Difference>, Error> {
        let work = self.begin()?;
        let layers = [before, after].map(|image| &image.config.rootfs.diff_ids);
        work.want(layers.into_iter().flatten().map(|layer| &layer.0))?;
        let (before, after) = (self.side(layers[0])?, self.side(layers[1])?);
        let mut comparison = Comparison {
            before: &before,
            after: &after,
            times,
            out: Vec::new(),
        };
        comparison.run()?;
        Ok(comparison.out)
    }

    fn side(&self, layers: &[DiffId]) -> Result<Side, Error> {
        let tars = layers.iter().map(|layer| Ok(self.layer_tar(layer)?.0));
        Ok(Side {
            tree: self.flat_tree(layers)?,
            layers: layers.to_vec(),
            tars: tars.collect::<Result<_, Error>>()?,
        })
    }

    /// What `layers`, bottom first, mean together. The number in a file's `layer` is its place in the list.
    pub(crate) fn flat_tree(&self, layers: &[DiffId]) -> Result<Tree, Error> {
        let Some(chain) = ChainId::of(layers) else {
            return Ok(Tree::new());
        };
        let trees = layers.iter().map(|layer| self.layer_tree(layer));
        let mut trees = trees.collect::<Result<Vec<Tree>, Error>>()?;
        // A single layer that is flat as it is.
        if let Some(only) = trees.pop_if(|only| layers.len() == 1 && only.is_flat()) {
            return Ok(only);
        }
        let trees: Vec<&Tree> = trees.iter().collect();
        tree::flatten(&trees).map_err(|source| Error::Stack(chain, source))
    }
}

struct Comparison<'a> {
    before: &'a Side,
    after: &'a Side,
    times: bool,
    out: Vec<Difference>,
}

impl Comparison<'_> {
    /// Walks both trees at once; a list of what is still to do keeps deep trees off the stack.
    fn run(&mut self) -> Result<(), Error> {
        let mut pending = vec![(Vec::new(), Some(NodeId::ROOT), Some(NodeId::ROOT))];
        while let Some((path, before, after)) = pending.pop() {
            self.compare(&path, before, after)?;
            let entries = |tree: &Tree, id: Option<NodeId>| -> BTreeSet<Vec<u8>> {
                let names = id.into_iter().flat_map(|id| tree.entries(id));
                names.map(|(name, _)| name.to_vec()).collect()
            };
            let names = entries(&self.before.tree, before);
            let names: BTreeSet<Vec<u8>> = &names | &entries(&self.after.tree, after);
            for name in names.into_iter().rev() {
                let child = |tree: &Tree, id: Option<NodeId>| tree.lookup(id?, &name);
                let below = (
                    child(&self.before.tree, before),
                    child(&self.after.tree, after),
                );
                pending.push(([&path[..], b"/", &name].concat(), below.0, below.1));
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        path: &[u8],
        before: Option<NodeId>,
        after: Option<NodeId>,
    ) -> Result<(), Error> {
        let a = before.map(|id| self.before.tree.node(id));
        let b = after.map(|id| self.after.tree.node(id));
        let (change, differs) = match (a, b) {
            (None, None) => return Ok(()),
            (None, Some(_)) => (DifferenceKind::Added, Vec::new()),
            (Some(_), None) => (DifferenceKind::Removed, Vec::new()),
            (Some(a), Some(b)) => (DifferenceKind::Changed, self.differs(path, &a, &b)?),
        };
        if change == DifferenceKind::Changed && differs.is_empty() {
            return Ok(());
        }
        self.out.push(Difference {
            path: match path {
                [] => "/".to_owned(),
                path => shown(path),
            },
            change,
            kind: b.or(a).map_or("", |node| kind(&node)),
            differs,
            before: a.and_then(|node| size(&node)),
            after: b.and_then(|node| size(&node)),
        });
        Ok(())
    }

    fn differs(&self, path: &[u8], a: &Node<'_>, b: &Node<'_>) -> Result<Vec<&'static str>, Error> {
        let mut differs = Vec::new();
        let mut note = |is: bool, what| {
            if is {
                differs.push(what);
            }
        };
        note(kind(a) != kind(b), "kind");
        let same_content = match (a.content, b.content) {
            (Content::File(left), Content::File(right)) => {
                left.size == right.size
                    && (self.before.origin(left) == self.after.origin(right)
                        || same(self.before.content(left), self.after.content(right))
                            .context("read", shown(path))?)
            }
            (Content::Symlink(left), Content::Symlink(right)) => left == right,
            (Content::Device(left), Content::Device(right)) => left == right,
            _ => true,
        };
        note(!same_content, "content");
        let (left, right) = (&a.attributes, &b.attributes);
        note(left.mode != right.mode, "mode");
        note((left.uid, left.gid) != (right.uid, right.gid), "owner");
        note(left.xattrs != right.xattrs, "attributes");
        note(self.times && left.mtime != right.mtime, "time");
        Ok(differs)
    }
}

fn size(node: &Node<'_>) -> Option<u64> {
    match node.content {
        Content::File(file) => Some(file.size),
        _ => None,
    }
}

fn kind(node: &Node<'_>) -> &'static str {
    match &node.content {
        Content::Directory(_) => "directory",
        Content::File(_) => "file",
        Content::Symlink(_) => "link",
        Content::Device(_) => "device",
        Content::Fifo => "pipe",
        // A flat tree has neither.
        Content::Whiteout | Content::LowerLink(_) => "deletion",
    }
}

/// A path as text, exactly: what is no UTF-8 as `\xNN`.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
