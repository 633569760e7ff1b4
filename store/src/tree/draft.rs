//! A tree being made: names are found by a hash table until all are there, and sorted once, at the end.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::record::{self, PackedTime, Record, Shape};
use super::text::{Text, Xattrs};
use super::{
    Attributes, Content, Directory, Entry, File, LayerError, NODES_MAX, Node, NodeId, Owner, Tree,
};
use crate::tar::{FileData, Odd};

/// What an attribute's place in memory costs beside its own bytes, while a layer is read and its index is written.
const XATTR_BYTES: usize = 128;

/// A tree being made. Directories have no entries to walk yet, only names to look up.
#[derive(Debug)]
pub(super) struct Draft {
    tree: Tree,
    /// Places of `tree.entries`, by directory and name.
    names: HashTable<u32>,
    /// Places of `tree.owners`, by content.
    owners: HashTable<u32>,
    /// Places of `tree.owners`, by attributes: the first with each.
    xattrs: HashTable<u32>,
    /// Its keys are drawn at random, so that no archive can choose names that collide.
    hasher: RandomState,
    /// Bytes of the tree that are not in its records, entries and text.
    other_bytes: usize,
}

impl Draft {
    /// A tree of a root that nothing describes.
    pub(super) fn new() -> Draft {
        let mut draft = Draft {
            tree: Tree {
                records: Vec::new(),
                entries: Vec::new(),
                text: Text::default(),
                owners: Vec::new(),
                odd: Vec::new(),
                times: Vec::new(),
                several_names: Vec::new(),
                has_lower_links: false,
            },
            names: HashTable::new(),
            owners: HashTable::new(),
            xattrs: HashTable::new(),
            hasher: RandomState::new(),
            other_bytes: 0,
        };
        // An empty tree has room for it.
        let _ = draft.add(&Node::implicit_directory());
        draft
    }

    pub(super) fn node(&self, id: NodeId) -> Node<'_> {
        self.tree.node(id)
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<Directory> {
        self.tree.directory(id)
    }

    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    /// Bytes of names, link targets, attributes and sparse maps, and what keeping them costs.
    pub(super) fn kept_bytes(&self) -> usize {
        self.tree.text.len() + size_of_val(self.tree.times.as_slice()) + self.other_bytes
    }

    /// Keeps a name that is not given to anything yet; its place.
    pub(super) fn keep_name(&mut self, name: &[u8]) -> Result<u32, LayerError> {
        self.tree
            .text
            .push_name(name)
            .ok_or(LayerError::TooMuchText)
    }

    /// A name that was kept.
    pub(super) fn name(&self, place: u32) -> &[u8] {
        self.tree.text.name(place)
    }

    /// Adds a node without a name.
    pub(super) fn add(&mut self, node: &Node<'_>) -> Result<NodeId, LayerError> {
        if self.tree.records.len() == NODES_MAX {
            return Err(LayerError::TooManyNodes);
        }
        let id = u32::try_from(self.tree.records.len()).map_err(|_| LayerError::TooManyNodes)?;
        let (shape, a, b) = self.pack(&node.content)?;
        let Attributes { mode, mtime, .. } = node.attributes;
        let time = PackedTime::pack(mtime, &mut self.tree.times);
        let owner = self.owner(&node.attributes)?;
        self.tree.has_lower_links |= shape == Shape::LowerLink;
        let mut record = Record::new(shape, mode, owner, time);
        (record.a, record.b) = (a, b);
        if let Content::File(file) = node.content {
            record.layer = file.layer;
        }
        self.tree.records.push(record);
        Ok(NodeId(id))
    }

    /// The shape and the two numbers of a record.
    fn pack(&mut self, content: &Content<'_>) -> Result<(Shape, u32, u32), LayerError> {
        let text = |text: &mut Text, shape, target: &[u8]| {
            let (at, length) = text.push(target).ok_or(LayerError::TooMuchText)?;
            Ok((shape, at, length))
        };
        match content {
            Content::Directory(directory) => Ok((Shape::of_directory(*directory), 0, 0)),
            Content::File(file) => Ok(record::plain_file(file).unwrap_or_else(|| {
                let odd = self.keep_odd(file);
                (Shape::OddFile, odd, 0)
            })),
            Content::Symlink(target) => text(&mut self.tree.text, Shape::Symlink, target),
            Content::LowerLink(target) => text(&mut self.tree.text, Shape::LowerLink, target),
            Content::Device(device) => Ok(record::device(*device)),
            Content::Fifo => Ok((Shape::Fifo, 0, 0)),
            Content::Whiteout => Ok((Shape::Whiteout, 0, 0)),
        }
    }

    fn keep_odd(&mut self, file: &File<'_>) -> u32 {
        let extents = match file.odd {
            Some(Odd::Sparse(extents)) => size_of_val(extents.as_ref()),
            Some(Odd::DirtyPadding) | None => 0,
        };
        self.other_bytes += size_of::<FileData>() + extents;
        self.tree.odd.push(FileData {
            size: file.size,
            offset: file.offset,
            odd: file.odd.cloned(),
        });
        // There are at most as many as nodes.
        u32::try_from(self.tree.odd.len() - 1).unwrap_or(u32::MAX)
    }

