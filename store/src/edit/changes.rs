//! How a directory differs from the tree that was unpacked into it.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, major, minor, readlinkat, statat};

use super::stamps::Stamps;
use crate::descent::{Descent, open_own};
use crate::identity;
use crate::layer::{Observed, UpperError};
use crate::tar::content::{Content as FileContent, same};
use crate::tar::{Attributes, Time};
use crate::tree::{self, Content, Node, NodeId, Tree};

/// What changed, by paths relative to the root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The root itself, where its owner, mode or attributes changed.
    pub(crate) root: Option<Attributes>,
    /// What is new or different: members of the new layer.
    pub(crate) taken: BTreeSet<Vec<u8>>,
    /// What is gone: names by directory.
    pub(crate) removed: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Changes {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none() && self.taken.is_empty() && self.removed.is_empty()
    }

    /// One of them, if there are any.
    pub(crate) fn first(&self) -> Option<Vec<u8>> {
        let root = self.root.as_ref().map(|_| b"/".to_vec());
        let gone = || {
            let (directory, names) = self.removed.iter().next()?;
            Some([directory, &b"/"[..], names.first()?].concat())
        };
        root.or_else(|| self.taken.first().cloned()).or_else(gone)
    }

    /// The directories on the way to what changed.
    pub(crate) fn ways(&self) -> BTreeSet<Vec<u8>> {
        let mut ways = BTreeSet::new();
        for path in self.taken.iter().chain(self.removed.keys()) {
            for (at, byte) in path.iter().enumerate() {
                if *byte == b'/' {
                    ways.insert(path[..at].to_vec());
                }
            }
        }
        ways.extend(self.removed.keys().cloned());
        ways
    }
}

/// An image's root filesystem, and what was unpacked of it.
pub(crate) struct Before<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) tars: &'a [File],
    pub(crate) stamps: &'a Stamps,
}

type Failed = (&'static str, io::Error);

/// Compares what is below `root` with what was unpacked there. `masked` paths, and all below them, are passed over.
pub(crate) fn find(
    before: &Before<'_>,
    root: BorrowedFd<'_>,
    masked: &dyn Fn(&[u8]) -> bool,
) -> Result<Changes, UpperError> {
    let wrong = |path: &[u8], (action, source): Failed| UpperError::new(action, path, source);
    let descent = Descent::new(root).map_err(|err| wrong(b".", ("open", err)))?;
    let mut search = Search {
        before,
        masked,
        descent,
        path: Vec::new(),
        changes: Changes::default(),
    };
    search.run().map_err(|failed| wrong(&search.path, failed))?;
    Ok(search.changes)
}

struct Search<'a> {
    before: &'a Before<'a>,
    masked: &'a dyn Fn(&[u8]) -> bool,
    descent: Descent,
    path: Vec<u8>,
    changes: Changes,
}

/// A directory on the way.
struct Frame {
    /// What it was, if it was one.
    was: Option<NodeId>,
    names: btree_map::IntoIter<Vec<u8>, Option<(usize, NodeId)>>,
    /// Length of the path of its parent.
    parent_path: usize,
}

