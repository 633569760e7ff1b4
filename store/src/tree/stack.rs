//! What a stack of layers means, and what an overlay of them would show instead.
//!
//! Layers are turned into file systems one by one, without knowing the ones below. An overlay of those shows
//! almost always what unpacking the tars one after another would give (image-spec, layer.md, "Applying Changesets"),
//! except where a layer leans on one below: a directory that it does not itself contain takes its attributes there
//! (or is really a symbolic link to follow), and a hard link may lead there. The difference is computed here and becomes
//! one small tree more, laid on top.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;

use super::draft::Draft;
use super::merge::{Merged, MergedKind, MergedNode, Origin, Rules, merge};
use super::{Content, Directory, File, LayerError, Node, NodeId, Tree};
use crate::tar::TarError;

/// The tree to lay on top of `layers` (bottom first) so that their overlay shows what unpacking them would give.
/// `None`: nothing. Its files' `layer` is an index into `layers`.
pub(crate) fn corrections(layers: &[&Tree]) -> Result<Option<Tree>, LayerError> {
    on_deep_stack(|| compare(layers))
}

/// The tree that unpacking `layers` one after another gives; its files' `layer` is an index into `layers`.
pub(crate) fn flatten(layers: &[&Tree]) -> Result<Tree, LayerError> {
    on_deep_stack(|| unpacked(layers))
}

/// The functions here call themselves for every directory level, of which a layer may have [`super::DEPTH_MAX`]:
/// more than the stack of any thread has room for.
fn on_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, LayerError> + Send,
) -> Result<T, LayerError> {
    /// 16 KiB a level, of which a debug build needs a third; memory is only taken for what is used.
    const STACK_BYTES: usize = super::DEPTH_MAX * 16 * 1024;
    let died = || {
        LayerError::from(TarError::from(io::Error::other(
            "the thread that stacks the layers died",
        )))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        let thread = thread.map_err(TarError::from)?;
        thread.join().unwrap_or_else(|_| Err(died()))
    })
}

fn compare(layers: &[&Tree]) -> Result<Option<Tree>, LayerError> {
    let mut right = merge(layers, Rules::Unpack)?;
    right.sort();
    let mut shown = merge(layers, Rules::Overlay)?;
    shown.sort();
    let (draft, changed) = difference(layers, &right, &shown)?;
    Ok(changed.then(|| draft.finish()))
}

fn unpacked(layers: &[&Tree]) -> Result<Tree, LayerError> {
    let mut right = merge(layers, Rules::Unpack)?;
    right.sort();
    let shown = Merged::only_root_of(&right);
    let (mut draft, changed) = difference(layers, &right, &shown)?;
    if !changed {
        let (layer, id) = right.root().origin;
        let root = layers[usize::from(layer)].node(id);
        draft.describe(NodeId::ROOT, &root.attributes)?;
    }
    Ok(draft.finish())
}

/// What turns `shown` into `right`, and whether that is anything.
fn difference(
    layers: &[&Tree],
    right: &Merged<'_>,
    shown: &Merged<'_>,
) -> Result<(Draft, bool), LayerError> {
    let mut difference = Difference {
        layers,
        right,
        shown,
        draft: Draft::new(),
        copies: HashMap::new(),
        path: Vec::new(),
        made: Vec::new(),
    };
    difference.directory(right.root(), shown.root())?;
    let changed = difference.draft.len() > 1 || !difference.made.is_empty();
    Ok((difference.draft, changed))
}

/// The tree that turns `shown` into `right`.
struct Difference<'a> {
    layers: &'a [&'a Tree],
    right: &'a Merged<'a>,
    shown: &'a Merged<'a>,
    draft: Draft,
    /// Files with several names that were already copied, so that hard links stay links.
    copies: HashMap<Origin, NodeId>,
    /// From the root to where we are: name, and what describes it.
    path: Vec<(&'a [u8], Origin)>,
    /// The nodes of the tree that `path` has been given, the root first.
    made: Vec<NodeId>,
}

