//! The file system of a result as plain files, or as one tar.

use super::{Built, Place};
use crate::copy::layer::xattrs;
use crate::copy::{CopyError, layer};
use crate::pattern::ignore::Rules;
use crate::storage::{Storage, StorageError};
use crate::tree::walk::{Excluding, Found, walk};
use crate::tree::{Kind, Meta, Root, TreeError};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, linkat, mkdirat, mknodat,
    openat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use teu_store::tar::{Attributes, Device, Writer};

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The result's file system.
    #[error("read the result")]
    Tree(#[from] TreeError),
    /// The same, while a tar is written.
    #[error("write the tar")]
    Copy(#[from] CopyError),
    /// The destination.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> FilesError + use<E> {
    let path = path.to_owned();
    move |source| FilesError::File {
        action,
        path,
        source: source.into(),
    }
}

/// A tree and what is in it.
type Contents = (Arc<Root>, Vec<Found>);

/// The result's tree, and everything in it, parents first.
fn contents(storage: &Storage, built: &Built) -> Result<Option<Contents>, FilesError> {
    if built.layers.is_empty() {
        return Ok(None);
    }
    let root = storage.view(&built.layers)?;
    let rules = Rules::default();
    let found = walk(&root, Path::new(""), "", &Excluding(&rules))?;
    Ok(Some((root, found)))
}

/// Writes the file system as a tar. The same result gives the same bytes. A file appears when it is whole.
///
/// # Errors
/// The result cannot be read, or the place not be written to.
pub(super) fn tar(storage: &Storage, built: &Built, place: &Place) -> Result<(), FilesError> {
    match place {
        Place::Stdout => write_tar(storage, built, io::stdout().lock()),
        Place::Path(path) => {
            let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
            let file = File::create_new(&unfinished).map_err(failed("create", path))?;
            let written = write_tar(storage, built, file)
                .and_then(|()| std::fs::rename(&unfinished, path).map_err(failed("write", path)));
            if written.is_err() {
                let _ = std::fs::remove_file(&unfinished);
            }
            written
        }
    }
}

fn write_tar(storage: &Storage, built: &Built, out: impl Write) -> Result<(), FilesError> {
    match contents(storage, built)? {
        Some((root, found)) => write_members(&root, &found, out),
        None => Ok(Writer::new(out)
            .finish()
            .map(drop)
            .map_err(CopyError::Write)?),
    }
}

/// Writes a tree as a tar, names in byte order.
///
/// # Errors
/// The tree cannot be read, or the stream not be written.
pub(crate) fn tree_to_tar(root: &Root, out: impl Write) -> Result<(), FilesError> {
    let rules = Rules::default();
    let found = walk(root, Path::new(""), "", &Excluding(&rules))?;
    write_members(root, &found, out)
}

fn write_members(root: &Root, found: &[Found], out: impl Write) -> Result<(), FilesError> {
    let mut tar = Writer::new(BufWriter::new(out));
    let mut links = HashMap::new();
    for one in found {
        member(&mut tar, root, one, &mut links)?;
    }
    let mut out = tar.finish().map_err(CopyError::Write)?;
    out.flush().map_err(CopyError::Write)?;
    Ok(())
}

fn member(
    tar: &mut Writer<impl Write>,
    root: &Root,
    found: &Found,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> Result<(), FilesError> {
    let (path, meta) = (&found.relative, &found.meta);
    let name = path.as_os_str().as_bytes();
    let mut attributes = Attributes {
        mode: u16::try_from(meta.mode & 0o7777).unwrap_or(0),
        uid: meta.uid,
        gid: meta.gid,
        mtime: layer::clamp(meta.mtime, meta.mtime),
        ..Attributes::default()
    };
    if matches!(meta.kind, Kind::File | Kind::Directory) {
        attributes.xattrs = xattrs(root, path)?;
    }
    let device = |block, major, minor| Device {
        block,
        major,
        minor,
    };
    match meta.kind {
        Kind::Directory => tar.directory(name, &attributes),
        Kind::File => match first_name(links, meta, path) {
            Some(first) => tar.hard_link(name, &attributes, first.as_os_str().as_bytes()),
            None => tar.file(name, &attributes, meta.size, root.open_file(path)?),
        },
        Kind::Symlink => {
            let target = root.read_link(path)?;
            tar.symlink(name, &attributes, target.as_os_str().as_bytes())
        }
        Kind::Fifo | Kind::Socket => tar.fifo(name, &attributes),
        Kind::Block(major, minor) => tar.device(name, &attributes, device(true, major, minor)),
        Kind::Character(major, minor) => tar.device(name, &attributes, device(false, major, minor)),
    }
    .map_err(CopyError::Write)?;
    Ok(())
}

/// The first name of a file that has several, if this is not it.
fn first_name(
    links: &mut HashMap<(u64, u64), PathBuf>,
    meta: &Meta,
    path: &Path,
) -> Option<PathBuf> {
    if meta.links < 2 {
        return None;
    }
    if let Some(first) = links.get(&meta.id) {
        return Some(first.clone());
    }
    links.insert(meta.id, path.to_owned());
    None
}

/// Writes the file systems below `directory`, each in one of its own where there are several.
/// What is there stays, unless the result has a file of that name. Owners are whoever we are.
///
/// # Errors
/// The result cannot be read, or a directory stands where a file should.
pub(super) fn directory(
    storage: &Storage,
    built: &[Built],
    directory: &Path,
    split: Option<bool>,
) -> Result<(), FilesError> {
    let split = split.unwrap_or(built.len() > 1);
    for one in built {
        let target = if split {
            directory.join(one.platform.to_string().replace('/', "_"))
        } else {
            directory.to_owned()
        };
        std::fs::create_dir_all(&target).map_err(failed("create", &target))?;
        if let Some((root, found)) = contents(storage, one)? {
            write_files(&root, &found, &target, false)?;
        }
    }
    Ok(())
}

/// Writes a tree's files into a directory, owners as they are.
///
/// # Errors
/// The tree cannot be read, or a directory stands where a file should.
pub(crate) fn tree_to_directory(root: &Root, directory: &Path) -> Result<(), FilesError> {
    let rules = Rules::default();
    let found = walk(root, Path::new(""), "", &Excluding(&rules))?;
    write_files(root, &found, directory, true)
}

fn write_files(
    root: &Root,
    found: &[Found],
    target: &Path,
    owners: bool,
) -> Result<(), FilesError> {
    let mut writing = Writing {
        from: root,
        to: Root::open(target).map_err(|error| failed("open", target)(error.source))?,
        shown: target,
        owners,
        links: HashMap::new(),
    };
    found.iter().try_for_each(|found| writing.one(found))?;
    // Last, because what is written below a directory changes its time.
    let directories = found.iter().rev().filter(|one| one.meta.is_directory());
    for one in directories {
        writing.settle(one)?;
    }
    Ok(())
}

struct Writing<'a> {
    from: &'a Root,
    to: Root,
    shown: &'a Path,
    /// Owners are the tree's, not ours.
    owners: bool,
    links: HashMap<(u64, u64), PathBuf>,
}

impl Writing<'_> {
    fn one(&mut self, found: &Found) -> Result<(), FilesError> {
        let (path, meta) = (&found.relative, &found.meta);
        let shown = self.shown.join(path);
        let name = path.file_name().unwrap_or_default();
        let parent = self
            .to
            .open_directory(path.parent().unwrap_or(Path::new("")))
            .map_err(|error| failed("open", &shown)(error.source))?;
        let first = if meta.kind == Kind::File {
            first_name(&mut self.links, meta, path)
        } else {
            None
        };
        // Permissions of directories come with their times, those of files with their content.
        match (meta.kind, first) {
            (Kind::Directory, _) => make_directory(&parent, name),
            (Kind::File, None) => self.file(&parent, name, found),
            (_, Some(first)) => {
                cleared(&parent, name).and_then(|()| self.link(&first, &parent, name))
            }
            (Kind::Symlink, None) => {
                let target = self.from.read_link(path)?;
                cleared(&parent, name)
                    .and_then(|()| Ok(symlinkat(&target, &parent, name)?))
                    .and_then(|()| set_times(&parent, name, meta))
            }
            (kind, None) => cleared(&parent, name).and_then(|()| node(&parent, name, kind, meta)),
        }
        .and_then(|()| self.own(&parent, name, meta))
        .map_err(failed("write", &shown))
    }

    /// Gives a name its owner. Before permissions are final, because a change of owner takes set-id bits away.
    fn own(&self, parent: &OwnedFd, name: &OsStr, meta: &Meta) -> io::Result<()> {
        if !self.owners || meta.kind == Kind::File {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            flags,
        )?)
    }

    /// A file under another name until it is whole.
    fn file(&self, parent: &OwnedFd, name: &OsStr, found: &Found) -> io::Result<()> {
        let open = |error: TreeError| io::Error::from(error.source);
        let mut unfinished = OsStr::new(".teu-").to_owned();
        unfinished.push(std::process::id().to_string());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let file = openat(
            parent,
            &unfinished,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?;
        let mut file = File::from(file);
        let written = self
            .from
            .open_file(&found.relative)
            .map_err(open)
            .and_then(|mut content| io::copy(&mut content, &mut file))
            .and_then(|_| self.own_file(&file, &found.meta))
            .and_then(|()| self.attributes(&file, found))
            .and_then(|()| set_times(parent, &unfinished, &found.meta))
            .and_then(|()| Ok(renameat(parent, &unfinished, parent, name)?));
        if written.is_err() {
            let _ = unlinkat(parent, &unfinished, AtFlags::empty());
        }
        written
    }

    fn own_file(&self, file: &File, meta: &Meta) -> io::Result<()> {
        if self.owners {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Permissions and extended attributes, as far as the destination has these.
    fn attributes(&self, file: impl AsFd, found: &Found) -> io::Result<()> {
        let pairs = self
            .from
            .xattrs(&found.relative)
            .map_err(|error| io::Error::from(error.source))?;
        for (name, value) in pairs {
            match rustix::fs::fsetxattr(&file, &*name, &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(rustix::fs::fchmod(
            &file,
            Mode::from_raw_mode(found.meta.mode),
        )?)
    }

    fn link(&self, first: &Path, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let folder = first.parent().unwrap_or(Path::new(""));
        let folder = self
            .to
            .open_directory(folder)
            .map_err(|error| io::Error::from(error.source))?;
        let first = first.file_name().unwrap_or_default();
        Ok(linkat(folder, first, parent, name, AtFlags::empty())?)
    }

    /// Permissions, attributes and time of a directory whose content is there.
    fn settle(&self, found: &Found) -> Result<(), FilesError> {
        let shown = self.shown.join(&found.relative);
        let directory = self
            .to
            .open_directory(&found.relative)
            .map_err(|error| failed("open", &shown)(error.source))?;
        self.attributes(&directory, found)
            .and_then(|()| Ok(rustix::fs::futimens(&directory, &times(&found.meta))?))
            .map_err(failed("write", &shown))
    }
}

/// Makes a directory where none is. Nobody else enters it before it is settled.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                return Ok(());
            }
            unlinkat(parent, name, AtFlags::empty())?;
            Ok(mkdirat(parent, name, Mode::RWXU)?)
        }
        other => Ok(other?),
    }
}

/// Takes away what stands where something new goes; a directory stays, and is an error.
fn cleared(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn node(parent: &OwnedFd, name: &OsStr, kind: Kind, meta: &Meta) -> io::Result<()> {
    let (kind, device) = match kind {
        Kind::Block(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        Kind::Character(major, minor) => {
            (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
        }
        _ => (FileType::Fifo, 0),
    };
    mknodat(parent, name, kind, Mode::from_raw_mode(meta.mode), device)?;
    set_times(parent, name, meta)
}

fn set_times(parent: &OwnedFd, name: &OsStr, meta: &Meta) -> io::Result<()> {
    Ok(utimensat(
        parent,
        name,
        &times(meta),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime.seconds,
        tv_nsec: i64::from(meta.mtime.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
