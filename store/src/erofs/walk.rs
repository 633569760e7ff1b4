//! The order in which nodes stand in an image, and how many names each has.

use crate::tree::{Content, NodeId, Tree};

/// The entries of a directory that stand in the image; hard links into lower layers are settled by the corrections.
pub(super) fn entries(tree: &Tree, id: NodeId) -> impl DoubleEndedIterator<Item = (&[u8], NodeId)> {
    let stands = |id| !matches!(tree.node(id).content, Content::LowerLink(_));
    tree.entries(id).filter(move |(_, id)| stands(*id))
}

/// All names of a directory in the order of their bytes, `.` and `..` among them: readers search for a name by halving.
pub(super) fn names(
    tree: &Tree,
    id: NodeId,
    parent: NodeId,
) -> impl Iterator<Item = (&[u8], NodeId)> {
    let mut dots = [(&b"."[..], id), (&b".."[..], parent)]
        .into_iter()
        .peekable();
    let mut entries = entries(tree, id).peekable();
    std::iter::from_fn(move || match (dots.peek(), entries.peek()) {
        (Some((dot, _)), Some((name, _))) if name < dot => entries.next(),
        (Some(_), _) => dots.next(),
        (None, _) => entries.next(),
    })
}

/// Every node once, with the directory it is met in; parents before children, and a directory's children together.
pub(super) struct Walk<'t> {
    tree: &'t Tree,
    /// By place in [`Tree::several_names`].
    seen: Vec<bool>,
    /// Directories to go into, the next one last.
    pending: Vec<NodeId>,
    /// The directory whose entries come now, and those left.
    parent: NodeId,
    entries: Box<dyn Iterator<Item = (&'t [u8], NodeId)> + 't>,
}

impl<'t> Walk<'t> {
    pub(super) fn new(tree: &'t Tree) -> Walk<'t> {
        Walk {
            tree,
            seen: vec![false; tree.several_names().len()],
            pending: vec![NodeId::ROOT],
            parent: NodeId::ROOT,
            entries: Box::new(std::iter::once((&b""[..], NodeId::ROOT))),
        }
    }
}

impl Iterator for Walk<'_> {
    /// Node and directory; of the root itself.
    type Item = (NodeId, NodeId);

    fn next(&mut self) -> Option<(NodeId, NodeId)> {
        loop {
            for (_, id) in self.entries.by_ref() {
                let several = self.tree.several_names().binary_search(&id);
                if several.is_err()
                    || several.is_ok_and(|at| !std::mem::replace(&mut self.seen[at], true))
                {
                    return Some((id, self.parent));
                }
            }
            self.parent = self.pending.pop()?;
            let children = entries(self.tree, self.parent).rev().map(|(_, id)| id);
            self.pending
                .extend(children.filter(|id| self.tree.directory(*id).is_some()));
            self.entries = Box::new(entries(self.tree, self.parent));
        }
    }
}

/// How many names nodes have in the image.
pub(super) struct Links<'t> {
    tree: &'t Tree,
    /// By place in [`Tree::several_names`].
    counts: Vec<u32>,
}

impl<'t> Links<'t> {
    pub(super) fn count(tree: &'t Tree) -> Links<'t> {
        let several = tree.several_names();
        let mut counts = vec![0; several.len()];
        let mut pending = if several.is_empty() {
            Vec::new()
        } else {
            vec![NodeId::ROOT]
        };
        while let Some(parent) = pending.pop() {
            for (_, id) in entries(tree, parent) {
                if tree.directory(id).is_some() {
                    pending.push(id);
                } else if let Ok(at) = several.binary_search(&id) {
                    counts[at] += 1;
                }
            }
        }
        Links { tree, counts }
    }

    /// Of a directory with its `.` and the `..` of its children.
    pub(super) fn of(&self, id: NodeId) -> u32 {
        if self.tree.directory(id).is_some() {
            let children = entries(self.tree, id);
            let directories = children.filter(|(_, id)| self.tree.directory(*id).is_some());
            return u32::try_from(directories.count() + 2).unwrap_or(u32::MAX);
        }
        match self.tree.several_names().binary_search(&id) {
            Ok(at) => self.counts[at],
            Err(_) => 1,
        }
    }
}
