//! From the upper directory of an overlay to a layer's tar: what a command changed, as image-spec, layer.md,
//! "Representing Changes", wants it. Sorted and deterministic: the same tree gives the same bytes.

mod observed;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::vec::IntoIter;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, major, minor, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

use crate::descent::{Descent, open_own};
use crate::edit::Changes;
use crate::tar::{Attributes, Device, Time, Writer};

pub(crate) use observed::Observed;
use observed::time_of;

/// How often an open is tried again when somebody renames a directory on the host meanwhile.
const TRIES: usize = 128;

/// Whether a path is no part of the layer.
pub type Skip = dyn Fn(&[u8]) -> bool;

/// How an upper directory becomes a layer.
#[derive(Default)]
pub struct UpperOptions<'o> {
    /// Times later than this become this.
    pub clamp_mtime: Option<Time>,
    /// Paths, relative and without a slash at the start, that are no part of the layer: mount points made for the command.
    pub skip: Option<&'o Skip>,
    /// The merged view below the upper directory. The kernel marks every new directory opaque; with this given,
    /// only those that hide something are.
    pub lower: Option<BorrowedFd<'o>>,
}

/// Why an upper directory could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{action} {:?}", String::from_utf8_lossy(path))]
pub struct UpperError {
    action: &'static str,
    /// Relative to the upper directory.
    path: Vec<u8>,
    source: io::Error,
}

impl UpperError {
    pub(crate) fn new(action: &'static str, path: &[u8], source: io::Error) -> UpperError {
        UpperError {
            action,
            path: path.to_vec(),
            source,
        }
    }
}

/// Which of a directory's content is the layer.
struct Selection<'o> {
    changes: &'o Changes,
    /// Directories on the way to what changed.
    ways: BTreeSet<Vec<u8>>,
}

/// What is done with a name.
#[derive(PartialEq, Eq)]
enum Choice {
    /// It is no part of the layer.
    Pass,
    /// It is, and what is in it may be.
    Take,
    /// It is not, but what is in it may be.
    Enter,
}

/// Writes the tar of what lies in `upper` to `out` and hands that back, with the number of members written.
/// The root itself is not among them. Sockets are left out: no archive can hold them.
pub fn from_upper<W: Write>(
    upper: BorrowedFd<'_>,
    out: W,
    options: &UpperOptions<'_>,
) -> Result<(W, u64), UpperError> {
    walk(upper, out, options, None)
}

/// Writes the tar of `changes` in the directory `root` to `out` and hands that back.
pub(crate) fn from_changes<W: Write>(
    root: BorrowedFd<'_>,
    out: W,
    changes: &Changes,
) -> Result<(W, u64), UpperError> {
    let ways = changes.ways();
    let selection = Selection { changes, ways };
    walk(root, out, &UpperOptions::default(), Some(selection))
}

fn walk<W: Write>(
    root: BorrowedFd<'_>,
    out: W,
    options: &UpperOptions<'_>,
    selection: Option<Selection<'_>>,
) -> Result<(W, u64), UpperError> {
    let descent = Descent::new(root).map_err(|source| UpperError::new("open", b".", source))?;
    let mut walk = Walk {
        descent,
        path: Vec::new(),
        links: HashMap::new(),
        options,
        selection,
        tar: Writer::new(out),
        members: 0,
    };
    let done = walk.root().and_then(|()| walk.run());
    done.map_err(|(action, source)| UpperError::new(action, &walk.path, source))?;
    let members = walk.members;
    let out = walk.tar.finish();
    let out = out.map_err(|source| UpperError::new("end the layer", b"", source))?;
    Ok((out, members))
}

struct Walk<'o, W> {
    /// The directory being read, and its path.
    descent: Descent,
    path: Vec<u8>,
    /// The first path of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    options: &'o UpperOptions<'o>,
    /// Of a directory of which only a part is the layer: which.
    selection: Option<Selection<'o>>,
    tar: Writer<W>,
    members: u64,
}

/// A directory on the way.
struct Frame {
    names: IntoIter<CString>,
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

impl<W: Write> Walk<'_, W> {
    fn run(&mut self) -> Done {
        let mut frames = vec![self.frame(0)?];
        while let Some(frame) = frames.last_mut() {
            let Some(name) = frame.names.next() else {
                let parent_path = frame.parent_path;
                frames.pop();
                if !frames.is_empty() {
                    self.descent.leave().doing("leave")?;
                    self.path.truncate(parent_path);
                }
                continue;
            };
            let parent_path = self.path.len();
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            let is_entered = match self.choice() {
                Choice::Pass => false,
                Choice::Take => self.member(&name)?,
                Choice::Enter => {
                    self.descent.enter(name.as_c_str()).doing("open")?;
                    true
                }
            };
            match is_entered {
                true => frames.push(self.frame(parent_path)?),
                false => self.path.truncate(parent_path),
            }
        }
        Ok(())
    }