/// What a name has to be done with.
enum Next {
    Nothing,
    Enter(Option<NodeId>),
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), Failed> {
        self.root()?;
        let mut frames = vec![self.frame(Some(NodeId::ROOT), 0)?];
        while let Some(frame) = frames.last_mut() {
            let Some((name, place)) = frame.names.next() else {
                self.path.truncate(frame.parent_path);
                frames.pop();
                self.descent.leave().map_err(|err| ("leave", err))?;
                continue;
            };
            let was = frame.was.zip(place);
            let parent_path = self.path.len();
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let next = match (self.masked)(&self.path) {
                true => Next::Nothing,
                false => self.look(was, &name, parent_path)?,
            };
            match next {
                Next::Nothing => self.path.truncate(parent_path),
                Next::Enter(was) => {
                    self.descent.enter(&name).map_err(|err| ("open", err))?;
                    frames.push(self.frame(was, parent_path)?);
                }
            }
        }
        Ok(())
    }

    /// The root's time says only that something in it came or went.
    fn root(&mut self) -> Result<(), Failed> {
        let here = self.descent.here();
        let stat = statat(here, c".", AtFlags::empty()).map_err(|errno| ("stat", errno.into()))?;
        let is = Observed::of(here, b".", &stat)?.attributes;
        let was = self.before.tree.node(NodeId::ROOT).attributes;
        if !is_described_alike(&is, was) {
            self.changes.root = Some(is);
        }
        Ok(())
    }

    /// All names that are or were in the directory where we are, with the places of those that were.
    fn frame(&self, was: Option<NodeId>, parent_path: usize) -> Result<Frame, Failed> {
        let names = self.descent.names().map_err(|err| ("list", err))?;
        let mut names: BTreeMap<_, _> = names.into_iter().map(|name| (name, None)).collect();
        let entries = was
            .into_iter()
            .flat_map(|was| self.before.tree.entries(was));
        for (at, (name, id)) in entries.enumerate() {
            names.insert(name.to_vec(), Some((at, id)));
        }
        Ok(Frame {
            was,
            names: names.into_iter(),
            parent_path,
        })
    }

    /// Notes how `name` differs from `was`: its directory, its place there, and itself.
    fn look(
        &mut self,
        was: Option<(NodeId, (usize, NodeId))>,
        name: &[u8],
        parent_path: usize,
    ) -> Result<Next, Failed> {
        let stat = match statat(self.descent.here(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => None,
            // No archive can hold a socket.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => None,
            other => Some(other.map_err(|errno| ("stat", errno.into()))?),
        };
        let Some(stat) = stat else {
            // A hard link into a lower layer is nothing in a layer's own directory.
            let was = was.map(|(_, (_, id))| self.before.tree.node(id).content);
            if was.is_some_and(|was| !matches!(was, Content::LowerLink(_))) {
                let directory = self.path[..parent_path].to_vec();
                let removed = self.changes.removed.entry(directory).or_default();
                removed.push(name.to_vec());
            }
            return Ok(Next::Nothing);
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (is_same, below) = match was {
            None => (false, None),
            Some((parent, (at, id))) => {
                let node = self.before.tree.node(id);
                let vouched = self.before.stamps.vouches(parent, at, &stat);
                let is_same = vouched || self.is_like(name, &stat, &node)?;
                (is_same, node.directory().map(|_| id))
            }
        };
        if !is_same {
            self.changes.taken.insert(self.path.clone());
        }
        Ok(match is_directory {
            true => Next::Enter(below),
            false => Next::Nothing,
        })
    }

    /// Whether file and node are the same in all that a layer can say.
    fn is_like(&self, name: &[u8], stat: &Stat, node: &Node<'_>) -> Result<bool, Failed> {
        if node.content == Content::Whiteout {
            let kind = FileType::from_raw_mode(stat.st_mode);
            return Ok(kind == FileType::CharacterDevice && stat.st_rdev == 0);
        }
        let observed = Observed::of(self.descent.here(), name, stat)?;
        let (is, was) = (&observed.attributes, node.attributes);
        // Who cannot give links away cannot write down either to whom they should belong.
        let is_anyones = !identity::own().is_whole
            && matches!(node.content, Content::Symlink(_) | Content::Fifo);
        let is_alike = is_described_alike(is, was) || is_anyones && is.mode == was.mode;
        let same_attributes = is_alike && same_time(is.mtime, was.mtime);
        if let (Some(device), Content::Device(was)) = (observed.device, node.content) {
            return Ok(same_attributes && device == was);
        }
        Ok(same_attributes && self.same_content(name, stat, node)?)
    }

    fn same_content(&self, name: &[u8], stat: &Stat, node: &Node<'_>) -> Result<bool, Failed> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let here = self.descent.here();
        Ok(match node.content {
            Content::Directory(_) => kind == FileType::Directory,
            Content::Fifo => kind == FileType::Fifo,
            Content::Symlink(target) => {
                kind == FileType::Symlink
                    && readlinkat(here, name, Vec::new())
                        .map_err(|errno| ("read link", errno.into()))?
                        .to_bytes()
                        == target
            }
            Content::Device(device) => {
                let wanted = match device.block {
                    true => FileType::BlockDevice,
                    false => FileType::CharacterDevice,
                };
                let number = (major(stat.st_rdev), minor(stat.st_rdev));
                kind == wanted && number == (device.major, device.minor)
            }
            Content::File(file) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let tar = self.before.tars.get(usize::from(file.layer));
                let (FileType::RegularFile, true, Some(tar)) = (kind, size == file.size, tar)
                else {
                    return Ok(false);
                };
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let here = open_own(here, name, flags).map_err(|err| ("open", err))?;
                let was = FileContent::new(tar, file.size, file.offset, file.odd);
                same(File::from(here), was).map_err(|err| ("read", err))?
            }
            Content::Whiteout | Content::LowerLink(_) => false,
        })
    }
}

/// Whether all but the time is the same.
fn is_described_alike(is: &Attributes, was: tree::Attributes<'_>) -> bool {
    (is.mode, is.uid, is.gid) == (was.mode, was.uid, was.gid) && was.xattrs == is.xattrs
}

/// A file system without fractions of seconds keeps the seconds.
fn same_time(is: Time, was: Time) -> bool {
    is == was || (is.nanoseconds == 0 && is.seconds == was.seconds)
}
