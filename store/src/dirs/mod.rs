//! Trees as directories: writes a [`Tree`] below a directory descriptor, file by file.
//!
//! No path of the tree is ever resolved: every directory is made, opened without following links and entered by its
//! descriptor. The way back up is checked against what was entered, so that whoever renames directories meanwhile
//! can make us fail but not write elsewhere (security.md, S1 to S6).

mod attributes;
mod content;
mod remove;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use crate::identity;
use crate::tar::Device;
use crate::tree::{Content, Node, NodeId, Paths, Tree};

pub(crate) use remove::remove;

/// What a tree is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A lower directory of an overlay: deletions as devices 0:0, opaque directories marked.
    Overlay,
    /// A root file system on its own; the tree has no deletions.
    Plain,
}

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {:?}", String::from_utf8_lossy(path))]
pub struct WriteError {
    action: &'static str,
    /// Relative to the tree's root.
    path: Vec<u8>,
    source: io::Error,
}

/// Writes `tree` into the empty directory `root`. `tars` hold the files' data, by the number in their `layer`.
/// Nothing is synced.
pub(crate) fn write(
    tree: &Tree,
    tars: &[&File],
    root: BorrowedFd<'_>,
    form: Form,
) -> Result<(), WriteError> {
    let first = |source: io::Error| WriteError {
        action: "open",
        path: b"/".to_vec(),
        source,
    };
    let here = rustix::io::fcntl_dupfd_cloexec(root, 0).map_err(|errno| first(errno.into()))?;
    let writer = Writer {
        tree,
        tars,
        form,
        here,
        path: Vec::new(),
        links: HashMap::new(),
        paths: (!tree.several_names().is_empty()).then(|| tree.paths()),
        root,
    };
    writer.run()
}

struct Writer<'a> {
    tree: &'a Tree,
    tars: &'a [&'a File],
    form: Form,
    root: BorrowedFd<'a>,
    /// The directory being filled, and its path.
    here: OwnedFd,
    path: Vec<u8>,
    /// Of each file made that has several names, the place of the first.
    links: HashMap<NodeId, usize>,
    /// Where those places are; `None`: no file has several names.
    paths: Option<Paths<'a>>,
}

/// A directory that was entered.
struct Frame {
    id: NodeId,
    /// Places of the entries that are not there yet.
    rest: Range<usize>,
    /// Device and inode of the directory, to know it again on the way back.
    identity: (u64, u64),
    /// Length of the path of its parent.
    parent_path: usize,
}

type Done<T = ()> = Result<T, (&'static str, io::Error)>;

/// Says what was attempted.
trait Doing<T> {
    fn doing(self, action: &'static str) -> Done<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, action: &'static str) -> Done<T> {
        self.map_err(|err| (action, err.into()))
    }
}

impl Writer<'_> {
    fn run(mut self) -> Result<(), WriteError> {
        let done = self.walk();
        done.map_err(|(action, source)| WriteError {
            action,
            path: self.path,
            source,
        })
    }

    fn walk(&mut self) -> Done {
        let mut frames = vec![self.frame(NodeId::ROOT, 0)?];
        while let Some(frame) = frames.last_mut() {
            let Some(place) = frame.rest.next() else {
                let Some(done) = frames.pop() else { break };
                // Its mode may be one that would not let us leave it.
                let parent = frames.last().map(|parent| self.up(parent.identity));
                let parent = parent.transpose()?;
                attributes::set_directory(self.here.as_fd(), &self.tree.node(done.id), self.form)?;
                if let Some(parent) = parent {
                    self.here = parent;
                    self.path.truncate(done.parent_path);
                }
                continue;
            };
            let (name, id) = self.tree.entry(place);
            let parent_path = self.path.len();
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if self.tree.directory(id).is_some() {
                mkdirat(&self.here, name, Mode::RWXU).doing("create directory")?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.here =
                    openat(&self.here, name, flags, Mode::empty()).doing("open directory")?;
                frames.push(self.frame(id, parent_path)?);
            } else {
                self.leaf(place)?;
                self.path.truncate(parent_path);
            }
        }
        Ok(())
    }

    fn frame(&self, id: NodeId, parent_path: usize) -> Done<Frame> {
        let stat = fstat(&self.here).doing("stat")?;
        Ok(Frame {
            id,
            rest: self.tree.places(id),
            identity: (stat.st_dev, stat.st_ino),
            parent_path,
        })
    }

    /// Back to the parent, which must be the one we came from.
    fn up(&self, identity: (u64, u64)) -> Done<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = openat(&self.here, c"..", flags, Mode::empty()).doing("leave directory")?;
        let stat = fstat(&parent).doing("stat")?;
        if (stat.st_dev, stat.st_ino) != identity {
            return Err((
                "leave directory",
                io::Error::other("somebody moved it meanwhile"),
            ));
        }
        Ok(parent)
    }

    /// Makes anything but a directory.
    fn leaf(&mut self, place: usize) -> Done {
        let (name, id) = self.tree.entry(place);
        let node = self.tree.node(id);
        if let Some(paths) = &self.paths
            && self.tree.has_several_names(id)
            && !matches!(node.content, Content::LowerLink(_))
        {
            if let Some(first) = self.links.get(&id) {
                let first = paths.of(*first);
                return linkat(self.root, first, &self.here, name, AtFlags::empty()).doing("link");
            }
            self.links.insert(id, place);
        }
        match node.content {
            // A hard link into a lower layer is settled by the corrections.
            Content::Directory(_) | Content::LowerLink(_) => return Ok(()),
            Content::File(file) => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let out =
                    openat(&self.here, name, flags, Mode::RUSR | Mode::WUSR).doing("create")?;
                let tar = self
                    .tars
                    .get(usize::from(file.layer))
                    .ok_or(("read", io::ErrorKind::NotFound.into()))?;
                content::copy(file, tar, &File::from(out), |out| {
                    attributes::set_file(out, &node)
                })?;
            }
            Content::Symlink(target) => {
                symlinkat(target, &self.here, name).doing("create symbolic link")?;
                attributes::set_named(self.here.as_fd(), name, &node)?;
            }
            Content::Device(device) => self.device(name, device, &node)?,
            Content::Fifo => {
                mknodat(&self.here, name, FileType::Fifo, Mode::empty(), 0).doing("create pipe")?;
                attributes::set_named(self.here.as_fd(), name, &node)?;
            }
            Content::Whiteout => {
                mknodat(
                    &self.here,
                    name,
                    FileType::CharacterDevice,
                    Mode::empty(),
                    0,
                )
                .doing("create whiteout")?;
            }
        }
        Ok(())
    }

    /// Makes a device, or an empty file that stands for it where devices may not be made.
    fn device(&self, name: &[u8], device: Device, node: &Node<'_>) -> Done {
        let kind = match device.block {
            true => FileType::BlockDevice,
            false => FileType::CharacterDevice,
        };
        let number = makedev(device.major, device.minor);
        match mknodat(&self.here, name, kind, Mode::empty(), number) {
            Err(Errno::PERM) if !identity::own().is_whole => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&self.here, name, flags, Mode::RUSR | Mode::WUSR);
                attributes::set_file(&File::from(file.doing("create")?), node)
            }
            made => {
                made.doing("create device")?;
                attributes::set_named(self.here.as_fd(), name, node)
            }
        }
    }
}
