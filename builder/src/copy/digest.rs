//! One digest of what was selected: all that the layer will show, and nothing else.
//!
//! Names, kinds, permissions after `--chmod`, content, extended attributes and link targets
//! count; times and, where COPY resets them, owners do not.

use super::CopyError;
use super::items::{All, Group, Item};
use super::place::{Content, Entry, Placed};
use super::select::Origin;
use crate::context::{Fingerprint, HashIndex, Print, Prints, Reading, attributes_of};
use crate::modes::ModeChange;
use crate::tree::{Kind, Meta, Root};
use sha2::{Digest as _, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was selected, digested.
#[derive(Debug)]
pub struct Digested<'a> {
    /// One digest of all.
    pub sum: Fingerprint,
    /// Each file's and directory's own, by the numbers of [`All`].
    prints: Prints,
    index: &'a HashIndex,
}

impl Digested<'_> {
    /// To read each file's and directory's own, by the numbers of [`All`].
    pub fn reading(&self) -> Reading<'_> {
        self.index.reading(&self.prints)
    }
}

/// What of an item counts besides its content.
#[derive(Debug)]
pub struct View<'a> {
    /// `--chmod`.
    pub mode: Option<&'a ModeChange>,
    /// Owners stay as the origin has them.
    pub owners: bool,
}

impl View<'_> {
    /// The permissions that the layer will show.
    pub fn mode(&self, meta: &Meta) -> u32 {
        match self.mode {
            Some(change) if meta.kind != Kind::Symlink => {
                change.apply(meta.mode, meta.is_directory())
            }
            _ => meta.mode,
        }
    }
}

/// Digests groups, whose files' fingerprints are found in `index`, or are there afterwards.
///
/// # Errors
/// A file that cannot be read.
pub fn digest<'i>(
    origin: &Origin<'_>,
    groups: &[Group],
    view: &View<'_>,
    index: &'i HashIndex,
) -> Result<Digested<'i>, CopyError> {
    let all = All::of(groups);
    let prints = index.fingerprints(origin.root, &all)?;
    let reading = index.reading(&prints);
    let mut hash = Hash::default();
    for (first, group) in all.groups() {
        match group {
            Group::File(name, _) => hash.field(b"file", name.as_bytes()),
            Group::Directory(..) => hash.field(b"directory", b""),
            Group::Inline(name, text) => {
                hash.field(b"inline", name.as_bytes());
                hash.field(b"text", text.as_bytes());
            }
        }
        group.each(&mut |index, item| {
            hash.item(origin.root, &item, view, reading.print(first + index))
        })?;
    }
    drop(reading);
    Ok(Digested {
        sum: hash.finish(),
        prints,
        index,
    })
}

/// Bytes that are hashed at once: a call for each short field would cost more than the hash.
const BUFFER_BYTES: usize = 64 * 1024;

/// A hash over fields that carry their lengths: no two lists of fields have the same bytes.
#[derive(Default)]
struct Hash {
    sum: Sha256,
    buffer: Vec<u8>,
}

impl Hash {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, value] {
            self.buffer.extend((part.len() as u64).to_le_bytes());
            self.buffer.extend(part);
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.sum.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn finish(mut self) -> Fingerprint {
        self.sum.update(&self.buffer);
        self.sum.finalize().into()
    }

    fn item(
        &mut self,
        root: &Root,
        item: &Item<'_>,
        view: &View<'_>,
        print: Print,
    ) -> Result<(), CopyError> {
        let mode = view.mode(&item.meta);
        self.field(b"path", item.relative.as_os_str().as_bytes());
        self.field(b"mode", &mode.to_le_bytes());
        if view.owners {
            self.field(
                b"owner",
                &[item.meta.uid.to_le_bytes(), item.meta.gid.to_le_bytes()].concat(),
            );
        }
        if let Some(xattrs) = print.xattrs {
            self.field(b"xattrs", &xattrs);
        }
        match item.meta.kind {
            Kind::File => self.field(b"content", &print.content),
            Kind::Directory => self.field(b"directory", b""),
            Kind::Symlink => self.field(
                b"symlink",
                root.read_link(item.source)?.as_os_str().as_bytes(),
            ),
            Kind::Fifo | Kind::Socket => self.field(b"fifo", b""),
            Kind::Block(major, minor) => self.field(
                b"block",
                &[major.to_le_bytes(), minor.to_le_bytes()].concat(),
            ),
            Kind::Character(major, minor) => self.field(
                b"character",
                &[major.to_le_bytes(), minor.to_le_bytes()].concat(),
            ),
        }
        Ok(())
    }
}

