//! Entries to a tar stream.

use super::place::{Content, Entries, Entry};
use super::{CopyError, archive};
use crate::tree::{Root, Time};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use teu_store::tar::{Attributes, Device, Time as TarTime, Writer, Xattrs};

/// The trees that entries speak of.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Where files come from.
    pub origin: Option<&'a Root>,
    /// What is below the layer.
    pub below: Option<&'a Root>,
}

/// Writes entries. No time is later than `latest`.
///
/// # Errors
/// A file that cannot be read or changes meanwhile, or the stream.
pub fn write(
    out: impl Write,
    entries: &Entries,
    sources: Sources<'_>,
    latest: Time,
) -> Result<(), CopyError> {
    let mut layer = Layer {
        tar: Writer::new(out),
        sources,
        latest,
    };
    for (path, entry) in entries {
        layer.entry(path, entry)?;
    }
    layer.tar.finish().map(drop).map_err(CopyError::Write)
}

struct Layer<'a, W> {
    tar: Writer<W>,
    sources: Sources<'a>,
    latest: Time,
}

impl<W: Write> Layer<'_, W> {
    fn entry(&mut self, path: &Path, entry: &Entry) -> Result<(), CopyError> {
        let name = path.as_os_str().as_bytes();
        let mut attributes = self.attributes(entry);
        match &entry.content {
            Content::File(source) => return self.file(name, attributes, source),
            Content::Archive(source) => {
                let target = path.parent().unwrap_or(Path::new(""));
                return archive::unpack(
                    &mut self.tar,
                    origin(self.sources.origin, source)?,
                    source,
                    target,
                    self.latest,
                );
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
        attributes.xattrs = xattrs(root, source)?;
        self.tar
            .file(name, &attributes, meta.len(), file)
            .map_err(read)
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
    let pair =
        |(name, value): (OsString, Vec<u8>)| (name.as_bytes().into(), value.into_boxed_slice());
    Ok(root.xattrs(path)?.into_iter().map(pair).collect())
}

/// The earlier of two times, as archives have it.
pub(crate) fn clamp(time: Time, latest: Time) -> TarTime {
    let time = time.min(latest);
    TarTime {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
    }
}
