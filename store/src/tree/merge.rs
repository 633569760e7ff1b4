//! Merges layers into one tree, by the rules of unpacking or by those of an overlay file system.
//!
//! Nearly all of an image is not touched by a second layer. So a directory that one layer brings is only noted
//! until another layer, or a link, leads into it: what that costs is what the layers have in common.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{Content, LayerError, NodeId, Tree, shown};

/// Most symbolic links followed for one directory.
const LINKS_MAX: usize = 40;

/// A node of a layer: which layer, which node.
pub(super) type Origin = (u16, NodeId);

/// A merged tree; node 0 is the root. While it is made its entries are found by a hash table, then they are sorted.
pub(super) struct Merged<'a> {
    layers: &'a [&'a Tree],
    nodes: Vec<MergedNode>,
    entries: Vec<MergedEntry>,
    names: HashTable<u32>,
    hasher: RandomState,
    lists: u32,
    /// What hard links from layers above lead to.
    linked: HashSet<Origin>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct MergedNode {
    pub(super) origin: Origin,
    pub(super) kind: MergedKind,
}

impl MergedNode {
    pub(super) fn is_directory(self) -> bool {
        self.kind != MergedKind::Leaf
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MergedKind {
    Leaf,
    /// A directory with exactly what its origin holds.
    Whole,
    /// A directory with the entries of this list.
    Mixed(u32),
}

/// A name in a list.
#[derive(Clone, Copy)]
struct MergedEntry {
    list: u32,
    /// Where the name stands: layer, and place among its entries.
    layer: u16,
    place: u32,
    /// `None`: it was taken away.
    node: Option<Place>,
}

/// A node's number plus one: so that an entry without a node takes no more room.
type Place = std::num::NonZeroU32;

/// Which rules to merge by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// One tar after another is unpacked.
    Unpack,
    /// The layers' file systems are the lower directories of an overlay.
    Overlay,
}

/// The tree that `layers`, bottom first, make together.
pub(super) fn merge<'a>(layers: &'a [&'a Tree], rules: Rules) -> Result<Merged<'a>, LayerError> {
    let mut merged = Merged::new(layers);
    for (index, tree) in layers.iter().enumerate() {
        let layer = u16::try_from(index).map_err(|_| LayerError::TooManyNodes)?;
        let mut apply = Apply {
            merged: &mut merged,
            layer,
            tree,
            rules,
            links: Vec::new(),
        };
        apply.directory(0, NodeId::ROOT, &mut Vec::new())?;
        let links = std::mem::take(&mut apply.links);
        for (parent, place) in links {
            apply.lower_link(parent, place)?;
        }
    }
    Ok(merged)
}

/// One layer being merged.
struct Apply<'m, 'a> {
    merged: &'m mut Merged<'a>,
    layer: u16,
    tree: &'a Tree,
    rules: Rules,
    /// Hard links into layers below, looked up when the layer's own members are in place: directory, and place.
    links: Vec<(usize, usize)>,
}

impl Apply<'_, '_> {
    /// Merges directory `id` of the layer into `into`. `path` leads to it, from the root.
    fn directory(
        &mut self,
        into: usize,
        id: NodeId,
        path: &mut Vec<usize>,
    ) -> Result<(), LayerError> {
        let Some(directory) = self.tree.directory(id) else {
            return Ok(());
        };
        self.merged.list(into)?;
        if !directory.implicit || self.rules == Rules::Overlay {
            self.merged.nodes[into].origin = (self.layer, id);
        }
        if directory.opaque {
            self.merged.clear(into);
        }
        path.push(into);
        // Deletions and what the tar contains come first: an implicit directory may lead through a link among them.
        for late in [false, true] {
            for place in self.tree.places(id) {
                let child = self.tree.directory(self.tree.entry(place).1);
                if child.is_some_and(|directory| directory.implicit) == late {
                    self.entry(into, place, path)?;
                }
            }
        }
        path.pop();
        Ok(())
    }

    fn entry(
        &mut self,
        parent: usize,
        place: usize,
        path: &mut Vec<usize>,
    ) -> Result<(), LayerError> {
        let (name, id) = self.tree.entry(place);
        match self.tree.node(id).content {
            Content::Whiteout => self.merged.remove(parent, name),
            Content::LowerLink(_) => {
                if self.rules == Rules::Unpack {
                    self.links.push((parent, place));
                }
                Ok(())
            }
            Content::Directory(directory) => {
                let existing = self.merged.child(parent, name)?;
                if let Some(at) = existing.filter(|at| self.merged.is_directory(*at)) {
                    return self.directory(at, id, path);
                }
                if let Some(link) = existing
                    && directory.implicit
                    && self.rules == Rules::Unpack
                    && let Some(mut elsewhere) = self.merged.follow(path, link)?
                {
                    let into = elsewhere.pop().unwrap_or(0);
                    return self.directory(into, id, &mut elsewhere);
                }
                let at = self.merged.add((self.layer, id), MergedKind::Whole);
                self.merged.link(parent, (self.layer, place), at)?;
                // Its hard links into layers below must be looked up with the others of this layer.
                if self.rules == Rules::Unpack && self.tree.has_lower_links() {
                    self.merged.clear(at);
                    self.directory(at, id, path)?;
                }
                Ok(())
            }
            Content::File(_) | Content::Symlink(_) | Content::Device(_) | Content::Fifo => {
                let at = self.merged.add((self.layer, id), MergedKind::Leaf);
                self.merged.link(parent, (self.layer, place), at)
            }
        }
    }

    fn lower_link(&mut self, parent: usize, place: usize) -> Result<(), LayerError> {
        let Content::LowerLink(target) = self.tree.node(self.tree.entry(place).1).content else {
            return Ok(());
        };
        let found = self.merged.find(target)?;
        match found.filter(|at| !self.merged.is_directory(*at)) {
            Some(at) => {
                self.merged.linked.insert(self.merged.nodes[at].origin);
                self.merged.link(parent, (self.layer, place), at)
            }
            None => Err(LayerError::NoTarget {
                path: shown(&self.tree.paths().of(place)),
                target: shown(target),
            }),
        }
    }
}

impl<'a> Merged<'a> {
    /// An empty root.
    fn new(layers: &'a [&'a Tree]) -> Merged<'a> {
        Merged {
            layers,
            nodes: vec![MergedNode {
                origin: (0, NodeId::ROOT),
                kind: MergedKind::Mixed(0),
            }],
            entries: Vec::new(),
            names: HashTable::new(),
            hasher: RandomState::new(),
            lists: 1,
            linked: HashSet::new(),
        }
    }

