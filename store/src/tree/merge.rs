//! Merges layers into one tree, by the rules of unpacking or by those of an overlay file system.

use std::collections::BTreeMap;

use super::{Content, LayerError, NodeId, Tree, shown};

/// Most symbolic links followed for one directory.
const LINKS_MAX: usize = 40;

/// A node of a layer: which layer, which node.
pub(super) type Origin = (u16, NodeId);
pub(super) type Names = BTreeMap<Box<[u8]>, usize>;

/// A merged tree; node 0 is the root.
pub(super) struct Merged {
    pub(super) nodes: Vec<MergedNode>,
}

pub(super) struct MergedNode {
    pub(super) origin: Origin,
    /// Directories only.
    pub(super) entries: Option<Names>,
}

/// Which rules to merge by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// One tar after another is unpacked.
    Unpack,
    /// The layers' file systems are the lower directories of an overlay.
    Overlay,
}

/// The tree that `layers`, bottom first, make together.
pub(super) fn merge(layers: &[&Tree], rules: Rules) -> Result<Merged, LayerError> {
    let mut merged = Merged {
        nodes: vec![MergedNode {
            origin: (0, NodeId::ROOT),
            entries: Some(Names::new()),
        }],
    };
    for (index, tree) in layers.iter().enumerate() {
        let layer = u16::try_from(index).map_err(|_| LayerError::TooManyNodes)?;
        let mut apply = Apply {
            merged: &mut merged,
            layers,
            layer,
            tree,
            rules,
            links: Vec::new(),
        };
        apply.directory(0, NodeId::ROOT, &mut Vec::new());
        let links = std::mem::take(&mut apply.links);
        for link in links {
            apply.lower_link(link)?;
        }
    }
    Ok(merged)
}

/// One layer being merged.
struct Apply<'a> {
    merged: &'a mut Merged,
    layers: &'a [&'a Tree],
    layer: u16,
    tree: &'a Tree,
    rules: Rules,
    links: Vec<LowerLink>,
}

/// A hard link into a layer below, looked up when the layer's own members are in place.
struct LowerLink {
    parent: usize,
    name: Box<[u8]>,
    path: Vec<u8>,
    target: Box<[u8]>,
}