    fn choice(&self) -> Choice {
        match &self.selection {
            Some(selection) if selection.changes.taken.contains(&self.path) => Choice::Take,
            Some(selection) if selection.ways.contains(&self.path) => Choice::Enter,
            Some(_) => Choice::Pass,
            None if self.options.skip.is_some_and(|skip| skip(&self.path)) => Choice::Pass,
            None => Choice::Take,
        }
    }

    /// Writes the root itself, where that changed.
    fn root(&mut self) -> Done {
        let selection = self.selection.as_ref();
        if let Some(attributes) = selection.and_then(|selection| selection.changes.root.as_ref()) {
            self.members += 1;
            self.tar.directory(b"", attributes).doing("write")?;
        }
        Ok(())
    }

    /// Writes which names are gone from the directory where we are. When they went is not known.
    fn deletions(&mut self) -> Done {
        let selection = self.selection.as_ref();
        let removed = selection.and_then(|selection| selection.changes.removed.get(&self.path));
        for name in removed.into_iter().flatten() {
            let path = match self.path.as_slice() {
                [] => name.clone(),
                path => [path, b"/", name].concat(),
            };
            self.members += 1;
            let written = self.tar.whiteout(&path, Time::default());
            written.doing("write")?;
        }
        Ok(())
    }

    /// The names in the directory where we are: deletions first, as the specification asks, then by their bytes.
    fn frame(&mut self, parent_path: usize) -> Done<Frame> {
        self.deletions()?;
        let mut names = Vec::new();
        for entry in Dir::read_from(self.descent.here()).doing("list")? {
            let entry = entry.doing("list")?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                let stat = statat(
                    self.descent.here(),
                    entry.file_name(),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .doing("stat")?;
                names.push((
                    !self.is_whiteout(entry.file_name(), &stat)?,
                    entry.file_name().to_owned(),
                ));
            }
        }
        names.sort();
        let names: Vec<CString> = names.into_iter().map(|(_, name)| name).collect();
        Ok(Frame {
            names: names.into_iter(),
            parent_path,
        })
    }