    /// A tree of nothing but the root of `other`.
    pub(super) fn only_root_of(other: &Merged<'a>) -> Merged<'a> {
        let mut merged = Merged::new(other.layers);
        merged.nodes[0].origin = other.nodes[0].origin;
        merged
    }

    pub(super) fn root(&self) -> MergedNode {
        self.nodes[0]
    }

    /// Whether a hard link from a layer above leads to node `origin`.
    pub(super) fn is_linked(&self, origin: Origin) -> bool {
        self.linked.contains(&origin)
    }

    fn is_directory(&self, at: usize) -> bool {
        self.nodes[at].is_directory()
    }

    fn name(&self, entry: MergedEntry) -> &'a [u8] {
        self.layers[usize::from(entry.layer)]
            .entry(entry.place as usize)
            .0
    }

    fn add(&mut self, origin: Origin, kind: MergedKind) -> usize {
        self.nodes.push(MergedNode { origin, kind });
        self.nodes.len() - 1
    }

    /// The list of directory `at`; of a whole one it is made now. `None` where it is no directory.
    fn list(&mut self, at: usize) -> Result<Option<u32>, LayerError> {
        let MergedNode { origin, kind } = self.nodes[at];
        match kind {
            MergedKind::Leaf => return Ok(None),
            MergedKind::Mixed(list) => return Ok(Some(list)),
            MergedKind::Whole => self.clear(at),
        }
        let tree = self.layers[usize::from(origin.0)];
        for place in tree.places(origin.1) {
            if let Some(child) = whole_child(tree, origin.0, tree.entry(place).1) {
                let node = self.add(child.origin, child.kind);
                self.link(at, (origin.0, place), node)?;
            }
        }
        self.list(at)
    }

    /// Gives directory `at` a list without entries.
    fn clear(&mut self, at: usize) {
        self.nodes[at].kind = MergedKind::Mixed(self.lists);
        self.lists += 1;
    }

    fn place(&self, list: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((list, name));
        let found = self.names.find(hash, |at| {
            let entry = self.entries[*at as usize];
            entry.list == list && self.name(entry) == name
        });
        found.copied()
    }

    fn child(&mut self, parent: usize, name: &[u8]) -> Result<Option<usize>, LayerError> {
        let Some(list) = self.list(parent)? else {
            return Ok(None);
        };
        let entry = self.place(list, name).map(|at| self.entries[at as usize]);
        Ok(entry.and_then(|entry| entry.node).map(number))
    }

    /// Gives node `at` the name at `place` of a layer, in directory `parent`.
    fn link(
        &mut self,
        parent: usize,
        (layer, place): (u16, usize),
        at: usize,
    ) -> Result<(), LayerError> {
        let Some(list) = self.list(parent)? else {
            return Ok(());
        };
        let node = u32::try_from(at + 1).ok().and_then(Place::new);
        let name = self.layers[usize::from(layer)].entry(place).0;
        if let Some(at) = self.place(list, name) {
            self.entries[at as usize].node = node;
            return Ok(());
        }
        let full = |_| LayerError::TooManyNodes;
        let entry = MergedEntry {
            list,
            layer,
            place: u32::try_from(place).map_err(full)?,
            node,
        };
        let at = u32::try_from(self.entries.len()).map_err(full)?;
        self.entries.push(entry);
        let Merged {
            layers,
            entries,
            names,
            hasher,
            ..
        } = self;
        names.insert_unique(hasher.hash_one((list, name)), at, |at| {
            let entry = entries[*at as usize];
            let (name, _) = layers[usize::from(entry.layer)].entry(entry.place as usize);
            hasher.hash_one((entry.list, name))
        });
        Ok(())
    }

