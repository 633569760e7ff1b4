//! One tree, named by its descriptor.

use super::listing::{Listing, Names};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use teu_store::identity;

/// How often a lookup that a rename on the host disturbed is asked again; `openat2(2)`, EAGAIN.
const AGAIN_MAX: usize = 128;

/// Most symbolic links followed in one path, as the kernel has it; `path_resolution(7)`.
const LINKS_MAX: usize = 40;

/// Largest extended attribute, in bytes; the kernel's XATTR_SIZE_MAX.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Bytes of names that are asked for at once; `getdents64(2)`.
const DIRECTORY_BYTES: usize = 32 * 1024;

/// What could not be done in a tree.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}")]
pub struct TreeError {
    /// What was attempted, as a verb.
    pub action: &'static str,
    /// On what, seen from the tree's root.
    pub path: PathBuf,
    /// Why not.
    pub source: Errno,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket, which no archive can hold.
    Socket,
    /// A block device: major, minor.
    Block(u32, u32),
    /// A character device: major, minor.
    Character(u32, u32),
}

/// A point in time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

/// What `statx(2)` says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Device and inode: two names with the same pair are one file.
    pub id: (u64, u64),
    /// How many names it has.
    pub links: u32,
}

impl Meta {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// A directory tree. Paths start at it, whatever symbolic links they meet; a leading `/` changes nothing.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// What directories were found to hold; `None` asks every time.
    listings: Option<Mutex<HashMap<PathBuf, Listing>>>,
    /// Held while the directories of a tree are listed that are remembered.
    turn: Mutex<()>,
    /// Owners, devices and attributes that could not be made here are written down beside the files.
    is_stated: bool,
}

