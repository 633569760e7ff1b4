//! An overlay's upper directory to a layer (image-spec, layer.md, "Whiteouts").

use crate::copy::CopyError;
use crate::copy::layer::{clamp, xattrs};
use crate::pattern::ignore::Rules;
use crate::tree::walk::{Excluding, Found, walk};
use crate::tree::{Kind, Meta, Root, Time};
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use teu_store::tar::{Attributes, Device, Writer};

/// Writes what an upper directory holds, in the order of names. No time is later than `latest`.
/// The root itself is written if it is not as it was `before`.
///
/// # Errors
/// The directory cannot be read, or the stream.
pub(super) fn write(
    out: impl Write,
    upper: &Root,
    before: Option<&Meta>,
    latest: Time,
) -> Result<(), CopyError> {
    let rules = Rules::default();
    let mut layer = Upper {
        tar: Writer::new(out),
        upper,
        latest,
        linked: HashMap::new(),
    };
    let owner_and_mode = |meta: &Meta| (meta.mode, meta.uid, meta.gid);
    if let Some(root) = upper.meta(Path::new(""))?
        && before.map(owner_and_mode) != Some(owner_and_mode(&root))
    {
        layer.member(&Found {
            relative: PathBuf::new(),
            meta: root,
        })?;
    }
    for found in walk(upper, Path::new(""), "", &Excluding(&rules))? {
        layer.member(&found)?;
    }
    layer.tar.finish().map(drop).map_err(CopyError::Write)
}

struct Upper<'a, W> {
    tar: Writer<W>,
    upper: &'a Root,
    latest: Time,
    /// The first name of each file with several.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Upper<'_, W> {
    fn member(&mut self, found: &Found) -> Result<(), CopyError> {
        let (path, meta) = (found.relative.as_path(), &found.meta);
        let name = path.as_os_str().as_bytes();
        let mut attributes = Attributes {
            mode: u16::try_from(meta.mode).unwrap_or(0),
            uid: meta.uid,
            gid: meta.gid,
            mtime: clamp(meta.mtime, self.latest),
            ..Attributes::default()
        };
        match meta.kind {
            // The overlay's mark for a name that was removed; overlayfs.rst, "whiteouts and opaque directories".
            Kind::Character(0, 0) => self.tar.whiteout(name, attributes.mtime),
            Kind::Directory => {
                attributes.xattrs = xattrs(self.upper, path)?;
                let mtime = attributes.mtime;
                self.tar
                    .directory(name, &attributes)
                    .map_err(CopyError::Write)?;
                if self.upper.is_opaque(path)? {
                    self.tar.opaque(name, mtime)
                } else {
                    Ok(())
                }
            }
            Kind::File => return self.file(path, meta, attributes),
            Kind::Symlink => self.tar.symlink(
                name,
                &attributes,
                self.upper.read_link(path)?.as_os_str().as_bytes(),
            ),
            Kind::Fifo => self.tar.fifo(name, &attributes),
            Kind::Block(major, minor) => self.tar.device(
                name,
                &attributes,
                Device {
                    block: true,
                    major,
                    minor,
                },
            ),
            Kind::Character(major, minor) => self.tar.device(
                name,
                &attributes,
                Device {
                    block: false,
                    major,
                    minor,
                },
            ),
            // A socket lives only as long as its listener.
            Kind::Socket => Ok(()),
        }
        .map_err(CopyError::Write)
    }

    fn file(
        &mut self,
        path: &Path,
        meta: &Meta,
        mut attributes: Attributes,
    ) -> Result<(), CopyError> {
        let name = path.as_os_str().as_bytes();
        if meta.links > 1 {
            if let Some(first) = self.linked.get(&meta.id) {
                return self
                    .tar
                    .hard_link(name, &attributes, first.as_os_str().as_bytes())
                    .map_err(CopyError::Write);
            }
            self.linked.insert(meta.id, path.to_owned());
        }
        attributes.xattrs = xattrs(self.upper, path)?;
        let content = self.upper.open_file(path)?;
        let read = |source: io::Error| CopyError::Read {
            path: Path::new("/").join(path),
            source,
        };
        self.tar
            .file(name, &attributes, meta.size, content)
            .map_err(read)
    }
}
