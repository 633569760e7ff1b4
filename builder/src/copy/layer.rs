//! Entries to a tar stream.

use super::place::{Content, Entry, Placed};
use super::{CopyError, archive};
use crate::tree::{Root, Time};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use teu_store::tar::{Attributes, Device, Time as TarTime, Writer, Xattrs};

/// The trees that entries speak of.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Where files come from.
    pub origin: Option<&'a Root>,
    /// What is below the layer.
    pub below: Option<&'a Root>,
}

/// Writes what was placed. No time is later than `latest`. Says which file, if any, has changed since its
/// content was hashed: then the layer is not what its key says.
///
/// # Errors
/// A file that cannot be read or changes its size meanwhile, or the stream.
pub fn write(
    out: impl Write,
    placed: &Placed<'_>,
    sources: Sources<'_>,
    latest: Time,
) -> Result<Option<PathBuf>, CopyError> {
    let mut layer = Layer {
        tar: Writer::new(out),
        sources,
        latest,
        changed: None,
    };
    placed.each(&mut |path, entry| layer.entry(path, entry))?;
    layer.tar.finish().map_err(CopyError::Write)?;
    Ok(layer.changed)
}

struct Layer<'a, W> {
    tar: Writer<W>,
    sources: Sources<'a>,
    latest: Time,
    /// The first file that was not what it had been.
    changed: Option<PathBuf>,
}

impl<W: Write> Layer<'_, W> {
    fn entry(&mut self, path: &Path, entry: &Entry) -> Result<(), CopyError> {
        let name = path.as_os_str().as_bytes();
        let mut attributes = self.attributes(entry);
        match &entry.content {
            Content::File(source) => return self.file(name, attributes, source, entry.mtime),
            Content::Archive(source, owner) => {
                let place = archive::Place {
                    target: path.parent().unwrap_or(Path::new("")),
                    owner: *owner,
                    latest: self.latest,
                };
                let root = origin(self.sources.origin, source)?;
                return archive::unpack(&mut self.tar, root, source, place);
            }
            Content::Directory(None) => self.tar.directory(name, &attributes),
            Content::Directory(Some(source)) => {
                attributes.xattrs = xattrs(origin(self.sources.origin, source)?, source)?;
                self.tar.directory(name, &attributes)
            }
            Content::Existing => {
                attributes.xattrs = xattrs(origin(self.sources.below, path)?, path)?;
                self.tar.directory(name, &attributes)
            }
            Content::Inline(text) => {
                self.tar
                    .file(name, &attributes, text.len() as u64, text.as_bytes())
            }
            Content::Symlink(source) => {
                let target = origin(self.sources.origin, source)?.read_link(source)?;
                self.tar
                    .symlink(name, &attributes, target.as_os_str().as_bytes())
            }
            Content::HardLink(target) => {
                self.tar
                    .hard_link(name, &attributes, target.as_os_str().as_bytes())
            }
            Content::Fifo => self.tar.fifo(name, &attributes),
            Content::Device(block, major, minor) => self.tar.device(
                name,
                &attributes,
                Device {
                    block: *block,
                    major: *major,
                    minor: *minor,
                },
            ),
        }
        .map_err(CopyError::Write)
    }

    fn attributes(&self, entry: &Entry) -> Attributes {
        Attributes {
            mode: u16::try_from(entry.mode & 0o7777).unwrap_or(0),
            uid: entry.owner.uid,
            gid: entry.owner.gid,
            mtime: clamp(entry.mtime, self.latest),
            ..Attributes::default()
        }
    }

    fn file(
        &mut self,
        name: &[u8],
        mut attributes: Attributes,
        source: &Path,
        then: Time,
    ) -> Result<(), CopyError> {
        let root = origin(self.sources.origin, source)?;
        let file = root.open_file(source)?;
        let read = |error| CopyError::Read {
            path: source.to_owned(),
            source: error,
        };
        let meta = file.metadata().map_err(read)?;
        if !meta.is_file() {
            return Err(read(io::Error::other("it is no file any more")));
        }
        attributes.xattrs = carried(root.xattrs_of(&file, source)?);
        self.tar
            .file(name, &attributes, meta.len(), &file)
            .map_err(read)?;
        // Whoever writes to a file changes this time; the content's hash is older than that.
        let now = file.metadata().map_err(read)?;
        if (now.mtime(), now.mtime_nsec()) != (then.seconds, then.nanoseconds.into()) {
            self.changed.get_or_insert_with(|| source.to_owned());
        }
        Ok(())
    }
}

fn origin<'a>(root: Option<&'a Root>, source: &Path) -> Result<&'a Root, CopyError> {
    root.ok_or_else(|| CopyError::Read {
        path: source.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

/// The extended attributes of a name, as archives have them.
pub(crate) fn xattrs(root: &Root, path: &Path) -> Result<Xattrs, CopyError> {
    Ok(carried(root.xattrs(path)?))
}

fn carried(found: Vec<(OsString, Vec<u8>)>) -> Xattrs {
    let pair =
        |(name, value): (OsString, Vec<u8>)| (name.as_bytes().into(), value.into_boxed_slice());
    found.into_iter().map(pair).collect()
}

/// The earlier of two times, as archives have it.
pub(crate) fn clamp(time: Time, latest: Time) -> TarTime {
    let time = time.min(latest);
    TarTime {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::place::Placing;
    use crate::copy::select::{Origin, select};
    use crate::pattern::ignore::Rules;
    use crate::plan::CopySource;

    #[test]
    fn a_file_that_changed_since_it_was_looked_at_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), "old").unwrap();
        }
        let (root, rules) = (Root::open(dir.path()).unwrap(), Rules::default());
        let origin = Origin {
            root: &root,
            rules: &rules,
            ignore_file: None,
            name: "the context",
        };
        let all = CopySource::Path {
            path: "/".to_owned(),
            keep: None,
        };
        let groups = select(&origin, &[all], &rules).unwrap();
        let mut placing = Placing::new(None, None, false, None, Time::default());
        placing.place(&groups, "/", &|_| Ok(false)).unwrap();
        let entries = placing.finish().unwrap();
        let changed = || {
            let sources = Sources {
                origin: Some(&root),
                below: None,
            };
            write(io::sink(), &entries, sources, Time::default()).unwrap()
        };
        assert_eq!(changed(), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(dir.path().join("b"), "new").unwrap();
        assert_eq!(changed().as_deref(), Some(Path::new("b")));
    }
}