impl Root {
    /// Takes a directory descriptor as a root.
    pub fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            listings: None,
            turn: Mutex::default(),
            is_stated: false,
        }
    }

    /// A root of files that the store has made of layers: what they are stands in its records, where they could not
    /// be made so.
    pub fn of_layers(directory: OwnedFd) -> Self {
        Self::new(directory).as_layers_say()
    }

    /// The same, read as [`Root::of_layers`] reads.
    #[must_use]
    pub fn as_layers_say(self) -> Self {
        Self {
            is_stated: !identity::holds_all_ids(),
            ..self
        }
    }

    /// Opens a directory of the host as a root.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|source| error("open", path, source))?;
        Ok(Self::new(fd))
    }

    /// Lists each directory once: several instructions shall see one state of the tree, and ask for it once.
    #[must_use]
    pub fn remembering(self) -> Self {
        Self {
            listings: Some(Mutex::default()),
            ..self
        }
    }

    /// The same tree, asked anew: nothing of what was seen of it is remembered.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn again(&self) -> Result<Self, TreeError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.directory, 0);
        let fd = fd.map_err(|source| error("open", Path::new(""), source))?;
        Ok(Self {
            is_stated: self.is_stated,
            ..Self::new(fd)
        })
    }

    /// Waits for others that list the directories of this tree, if what they find is remembered.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let is_remembered = self.listings.is_some();
        is_remembered.then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a directory holds.
    ///
    /// # Errors
    /// As `openat2(2)`, `getdents(2)` and `statx(2)`.
    pub fn list(&self, path: &Path) -> Result<Listing, TreeError> {
        let lock = |listings| Mutex::lock(listings).unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = self
            .listings
            .as_ref()
            .and_then(|listings| lock(listings).get(path).cloned())
        {
            return Ok(listing);
        }
        let directory = self.open_directory(path)?;
        let names = names(directory.as_fd()).map_err(|source| error("list", path, source))?;
        let listing = names.list(|name| match self.meta_in(directory.as_fd(), name) {
            Ok(meta) => Ok(Some(meta)),
            // Removed since the directory was listed.
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(error("look up", &path.join(name), source)),
        })?;
        if let Some(listings) = &self.listings {
            lock(listings).insert(path.to_owned(), listing.clone());
        }
        Ok(listing)
    }

    /// Opens a name for reading its content; a symbolic link at the end is followed within the tree.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open_file(&self, path: &Path) -> Result<File, TreeError> {
        // NONBLOCK: opening a named pipe must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.at(path, flags)
            .map(File::from)
            .map_err(|source| error("open", path, source))
    }

    /// Opens a directory for listing it.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open_directory(&self, path: &Path) -> Result<OwnedFd, TreeError> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|source| error("open", path, source))
    }

    /// Opens a name for nothing but being named: what a mount starts from.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open_place(&self, path: &Path) -> Result<OwnedFd, TreeError> {
        self.at(path, OFlags::PATH)
            .map_err(|source| error("open", path, source))
    }

    fn at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(
                &self.directory,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) if tries < AGAIN_MAX => tries += 1,
                other => return other,
            }
        }
    }

    /// What a name stands for, a symbolic link itself included; `None` if it is not there.
    ///
    /// # Errors
    /// As `openat2(2)` and `statx(2)`, but for "no such file".
    pub fn meta(&self, path: &Path) -> Result<Option<Meta>, TreeError> {
        match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => self
                .meta_in(fd.as_fd(), OsStr::new(""))
                .map(Some)
                .map_err(|source| error("look up", path, source)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(source) => Err(error("look up", path, source)),
        }
    }

    fn meta_in(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<Meta, Errno> {
        let mut meta = meta_at(directory, name)?;
        if !self.is_stated || meta.kind == Kind::Symlink {
            return Ok(meta);
        }
        let place = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        // The empty name is the descriptor itself, to which the link in procfs leads.
        let place = match name.is_empty() {
            true => place,
            false => place.join(name),
        };
        if let Some(stated) = identity::stated(&place, (meta.uid, meta.gid)) {
            (meta.uid, meta.gid) = (stated.uid, stated.gid);
            meta.kind = match stated.device {
                None => meta.kind,
                Some((true, major, minor)) => Kind::Block(major, minor),
                Some((false, major, minor)) => Kind::Character(major, minor),
            };
        }
        Ok(meta)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As `readlinkat(2)`.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf, TreeError> {
        let read = || {
            readlinkat(
                self.at(path, OFlags::PATH | OFlags::NOFOLLOW)?,
                "",
                Vec::new(),
            )
        };
        let target = read().map_err(|source| error("read link", path, source))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The path without symbolic links, relative to the root. What does not exist stays as it is.
    ///
    /// # Errors
    /// As `openat2(2)`, or too many links.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, TreeError> {
        resolve_with(path, |at| match self.meta(at)? {
            Some(Meta {
                kind: Kind::Symlink,
                ..
            }) => self.read_link(at).map(Some),
            _ => Ok(None),
        })
    }

    /// The extended attributes that images carry: `user.*` and file capabilities, sorted by name.
    ///
    /// # Errors
    /// As `flistxattr(2)` and `fgetxattr(2)`; a file system without attributes has none.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, TreeError> {
        self.xattrs_of(&self.open_file(path)?, path)
    }

    /// The same of a file of this tree that is open; `path` is for messages.
    ///
    /// # Errors
    /// As [`Root::xattrs`].
    pub fn xattrs_of(
        &self,
        file: &File,
        path: &Path,
    ) -> Result<Vec<(OsString, Vec<u8>)>, TreeError> {
        let found = xattrs(file.as_fd(), self.is_stated);
        found.map_err(|source| error("read attributes of", path, source))
    }

    /// What a file of this tree that is open is; `path` is for messages.
    ///
    /// # Errors
    /// As `statx(2)`.
    pub fn meta_of(&self, file: &File, path: &Path) -> Result<Meta, TreeError> {
        let meta = self.meta_in(file.as_fd(), OsStr::new(""));
        meta.map_err(|source| error("look up", path, source))
    }

    /// Whether an overlay marked the directory as hiding what is below it; overlayfs.rst, "opaque directories".
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn is_opaque(&self, path: &Path) -> Result<bool, TreeError> {
        let mut value = [0; 4];
        let directory = self.open_directory(path)?;
        let marks = ["trusted.overlay.opaque", "user.overlay.opaque"];
        Ok(marks
            .iter()
            .any(|mark| rustix::fs::fgetxattr(&directory, *mark, value.as_mut_slice()).is_ok()))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Resolves `path` step by step; `link` says where a symbolic link at a resolved place leads, if one is there.
///
/// # Errors
/// What `link` fails with, or too many links.
pub(crate) fn resolve_with(
    path: &Path,
    mut link: impl FnMut(&Path) -> Result<Option<PathBuf>, TreeError>,
) -> Result<PathBuf, TreeError> {
    let mut done = PathBuf::new();
    let mut rest: Vec<OsString> = elements(path);
    rest.reverse();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(&name);
        let Some(target) = link(&done)? else { continue };
        links += 1;
        if links > LINKS_MAX {
            return Err(error("resolve", path, Errno::LOOP));
        }
        done.pop();
        if target.is_absolute() {
            done.clear();
        }
        rest.extend(elements(&target).into_iter().rev());
    }
    Ok(done)
}

fn elements(path: &Path) -> Vec<OsString> {
    let element = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(element).collect()
}

/// What a name in an open directory stands for; the empty name means the descriptor itself.
pub(crate) fn meta_at(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Meta, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
    let device = (stat.stx_rdev_major, stat.stx_rdev_minor);
    let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::BlockDevice => Kind::Block(device.0, device.1),
        FileType::CharacterDevice => Kind::Character(device.0, device.1),
        _ => Kind::Socket,
    };
    Ok(Meta {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: stat.stx_size,
        mtime: Time {
            seconds: stat.stx_mtime.tv_sec,
            nanoseconds: stat.stx_mtime.tv_nsec,
        },
        ctime: Time {
            seconds: stat.stx_ctime.tv_sec,
            nanoseconds: stat.stx_ctime.tv_nsec,
        },
        id: (
            u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            stat.stx_ino,
        ),
        links: stat.stx_nlink,
    })
}