    /// Writes what `name` is; whether it is a directory, which has been entered then.
    fn member(&mut self, name: &CStr) -> Done<bool> {
        let stat = statat(self.descent.here(), name, AtFlags::SYMLINK_NOFOLLOW).doing("stat")?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.is_whiteout(name, &stat)? {
            self.members += 1;
            let mtime = self.clamped(time_of(&stat));
            self.tar.whiteout(&self.path, mtime).doing("write")?;
            return Ok(false);
        }
        if kind == FileType::Socket {
            return Ok(false);
        }
        let observed = Observed::of(self.descent.here(), name.to_bytes(), &stat)?;
        let attributes = Attributes {
            mtime: self.clamped(observed.attributes.mtime),
            ..observed.attributes
        };
        self.members += 1;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                self.tar
                    .hard_link(&self.path, &attributes, first)
                    .doing("write")?;
                return Ok(false);
            }
            self.links
                .insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        match kind {
            FileType::Directory => {
                self.tar.directory(&self.path, &attributes).doing("write")?;
                if observed.is_opaque && self.hides_something()? {
                    let mtime = attributes.mtime;
                    self.tar.opaque(&self.path, mtime).doing("write")?;
                    self.members += 1;
                }
                self.descent.enter(name).doing("open")?;
                return Ok(true);
            }
            FileType::RegularFile => self.regular(name, &stat, &attributes, observed.device)?,
            FileType::Symlink => {
                let target =
                    readlinkat(self.descent.here(), name, Vec::new()).doing("read link")?;
                self.tar
                    .symlink(&self.path, &attributes, target.to_bytes())
                    .doing("write")?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let block = kind == FileType::BlockDevice;
                let device = Device {
                    block,
                    major: major(stat.st_rdev),
                    minor: minor(stat.st_rdev),
                };
                self.tar
                    .device(&self.path, &attributes, device)
                    .doing("write")?;
            }
            FileType::Fifo => self.tar.fifo(&self.path, &attributes).doing("write")?,
            _ => return Err(("archive", io::Error::other("it is of an unknown kind"))),
        }
        Ok(false)
    }

    /// Writes a file, or the device that it stands for.
    fn regular(
        &mut self,
        name: &CStr,
        stat: &Stat,
        attributes: &Attributes,
        device: Option<Device>,
    ) -> Done {
        if let Some(device) = device {
            let written = self.tar.device(&self.path, attributes, device);
            return written.doing("write");
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open_own(self.descent.here(), name, flags).doing("open")?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let written = self.tar.file(&self.path, attributes, size, file);
        written.doing("copy")
    }

    /// The kernel's two forms of deletion (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"):
    /// a device 0:0, or an empty file with an attribute.
    fn is_whiteout(&self, name: &CStr, stat: &Stat) -> Done<bool> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Ok(stat.st_rdev == 0),
            FileType::RegularFile if stat.st_size == 0 => {
                let xattrs = observed::xattrs(self.descent.here(), name.to_bytes())?;
                Ok([&b"trusted.overlay.whiteout"[..], b"user.overlay.whiteout"]
                    .iter()
                    .any(|key| xattrs.contains_key(*key)))
            }
            _ => Ok(false),
        }
    }

    /// Whether the directory where `path` ends hides one of the layers below.
    fn hides_something(&self) -> Done<bool> {
        let Some(lower) = self.options.lower else {
            return Ok(true);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            match openat2(lower, self.path.as_slice(), flags, Mode::empty(), resolve) {
                Ok(_) => return Ok(true),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(("look below", errno.into())),
            }
        }
        Err(("look below", Errno::AGAIN.into()))
    }

    fn clamped(&self, time: Time) -> Time {
        self.options
            .clamp_mtime
            .map_or(time, |latest| time.min(latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::mount::{Upper, overlay};

    /// Changes made through a real overlay, read back from its upper directory.
    #[test]
    fn changes_through_an_overlay() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED changes_through_an_overlay: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [
            "lower/kept",
            "lower/replaced",
            "lower/gone",
            "upper",
            "work",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("lower/file"), "old").unwrap();
        fs::write(at("lower/deleted"), "x").unwrap();
        fs::write(at("lower/replaced/old"), "x").unwrap();
        let mount = match overlay(
            &[&at("lower")],
            Some(Upper {
                upper: &at("upper"),
                work: &at("work"),
            }),
        ) {
            Ok(mount) => mount,
            Err(err) => {
                eprintln!("SKIPPED changes_through_an_overlay: {err}");
                return;
            }
        };
        let root = format!("/proc/self/fd/{}", mount.as_raw_fd());
        let root = Path::new(&root);
        fs::write(root.join("file"), "new").unwrap();
        fs::remove_file(root.join("deleted")).unwrap();
        fs::remove_dir(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("replaced")).unwrap();
        fs::create_dir(root.join("replaced")).unwrap();
        fs::create_dir(root.join("fresh")).unwrap();
        fs::write(root.join("fresh/a"), "a").unwrap();
        fs::hard_link(root.join("fresh/a"), root.join("fresh/b")).unwrap();
        symlink("fresh", root.join("link")).unwrap();
        fs::create_dir(root.join("stub")).unwrap();
        assert_layer(&at("lower"), &at("upper"));
    }

    fn assert_layer(lower: &Path, upper: &Path) {
        let lower = File::open(lower).unwrap();
        let upper = File::open(upper).unwrap();
        let clamp = Time {
            seconds: 1_000_000_000,
            nanoseconds: 0,
        };
        let options = UpperOptions {
            clamp_mtime: Some(clamp),
            skip: Some(&|path| path == b"stub"),
            lower: Some(lower.as_fd()),
        };
        let (tar, members) = from_upper(upper.as_fd(), Vec::new(), &options).unwrap();
        let (again, _) = from_upper(upper.as_fd(), Vec::new(), &options).unwrap();
        assert_eq!(tar, again);
        let mut reader = crate::tar::Reader::new(&tar[..]);
        let mut paths = Vec::new();
        while let Some(entry) = reader.next(|| {}).unwrap() {
            assert!(entry.attributes.mtime <= clamp);
            assert!(entry.attributes.xattrs.is_empty());
            paths.push(String::from_utf8(entry.path).unwrap());
        }
        let wanted = [
            ".wh.deleted",
            ".wh.gone",
            "file",
            "fresh/",
            "fresh/a",
            "fresh/b",
            "link",
            "replaced/",
            "replaced/.wh..wh..opq",
        ];
        assert_eq!(paths, wanted);
        assert_eq!(members, wanted.len() as u64);
    }
}