    /// The index of an owner with attributes; each stands once.
    fn owner(&mut self, attributes: &Attributes<'_>) -> Result<u32, LayerError> {
        let xattrs = self.keep_xattrs(attributes.xattrs)?;
        let owner = Owner {
            uid: attributes.uid,
            gid: attributes.gid,
            xattrs,
        };
        let Draft {
            tree,
            owners,
            xattrs: by_xattrs,
            hasher,
            other_bytes,
            ..
        } = self;
        let hash = hasher.hash_one(owner);
        if let Some(at) = owners.find(hash, |at| tree.owners[*at as usize] == owner) {
            return Ok(*at);
        }
        let at = u32::try_from(tree.owners.len()).map_err(|_| LayerError::TooManyNodes)?;
        tree.owners.push(owner);
        *other_bytes += 2 * size_of::<Owner>();
        owners.insert_unique(hash, at, |at| hasher.hash_one(tree.owners[*at as usize]));
        let text_of = |at: &u32| tree.text.get(tree.owners[*at as usize].xattrs);
        let text = tree.text.get(xattrs);
        if by_xattrs
            .find(hasher.hash_one(text), |at| text_of(at) == text)
            .is_none()
        {
            by_xattrs.insert_unique(hasher.hash_one(text), at, |at| hasher.hash_one(text_of(at)));
        }
        Ok(at)
    }

    /// The place of attributes in the text; each set stands once.
    fn keep_xattrs(&mut self, wanted: Xattrs<'_>) -> Result<(u32, u32), LayerError> {
        if wanted.is_empty() {
            return Ok((0, 0));
        }
        let tree = &mut self.tree;
        let text_of = |at: &u32| tree.text.get(tree.owners[*at as usize].xattrs);
        let found = self
            .xattrs
            .find(self.hasher.hash_one(wanted.0), |at| text_of(at) == wanted.0);
        if let Some(at) = found {
            return Ok(tree.owners[*at as usize].xattrs);
        }
        self.other_bytes += XATTR_BYTES * wanted.iter().count();
        tree.text.push(wanted.0).ok_or(LayerError::TooMuchText)
    }

    /// Gives `id` a name in directory `parent`; what had it loses it.
    pub(super) fn link(
        &mut self,
        parent: NodeId,
        name: &[u8],
        id: NodeId,
    ) -> Result<(), LayerError> {
        let Draft {
            tree,
            names,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one((parent, name));
        if let Some(at) = names.find(hash, |at| is_named(tree, *at, parent, name)) {
            tree.entries[*at as usize].node = id;
            return Ok(());
        }
        let at = u32::try_from(tree.entries.len()).map_err(|_| LayerError::TooManyNodes)?;
        let name = tree.text.push_name(name).ok_or(LayerError::TooMuchText)?;
        tree.entries.push(Entry {
            parent,
            name,
            node: id,
        });
        names.insert_unique(hash, at, |at| {
            let entry = tree.entries[*at as usize];
            hasher.hash_one((entry.parent, tree.text.name(entry.name)))
        });
        Ok(())
    }

    /// As [`Draft::link`], for what has, or had, another name.
    pub(super) fn link_again(
        &mut self,
        parent: NodeId,
        name: &[u8],
        id: NodeId,
    ) -> Result<(), LayerError> {
        self.tree.several_names.push(id);
        self.link(parent, name, id)
    }

    /// What `name` means in directory `parent` now.
    pub(super) fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hasher.hash_one((parent, name));
        let at = self
            .names
            .find(hash, |at| is_named(&self.tree, *at, parent, name))?;
        Some(self.tree.entries[*at as usize].node)
    }

    /// Gives a directory its attributes: nothing below describes it any more.
    pub(super) fn describe(
        &mut self,
        id: NodeId,
        attributes: &Attributes<'_>,
    ) -> Result<(), LayerError> {
        let owner = self.owner(attributes)?;
        let time = PackedTime::pack(attributes.mtime, &mut self.tree.times);
        let record = &mut self.tree.records[id.index()];
        record.set_mode(attributes.mode);
        (record.owner, record.time) = (owner, time);
        self.change_directory(id, |directory| directory.implicit = false);
        Ok(())
    }

    /// Nothing of the layers below shows in directory `id`.
    pub(super) fn mark_opaque(&mut self, id: NodeId) {
        self.change_directory(id, |directory| directory.opaque = true);
    }

    fn change_directory(&mut self, id: NodeId, change: impl FnOnce(&mut Directory)) {
        let record = &mut self.tree.records[id.index()];
        if let Some(mut directory) = record.directory() {
            change(&mut directory);
            record.set_shape(Shape::of_directory(directory));
        }
    }

    /// The bytes after the data of file `id` are not zero; a sparse file is copied anyway.
    pub(super) fn mark_dirty_padding(&mut self, id: NodeId) {
        let record = &mut self.tree.records[id.index()];
        match record.shape() {
            Shape::File => record.set_shape(Shape::DirtyFile),
            Shape::OddFile => {
                let odd = &mut self.tree.odd[record.a as usize].odd;
                odd.get_or_insert(Odd::DirtyPadding);
            }
            _ => {}
        }
    }

    /// The tree, its entries in order.
    pub(super) fn finish(self) -> Tree {
        let Draft { mut tree, .. } = self;
        tree.several_names.sort_unstable();
        tree.several_names.dedup();
        let Tree {
            entries,
            text,
            records,
            ..
        } = &mut tree;
        entries.sort_unstable_by(|a, b| {
            let names = || text.name(a.name).cmp(text.name(b.name));
            a.parent.cmp(&b.parent).then_with(names)
        });
        let mut first = 0;
        for children in entries.chunk_by(|a, b| a.parent == b.parent) {
            let directory = &mut records[children[0].parent.index()];
            // There are as many entries as fit a number of 4 bytes.
            directory.a = u32::try_from(first).unwrap_or(u32::MAX);
            directory.b = u32::try_from(children.len()).unwrap_or(u32::MAX);
            first += children.len();
        }
        tree
    }
}

fn is_named(tree: &Tree, at: u32, parent: NodeId, name: &[u8]) -> bool {
    let entry = &tree.entries[at as usize];
    entry.parent == parent && tree.text.name(entry.name) == name
}