    fn remove(&mut self, parent: usize, name: &[u8]) -> Result<(), LayerError> {
        if let Some(list) = self.list(parent)?
            && let Some(at) = self.place(list, name)
        {
            self.entries[at as usize].node = None;
        }
        Ok(())
    }

    /// Where symbolic link `at`, which lies in the directory at the end of `path`, leads inside the merged tree;
    /// the nodes from the root to that directory. `None` where it is no link or leads to no directory.
    fn follow(&mut self, path: &[usize], at: usize) -> Result<Option<Vec<usize>>, LayerError> {
        let mut path = path.to_vec();
        let mut rest: Vec<&[u8]> = Vec::new();
        let mut links = 0;
        let mut next = Some(at);
        loop {
            let node = match next.take() {
                Some(node) => node,
                None => match rest.pop() {
                    None => return Ok(Some(path)),
                    Some(b"" | b".") => continue,
                    Some(b"..") => {
                        path.truncate((path.len() - 1).max(1));
                        continue;
                    }
                    Some(name) => {
                        let parent = path.last().copied().unwrap_or(0);
                        match self.child(parent, name)? {
                            Some(node) => node,
                            None => return Ok(None),
                        }
                    }
                },
            };
            let (layer, id) = self.nodes[node].origin;
            match self.layers[usize::from(layer)].node(id).content {
                Content::Directory(_) => path.push(node),
                Content::Symlink(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.starts_with(b"/") {
                        path.truncate(1);
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev());
                }
                _ => return Ok(None),
            }
        }
    }

    /// The node at `path`, links on the way followed, a last one not.
    fn find(&mut self, path: &[u8]) -> Result<Option<usize>, LayerError> {
        let mut at = vec![0];
        let mut names = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let parent = at.last().copied().unwrap_or(0);
            let Some(node) = self.child(parent, name)? else {
                return Ok(None);
            };
            if names.peek().is_none() {
                return Ok(Some(node));
            }
            if self.is_directory(node) {
                at.push(node);
            } else {
                match self.follow(&at, node)? {
                    Some(path) => at = path,
                    None => return Ok(None),
                }
            }
        }
        Ok(None)
    }

    /// Ends merging: puts the entries in order, so that [`Merged::children`] finds them.
    pub(super) fn sort(&mut self) {
        self.names = HashTable::new();
        let layers = self.layers;
        let name = |entry: &MergedEntry| {
            layers[usize::from(entry.layer)]
                .entry(entry.place as usize)
                .0
        };
        self.entries.retain(|entry| entry.node.is_some());
        self.entries
            .sort_unstable_by(|a, b| a.list.cmp(&b.list).then_with(|| name(a).cmp(name(b))));
    }

    /// Name and node of what is in a directory, in the order of the names; sorted first by [`Merged::sort`].
    pub(super) fn children(
        &self,
        node: MergedNode,
    ) -> Box<dyn Iterator<Item = (&'a [u8], MergedNode)> + '_> {
        match node.kind {
            MergedKind::Leaf => Box::new(std::iter::empty()),
            MergedKind::Mixed(list) => {
                let first = self.entries.partition_point(|entry| entry.list < list);
                let children = self.entries[first..]
                    .iter()
                    .take_while(move |entry| entry.list == list);
                let named = |entry: &MergedEntry| {
                    Some((self.name(*entry), self.nodes[number(entry.node?)]))
                };
                Box::new(children.filter_map(named))
            }
            MergedKind::Whole => {
                let (layer, id) = node.origin;
                let tree = self.layers[usize::from(layer)];
                let children = tree.entries(id);
                Box::new(
                    children
                        .filter_map(move |(name, id)| Some((name, whole_child(tree, layer, id)?))),
                )
            }
        }
    }
}

/// What node `id` is in a directory of which nothing but its own layer is seen.
fn whole_child(tree: &Tree, layer: u16, id: NodeId) -> Option<MergedNode> {
    let kind = match tree.node(id).content {
        // There is nothing for them to take away, or to lead to.
        Content::Whiteout | Content::LowerLink(_) => return None,
        Content::Directory(_) => MergedKind::Whole,
        Content::File(_) | Content::Symlink(_) | Content::Device(_) | Content::Fifo => {
            MergedKind::Leaf
        }
    };
    Some(MergedNode {
        origin: (layer, id),
        kind,
    })
}

fn number(place: Place) -> usize {
    place.get() as usize - 1
}