/// The names in an open directory.
fn names(directory: BorrowedFd<'_>) -> Result<Names, Errno> {
    let mut names = Names::default();
    let mut buffer = [MaybeUninit::uninit(); DIRECTORY_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name).ok_or(Errno::OVERFLOW)?;
        }
    }
    Ok(names)
}

fn xattrs(file: BorrowedFd<'_>, is_stated: bool) -> Result<Vec<(OsString, Vec<u8>)>, Errno> {
    // Most files have none: no room is needed for them.
    match rustix::fs::flistxattr_query(file) {
        Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = rustix::fs::flistxattr(file, list.as_mut_slice())?;
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0) {
        let shown = match is_stated {
            true => identity::name_in_layers(name),
            false => Some(name),
        };
        let Some(shown) = shown.filter(|name| carried(name)) else {
            continue;
        };
        let mut value = vec![0; XATTR_BYTES_MAX];
        let size = rustix::fs::fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(size);
        found.push((OsStr::from_bytes(shown).to_owned(), value));
    }
    found.sort_unstable();
    Ok(found)
}

/// Security labels and overlay's own marks belong to the host.
fn carried(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

pub(crate) fn error(action: &'static str, path: &Path, source: Errno) -> TreeError {
    TreeError {
        action,
        path: Path::new("/").join(path),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("root");
        std::fs::create_dir_all(root_path.join("etc")).unwrap();
        std::fs::write(root_path.join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", root_path.join("absolute")).unwrap();
        symlink("../../../../etc", root_path.join("up")).unwrap();
        symlink("loop", root_path.join("loop")).unwrap();
        let root = Root::open(&root_path).unwrap();
        for path in ["absolute", "up/passwd", "../etc/passwd", "/etc/passwd"] {
            let text = std::io::read_to_string(root.open_file(Path::new(path)).unwrap()).unwrap();
            assert_eq!(text, "inside", "{path}");
            assert_eq!(
                root.resolve(Path::new(path)).unwrap(),
                Path::new("etc/passwd"),
                "{path}"
            );
        }
        assert!(root.resolve(Path::new("loop")).is_err());
        assert_eq!(
            root.resolve(Path::new("none/../x")).unwrap(),
            Path::new("x")
        );
        assert_eq!(
            root.meta(Path::new("absolute")).unwrap().unwrap().kind,
            Kind::Symlink
        );
        assert!(root.meta(Path::new("etc/passwd/x")).unwrap().is_none());
        assert!(root.meta(Path::new("")).unwrap().unwrap().is_directory());
    }
}
