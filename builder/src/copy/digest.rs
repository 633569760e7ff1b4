//! One digest of what was selected: all that the layer will show, and nothing else.
//!
//! Names, kinds, permissions after `--chmod`, content, extended attributes and link targets
//! count; times and, where COPY resets them, owners do not.

use super::CopyError;
use super::place::{Content, Entries};
use super::select::{Group, Item, Origin};
use crate::context::{Fingerprint, Print, attributes_of};
use crate::modes::ModeChange;
use crate::tree::{Kind, Meta, Root, TreeError};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the fingerprints of files come from: an index, or reading them.
pub type Fingerprints<'a> = &'a dyn Fn(&Root, &[(&Path, Meta)]) -> Result<Vec<Print>, TreeError>;

/// What was selected, digested.
#[derive(Debug)]
pub struct Digested {
    /// One digest of all.
    pub sum: Fingerprint,
    /// Each file's and directory's own, in the order of the groups' items.
    pub prints: Vec<Print>,
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

/// Digests groups.
///
/// # Errors
/// A file that cannot be read.
pub fn digest(
    origin: &Origin<'_>,
    groups: &[Group],
    view: &View<'_>,
    fingerprints: Fingerprints<'_>,
) -> Result<Digested, CopyError> {
    let files: Vec<(&Path, Meta)> = printed(groups)
        .map(|item| (item.source.as_path(), item.meta))
        .collect();
    let prints = fingerprints(origin.root, &files)?;
    // In the order of the items, as the files are.
    let mut next = prints.iter();
    let mut hash = Hash::default();
    for group in groups {
        match group {
            Group::File(name, _) => hash.field(b"file", name.as_bytes()),
            Group::Directory(..) => hash.field(b"directory", b""),
            Group::Inline(name, text) => {
                hash.field(b"inline", name.as_bytes());
                hash.field(b"text", text.as_bytes());
            }
        }
        for item in group.items() {
            let print = if has_print(item) { next.next() } else { None };
            hash.item(origin.root, item, view, print)?;
        }
    }
    Ok(Digested {
        sum: hash.finish(),
        prints,
    })
}

/// Whether an item has content or extended attributes of its own.
fn has_print(item: &Item) -> bool {
    matches!(item.meta.kind, Kind::File | Kind::Directory)
}

/// The items that [`Digested::prints`] is about, in its order.
pub fn printed(groups: &[Group]) -> impl Iterator<Item = &Item> {
    groups
        .iter()
        .flat_map(Group::items)
        .filter(|item| has_print(item))
}

impl Group {
    /// The items of a group.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let (one, many) = match self {
            Self::File(_, item) => (Some(item), &[][..]),
            Self::Directory(_, items) => (None, items.as_slice()),
            Self::Inline(..) => (None, &[][..]),
        };
        one.into_iter().chain(many)
    }
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
        item: &Item,
        view: &View<'_>,
        print: Option<&Print>,
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
        if let Some(xattrs) = print.and_then(|print| print.xattrs) {
            self.field(b"xattrs", &xattrs);
        }
        match item.meta.kind {
            Kind::File => self.field(b"content", &print.copied().unwrap_or_default().content),
            Kind::Directory => self.field(b"directory", b""),
            Kind::Symlink => self.field(
                b"symlink",
                root.read_link(&item.source)?.as_os_str().as_bytes(),
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

/// Digests entries: all that their layer will show but for times, which an older layer of the
/// same entries may have earlier.
///
/// # Errors
/// A link or attribute that cannot be read.
pub fn placed(
    entries: &Entries,
    prints: &HashMap<&Path, &Print>,
    origin: Option<&Root>,
    below: Option<&Root>,
) -> Result<Fingerprint, CopyError> {
    let mut hash = Hash::default();
    for (path, entry) in entries {
        hash.field(b"path", path.as_os_str().as_bytes());
        hash.field(b"mode", &entry.mode.to_le_bytes());
        let owner = [entry.owner.uid.to_le_bytes(), entry.owner.gid.to_le_bytes()];
        hash.field(b"owner", &owner.concat());
        hash.content(path, &entry.content, prints, (origin, below))?;
    }
    Ok(hash.finish())
}

impl Hash {
    fn content(
        &mut self,
        path: &Path,
        content: &Content,
        prints: &HashMap<&Path, &Print>,
        (origin, below): (Option<&Root>, Option<&Root>),
    ) -> Result<(), CopyError> {
        let print = |source: &PathBuf| prints.get(source.as_path()).copied().copied();
        let own = match content {
            Content::Directory(source) => {
                self.field(b"directory", b"");
                source.as_ref().and_then(print)
            }
            Content::Existing => {
                self.field(b"directory", b"");
                let xattrs = match below {
                    Some(below) => attributes_of(&below.xattrs(path)?),
                    None => None,
                };
                Some(Print {
                    xattrs,
                    ..Print::default()
                })
            }
            Content::File(source) => {
                self.field(b"file", &print(source).unwrap_or_default().content);
                print(source)
            }
            Content::Archive(source) => {
                self.field(b"archive", &print(source).unwrap_or_default().content);
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
        if let Some(xattrs) = own.and_then(|print| print.xattrs) {
            self.field(b"xattrs", &xattrs);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::HashIndex;
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
            digest(&origin, &groups, &view, &|root, files| {
                index.fingerprints(root, files)
            })
            .unwrap()
            .sum
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
