//! One digest of what was selected: all that the layer will show, and nothing else.
//!
//! Names, kinds, permissions after `--chmod`, content, extended attributes and link targets
//! count; times and, where COPY resets them, owners do not.

use super::CopyError;
use super::select::{Group, Item, Origin};
use crate::context::Fingerprint;
use crate::modes::ModeChange;
use crate::tree::{Kind, Meta, Root, TreeError};
use sha2::{Digest as _, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the fingerprints of files come from: an index, or reading them.
pub type Fingerprints<'a> =
    &'a dyn Fn(&Root, &[(&Path, Meta)]) -> Result<Vec<Fingerprint>, TreeError>;

/// What of an item counts besides its content.
#[derive(Debug)]
pub struct View<'a> {
    /// `--chmod`.
    pub mode: Option<&'a ModeChange>,
    /// Owners stay as the origin has them.
    pub owners: bool,
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
) -> Result<Fingerprint, CopyError> {
    let items = || groups.iter().flat_map(Group::items);
    let files: Vec<(&Path, Meta)> = items()
        .filter(|item| item.meta.kind == Kind::File)
        .map(|item| (item.source.as_path(), item.meta))
        .collect();
    // In the order of the items, as the files are.
    let mut prints = fingerprints(origin.root, &files)?.into_iter();
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
            let print = if item.meta.kind == Kind::File {
                prints.next()
            } else {
                None
            };
            hash.item(origin.root, item, view, print)?;
        }
    }
    Ok(hash.finish())
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
        print: Option<Fingerprint>,
    ) -> Result<(), CopyError> {
        let directory = item.meta.is_directory();
        let mode = match view.mode {
            Some(change) if item.meta.kind != Kind::Symlink => {
                change.apply(item.meta.mode, directory)
            }
            _ => item.meta.mode,
        };
        self.field(b"path", item.relative.as_os_str().as_bytes());
        self.field(b"mode", &mode.to_le_bytes());
        if view.owners {
            self.field(
                b"owner",
                &[item.meta.uid.to_le_bytes(), item.meta.gid.to_le_bytes()].concat(),
            );
        }
        match item.meta.kind {
            Kind::File => self.field(b"content", &print.unwrap_or_default()),
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