impl Apply<'_> {
    /// Merges directory `id` of the layer into `into`. `path` leads to it, from the root.
    fn directory(&mut self, into: usize, id: NodeId, path: &mut Vec<usize>) {
        let Some(directory) = self.tree.node(id).directory() else {
            return;
        };
        let takes_over = !directory.implicit || self.rules == Rules::Overlay;
        if takes_over {
            self.merged.nodes[into].origin = (self.layer, id);
        }
        if directory.opaque {
            self.merged.nodes[into].entries = Some(Names::new());
        }
        path.push(into);
        // Deletions and what the tar contains come first: an implicit directory may lead through a link among them.
        let is_implicit = |id: &NodeId| {
            self.tree
                .node(*id)
                .directory()
                .is_some_and(|directory| directory.implicit)
        };
        let (late, early): (Vec<_>, Vec<_>) = directory
            .entries
            .iter()
            .partition(|(_, id)| is_implicit(id));
        for (name, id) in early.into_iter().chain(late) {
            self.entry(into, name, *id, path);
        }
        path.pop();
    }

    fn entry(&mut self, parent: usize, name: &[u8], id: NodeId, path: &mut Vec<usize>) {
        let node = self.tree.node(id);
        match &node.content {
            Content::Whiteout => {
                if let Some(entries) = &mut self.merged.nodes[parent].entries {
                    entries.remove(name);
                }
            }
            Content::LowerLink(target) => {
                if self.rules == Rules::Unpack {
                    let name: Box<[u8]> = name.into();
                    let path = [path_of(self.merged, path).as_slice(), &name].concat();
                    self.links.push(LowerLink {
                        parent,
                        name,
                        path,
                        target: target.clone(),
                    });
                }
            }
            Content::Directory(directory) => {
                let existing = self.merged.child(parent, name);
                let existing_directory =
                    existing.filter(|at| self.merged.nodes[*at].entries.is_some());
                let through_link = || self.follow(path, existing?);
                let into = match existing_directory {
                    Some(at) => Some((at, path.clone())),
                    None if directory.implicit && self.rules == Rules::Unpack => {
                        through_link().map(|mut path| (path.pop().unwrap_or(0), path))
                    }
                    None => None,
                };
                match into {
                    Some((at, mut path)) => self.directory(at, id, &mut path),
                    None => {
                        let at = self.merged.add((self.layer, id), true);
                        self.merged.link(parent, name, at);
                        self.directory(at, id, path);
                    }
                }
            }
            Content::File(_) | Content::Symlink(_) | Content::Device(_) | Content::Fifo => {
                let at = self.merged.add((self.layer, id), false);
                self.merged.link(parent, name, at);
            }
        }
    }

    /// Where symbolic link `at`, which lies in the directory at the end of `path`, leads inside the merged tree;
    /// the nodes from the root to that directory. `None` where it is no link or leads to no directory.
    fn follow(&self, path: &[usize], at: usize) -> Option<Vec<usize>> {
        let mut path = path.to_vec();
        let mut rest: Vec<&[u8]> = Vec::new();
        let mut links = 0;
        let mut next = Some(at);
        loop {
            let node = match next.take() {
                Some(node) => node,
                None => match rest.pop() {
                    None => return Some(path),
                    Some(b"" | b".") => continue,
                    Some(b"..") => {
                        path.truncate((path.len() - 1).max(1));
                        continue;
                    }
                    Some(name) => self.merged.child(*path.last()?, name)?,
                },
            };
            let (layer, id) = self.merged.nodes[node].origin;
            match &self.layers[usize::from(layer)].node(id).content {
                Content::Directory(_) => path.push(node),
                Content::Symlink(target) if links < LINKS_MAX => {
                    links += 1;
                    if target.starts_with(b"/") {
                        path.truncate(1);
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev());
                }
                _ => return None,
            }
        }
    }

    fn lower_link(&mut self, link: LowerLink) -> Result<(), LayerError> {
        let found = self
            .find(&link.target)
            .filter(|at| self.merged.nodes[*at].entries.is_none());
        let Some(at) = found else {
            return Err(LayerError::NoTarget {
                path: shown(&link.path),
                target: shown(&link.target),
            });
        };
        self.merged.link(link.parent, &link.name, at);
        Ok(())
    }

    /// The node at `path`, links on the way followed, a last one not.
    fn find(&self, path: &[u8]) -> Option<usize> {
        let mut at = vec![0];
        let mut names = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let node = self.merged.child(*at.last()?, name)?;
            if names.peek().is_none() {
                return Some(node);
            }
            match self.merged.nodes[node].entries {
                Some(_) => at.push(node),
                None => at = self.follow(&at, node)?,
            }
        }
        None
    }
}

impl Merged {
    fn child(&self, parent: usize, name: &[u8]) -> Option<usize> {
        self.nodes[parent].entries.as_ref()?.get(name).copied()
    }

    fn add(&mut self, origin: Origin, is_directory: bool) -> usize {
        self.nodes.push(MergedNode {
            origin,
            entries: is_directory.then(Names::new),
        });
        self.nodes.len() - 1
    }

    fn link(&mut self, parent: usize, name: &[u8], at: usize) {
        if let Some(entries) = &mut self.nodes[parent].entries {
            entries.insert(name.into(), at);
        }
    }
}

/// The path to the last of `nodes`, with a slash at its end; for messages.
fn path_of(merged: &Merged, nodes: &[usize]) -> Vec<u8> {
    let mut path = Vec::new();
    for pair in nodes.windows(2) {
        let names = merged.nodes[pair[0]].entries.iter().flatten();
        let name = names.into_iter().find(|(_, at)| **at == pair[1]);
        path.extend(name.map(|(name, _)| name.to_vec()).unwrap_or_default());
        path.push(b'/');
    }
    path
}