/// Digests what was placed: all that its layer will show but for times, which an older layer of the
/// same entries may have earlier.
///
/// # Errors
/// A link or attribute that cannot be read.
pub fn placed(
    placed: &Placed<'_>,
    prints: Option<&Reading<'_>>,
    origin: Option<&Root>,
    below: Option<&Root>,
) -> Result<Fingerprint, CopyError> {
    let mut hash = Hash::default();
    placed.each(&mut |path, entry| {
        hash.field(b"path", path.as_os_str().as_bytes());
        hash.field(b"mode", &entry.mode.to_le_bytes());
        let owner = [entry.owner.uid.to_le_bytes(), entry.owner.gid.to_le_bytes()];
        hash.field(b"owner", &owner.concat());
        let print = prints.zip(entry.item);
        let print = print.map(|(prints, number)| prints.print(number));
        hash.content(path, entry, print.unwrap_or_default(), (origin, below))
    })?;
    Ok(hash.finish())
}

impl Hash {
    fn content(
        &mut self,
        path: &Path,
        entry: &Entry,
        print: Print,
        (origin, below): (Option<&Root>, Option<&Root>),
    ) -> Result<(), CopyError> {
        let own = match &entry.content {
            Content::Directory(_) => {
                self.field(b"directory", b"");
                print.xattrs
            }
            Content::Existing => {
                self.field(b"directory", b"");
                match below {
                    Some(below) => attributes_of(&below.xattrs(path)?),
                    None => None,
                }
            }
            Content::File(_) => {
                self.field(b"file", &print.content);
                print.xattrs
            }
            Content::Archive(_, owner) => {
                self.field(b"archive", &print.content);
                if let Some(owner) = owner {
                    let numbers = [owner.uid.to_le_bytes(), owner.gid.to_le_bytes()];
                    self.field(b"all owned by", &numbers.concat());
                }
                None
            }
            Content::Inline(text) => {
                self.field(b"inline", text.as_bytes());
                None
            }
            Content::Symlink(source) => {
                let target = origin.map(|origin| origin.read_link(source)).transpose()?;
                self.field(
                    b"symlink",
                    target.unwrap_or_default().as_os_str().as_bytes(),
                );
                None
            }
            Content::HardLink(first) => {
                self.field(b"hard link", first.as_os_str().as_bytes());
                None
            }
            Content::Fifo => {
                self.field(b"fifo", b"");
                None
            }
            Content::Device(block, major, minor) => {
                self.field(b"device", &[u8::from(*block)]);
                self.field(
                    b"number",
                    &[major.to_le_bytes(), minor.to_le_bytes()].concat(),
                );
                None
            }
        };
        if let Some(xattrs) = own {
            self.field(b"xattrs", &xattrs);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::select::select;
    use crate::pattern::ignore::Rules;
    use crate::plan::CopySource;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_counts_and_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        let print = |change: Option<&str>| {
            let root = Root::open(dir.path()).unwrap();
            let rules = Rules::default();
            let origin = Origin {
                root: &root,
                rules: &rules,
                ignore_file: None,
                name: "the context",
            };
            let groups = select(
                &origin,
                &[CopySource::Path {
                    path: "/".into(),
                    keep: None,
                }],
                &rules,
            )
            .unwrap();
            let index = HashIndex::load(dir.path(), dir.path());
            let mode = change.map(|text| ModeChange::parse(text).unwrap());
            let view = View {
                mode: mode.as_ref(),
                owners: false,
            };
            digest(&origin, &groups, &view, &index).unwrap().sum
        };
        let permit =
            |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        permit(0o644);
        let (plain, changed) = (print(None), print(Some("600")));
        permit(0o640);
        assert_ne!(print(None), plain, "permissions count");
        assert_eq!(
            print(Some("600")),
            changed,
            "but not those that --chmod replaces"
        );
        permit(0o644);
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        assert_eq!(print(None), plain, "times do not count");
        std::fs::write(&file, "y").unwrap();
        assert_ne!(print(None), plain, "content counts");
        std::fs::rename(&file, dir.path().join("g")).unwrap();
        std::fs::write(dir.path().join("g"), "x").unwrap();
        assert_ne!(print(None), plain, "names count");
    }
}