impl<'a> Difference<'a> {
    /// Compares directory `right` with the directory `shown`.
    fn directory(&mut self, right: MergedNode, shown: MergedNode) -> Result<(), LayerError> {
        if self.differs(right.origin, shown.origin) {
            self.ensure()?;
        }
        if right == shown && right.kind == MergedKind::Whole {
            return Ok(());
        }
        let (rights, showns) = (self.right, self.shown);
        let mut rights = rights.children(right).peekable();
        let mut showns = showns.children(shown).peekable();
        loop {
            let order = match (rights.peek(), showns.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((right, _)), Some((shown, _))) => right.cmp(shown),
            };
            let right = rights.next_if(|_| order.is_le());
            let shown = showns.next_if(|_| order.is_ge());
            match (right, shown) {
                (Some((name, right)), Some((_, shown))) => self.both(name, right, shown)?,
                (Some((name, right)), None) => self.copy(name, right)?,
                (None, Some((name, _))) => {
                    let parent = self.ensure()?;
                    let id = self.draft.add(&Node::whiteout())?;
                    self.draft.link(parent, name, id)?;
                }
                (None, None) => {}
            }
        }
    }

    fn both(
        &mut self,
        name: &'a [u8],
        right: MergedNode,
        shown: MergedNode,
    ) -> Result<(), LayerError> {
        match (right.is_directory(), shown.is_directory()) {
            (true, true) => self.inside(name, right, |this| this.directory(right, shown)),
            (false, false) if right.origin == shown.origin => Ok(()),
            _ => self.copy(name, right),
        }
    }

    fn node(&self, (layer, id): Origin) -> Node<'a> {
        self.layers[usize::from(layer)].node(id)
    }

    /// Whether two descriptions of a directory differ in what matters. The time of an implicit one is nobody's.
    fn differs(&self, right: Origin, shown: Origin) -> bool {
        let (a, b) = (self.node(right).attributes, self.node(shown).attributes);
        right != shown && (a.mode, a.uid, a.gid, a.xattrs) != (b.mode, b.uid, b.gid, b.xattrs)
    }

    fn inside(
        &mut self,
        name: &'a [u8],
        right: MergedNode,
        work: impl FnOnce(&mut Self) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        self.path.push((name, right.origin));
        let done = work(self);
        self.path.pop();
        self.made.truncate(self.path.len() + 1);
        done
    }

    /// Makes the directories down to where we are; the last one.
    fn ensure(&mut self) -> Result<NodeId, LayerError> {
        if self.made.is_empty() {
            let root = self.node(self.right.root().origin);
            self.draft.describe(NodeId::ROOT, &root.attributes)?;
            self.made.push(NodeId::ROOT);
        }
        while self.made.len() <= self.path.len() {
            let (name, origin) = self.path[self.made.len() - 1];
            // The right attributes, and nothing in it.
            let id = self.draft.add(&Node {
                attributes: self.node(origin).attributes,
                content: Content::Directory(Directory::default()),
            })?;
            self.draft.link(self.made[self.made.len() - 1], name, id)?;
            self.made.push(id);
        }
        Ok(self.made[self.made.len() - 1])
    }

    /// Copies what is at `right`, with all that is in it.
    fn copy(&mut self, name: &'a [u8], right: MergedNode) -> Result<(), LayerError> {
        if right.is_directory() {
            return self.inside(name, right, |this| {
                this.ensure()?;
                let merged = this.right;
                merged
                    .children(right)
                    .try_for_each(|(name, node)| this.copy(name, node))
            });
        }
        let parent = self.ensure()?;
        let (layer, id) = right.origin;
        if let Some(copy) = self.copies.get(&right.origin) {
            return self.draft.link_again(parent, name, *copy);
        }
        let mut node = self.node(right.origin);
        if let Content::File(file) = node.content {
            node.content = Content::File(File { layer, ..file });
        }
        let copy = self.draft.add(&node)?;
        if self.layers[usize::from(layer)].has_several_names(id)
            || self.right.is_linked(right.origin)
        {
            self.copies.insert(right.origin, copy);
        }
        self.draft.link(parent, name, copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Attributes, Entry, FileData, Kind};
    use crate::tree::Builder;

    fn layer(members: &[(&str, Kind, u16)]) -> Tree {
        let mut builder = Builder::default();
        for (path, kind, mode) in members {
            let attributes = Attributes {
                mode: *mode,
                ..Attributes::default()
            };
            builder
                .add(Entry {
                    path: path.as_bytes().to_vec(),
                    attributes,
                    kind: kind.clone(),
                })
                .unwrap();
        }
        builder.finish().unwrap()
    }

    fn file() -> Kind {
        Kind::File(FileData {
            size: 1,
            offset: 512,
            odd: None,
        })
    }

    /// The tree as lines: path, mode, kind.
    fn print(tree: &Tree) -> Vec<String> {
        fn walk(tree: &Tree, id: NodeId, path: &str, out: &mut Vec<String>) {
            let node = tree.node(id);
            let kind = match node.content {
                Content::Directory(directory) => {
                    if directory.opaque { "opaque" } else { "dir" }.to_owned()
                }
                Content::File(file) => format!("file of {}", file.layer),
                Content::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
                other => format!("{other:?}"),
            };
            out.push(format!("{path} {:o} {kind}", node.attributes.mode));
            for (name, id) in tree.entries(id) {
                walk(
                    tree,
                    id,
                    &format!("{path}/{}", String::from_utf8_lossy(name)),
                    out,
                );
            }
        }
        let mut out = Vec::new();
        walk(tree, NodeId::ROOT, "", &mut out);
        out
    }

    fn correct(layers: &[&Tree]) -> Vec<String> {
        corrections(layers)
            .unwrap()
            .map(|tree| print(&tree))
            .unwrap_or_default()
    }

    #[test]
    fn layers_that_describe_all_they_touch_need_nothing() {
        let below = layer(&[
            ("./", Kind::Directory, 0o755),
            ("tmp", Kind::Directory, 0o1777),
            ("tmp/a", file(), 0o644),
        ]);
        let above = layer(&[
            ("tmp", Kind::Directory, 0o700),
            ("tmp/.wh.a", file(), 0),
            ("b", file(), 0o600),
        ]);
        assert_eq!(correct(&[&below, &above]), [""; 0]);
        assert!(Dependence::is_plain_stack(&[
            below.dependence(),
            above.dependence()
        ]));
    }

    use crate::tree::Dependence;

    #[test]
    fn tmp_stays_sticky() {
        let below = layer(&[("tmp", Kind::Directory, 0o1777)]);
        let above = layer(&[("tmp/a", file(), 0o644)]);
        assert_eq!(correct(&[&below, &above]), [" 755 dir", "/tmp 1777 dir"]);
        assert!(!Dependence::is_plain_stack(&[
            below.dependence(),
            above.dependence()
        ]));
    }

    #[test]
    fn a_special_root_shows_through() {
        let below = layer(&[("./", Kind::Directory, 0o700)]);
        let above = layer(&[("a", file(), 0o644)]);
        assert_eq!(correct(&[&below, &above]), [" 700 dir"]);
        assert!(!Dependence::is_plain_stack(&[
            below.dependence(),
            above.dependence()
        ]));
    }

    // What merged-/usr images need: lib -> usr/lib below, lib/x in a layer above.
    #[test]
    fn a_path_through_a_lower_symlink_follows_it() {
        let below = layer(&[
            ("usr/lib", Kind::Directory, 0o755),
            ("lib", Kind::Symlink(b"usr/lib".to_vec()), 0o777),
            ("usr/lib/y", file(), 0o644),
        ]);
        let above = layer(&[("lib/x", file(), 0o644), ("lib/.wh.y", file(), 0)]);
        assert_eq!(
            correct(&[&below, &above]),
            [
                " 755 dir",
                "/lib 777 -> usr/lib",
                "/usr 755 dir",
                "/usr/lib 755 dir",
                "/usr/lib/x 644 file of 1",
                "/usr/lib/y 0 Whiteout"
            ]
        );
        assert_eq!(
            print(&flatten(&[&below, &above]).unwrap()),
            [
                " 755 dir",
                "/lib 777 -> usr/lib",
                "/usr 755 dir",
                "/usr/lib 755 dir",
                "/usr/lib/x 644 file of 1"
            ]
        );
    }

    #[test]
    fn a_hard_link_into_a_lower_layer_is_resolved() {
        let below = layer(&[("a", file(), 0o640)]);
        let above = layer(&[
            ("b", Kind::HardLink(b"a".to_vec()), 0o640),
            ("c", Kind::HardLink(b"b".to_vec()), 0o640),
        ]);
        let tree = corrections(&[&below, &above]).unwrap().unwrap();
        assert_eq!(
            print(&tree),
            [" 755 dir", "/b 640 file of 0", "/c 640 file of 0"]
        );
        assert_eq!(
            tree.lookup(NodeId::ROOT, b"b"),
            tree.lookup(NodeId::ROOT, b"c")
        );
        let nowhere = layer(&[("b", Kind::HardLink(b"x".to_vec()), 0o640)]);
        assert!(matches!(
            corrections(&[&below, &nowhere]),
            Err(LayerError::NoTarget { .. })
        ));
    }

    // image-spec, layer.md: whiteouts only take from layers below, wherever they stand in the tar.
    #[test]
    fn whiteouts_and_files_of_one_layer() {
        let below = layer(&[
            ("d", Kind::Directory, 0o755),
            ("d/old", file(), 0o644),
            ("f", file(), 0o644),
        ]);
        let above = layer(&[
            ("d", Kind::Directory, 0o700),
            ("d/new", file(), 0o644),
            (".wh.d", file(), 0),
            (".wh.f", file(), 0),
        ]);
        assert_eq!(
            print(&flatten(&[&below, &above]).unwrap()),
            [" 755 dir", "/d 700 dir", "/d/new 644 file of 1"]
        );
        assert_eq!(correct(&[&below, &above]), [""; 0]);
    }

    // security.md, S24.
    #[test]
    fn whiteouts_of_nothing_are_refused() {
        for path in [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.a/b"] {
            let entry = Entry {
                path: path.as_bytes().to_vec(),
                attributes: Attributes::default(),
                kind: file(),
            };
            assert!(Builder::default().add(entry).is_err(), "{path}");
        }
    }

    // security.md, S1 to S6: nothing leads out, because paths are resolved in the tree and nowhere else.
    #[test]
    fn links_resolve_inside_the_root() {
        let tree = layer(&[
            ("out", Kind::Symlink(b"/../../etc".to_vec()), 0o777),
            ("out/x", file(), 0o600),
        ]);
        assert_eq!(
            print(&tree),
            [
                " 755 dir",
                "/etc 755 dir",
                "/etc/x 600 file of 0",
                "/out 777 -> /../../etc"
            ]
        );
        for (path, kind) in [
            ("../x", file()),
            ("a/../../x", file()),
            (".", Kind::Symlink(b"x".to_vec())),
            ("", Kind::Directory),
            ("etc/..", Kind::Symlink(b"x".to_vec())),
        ] {
            let entry = Entry {
                path: path.as_bytes().to_vec(),
                attributes: Attributes::default(),
                kind,
            };
            assert!(Builder::default().add(entry).is_err(), "{path}");
        }
    }
}
