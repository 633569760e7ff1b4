//! Extended attributes: those of one inode stand behind it, those of several once in a shared area.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::ErofsError;
use super::walk::Walk;
use crate::tree::{Node, Tree, Xattr};

/// Prefix numbers of the format; the two access control lists have no rest.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// Header of an inode's attributes: a name filter, the count of shared ones, reserved bytes.
const HEADER_BYTES: usize = 12;
/// Most attributes of one inode in the shared area: the count is a byte.
const SHARED_MAX: usize = 255;
/// How an overlay file system sees that nothing of the layers below shows in a directory.
const OPAQUE: Xattr<'static> = Xattr::from_static(b"\x16\x01\x00trusted.overlay.opaquey");
/// In the place of an offset: the attribute occurred once, so far.
const ONCE: u32 = u32::MAX;

/// The attributes that several inodes have.
#[derive(Debug, Default)]
pub(super) struct Shared<'t> {
    /// Byte offset of each in the area, or [`ONCE`].
    offsets: HashMap<Xattr<'t>, u32>,
    /// The area.
    pub(super) bytes: Vec<u8>,
}

/// All attributes of a node, in a fixed order. Names of other spaces were left out when the tar was read.
pub(super) fn attributes<'t>(node: Node<'t>) -> impl Iterator<Item = Xattr<'t>> + use<'t> {
    let opaque = node.directory().is_some_and(|directory| directory.opaque);
    let known = |xattr: &Xattr<'_>| split(xattr.name()).is_some();
    node.attributes
        .xattrs
        .iter()
        .filter(known)
        .chain(opaque.then_some(OPAQUE))
}

/// Prefix number and rest of a name.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES
        .iter()
        .find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)))
}

/// Adds an attribute as EROFS writes it: lengths, prefix number, rest of the name, value.
fn write(xattr: Xattr<'_>, out: &mut Vec<u8>) {
    let (prefix, name) = split(xattr.name()).unwrap_or((0, b""));
    let value = xattr.value();
    let end = out.len() + (4 + name.len() + value.len()).next_multiple_of(4);
    // Both lengths were limited when the tar was read.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.push(prefix);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.resize(end, 0);
}

impl<'t> Shared<'t> {
    /// Collects what occurs more than once, in the order of the nodes.
    pub(super) fn collect(tree: &'t Tree) -> Shared<'t> {
        let mut shared = Shared::default();
        if !tree.has_xattrs() && !tree.has_opaque() {
            return shared;
        }
        for xattr in Walk::new(tree).flat_map(|(id, _)| attributes(tree.node(id))) {
            match shared.offsets.entry(xattr) {
                Entry::Vacant(new) => {
                    new.insert(ONCE);
                }
                Entry::Occupied(mut known) if *known.get() == ONCE => {
                    let Ok(offset) = u32::try_from(shared.bytes.len()) else {
                        break;
                    };
                    known.insert(offset);
                    write(xattr, &mut shared.bytes);
                }
                Entry::Occupied(_) => {}
            }
        }
        shared.offsets.retain(|_, offset| *offset != ONCE);
        shared
    }

    /// What stands behind the inode of `node`; empty where it has no attributes.
    pub(super) fn body(&self, node: &Node<'_>) -> Result<Vec<u8>, ErofsError> {
        let mut shared = Vec::new();
        let mut own = Vec::new();
        for xattr in attributes(*node) {
            match self.offsets.get(&xattr) {
                Some(offset) if shared.len() < SHARED_MAX => shared.push(*offset / 4),
                _ => write(xattr, &mut own),
            }
        }
        if shared.is_empty() && own.is_empty() {
            return Ok(Vec::new());
        }
        let mut body = vec![0; HEADER_BYTES];
        body[4] = u8::try_from(shared.len()).unwrap_or(u8::MAX);
        body.extend(shared.into_iter().flat_map(u32::to_le_bytes));
        body.extend(own);
        // The inode counts in units of 4 bytes with 16 bits.
        if body.len() > HEADER_BYTES + 4 * (usize::from(u16::MAX) - 1) {
            return Err(ErofsError::TooManyXattrs);
        }
        Ok(body)
    }
}

/// How an inode counts its attributes: the header as one, every 4 bytes behind it as one more.
pub(super) fn count(body: usize) -> u16 {
    match body.checked_sub(HEADER_BYTES) {
        Some(rest) => u16::try_from(rest / 4 + 1).unwrap_or(u16::MAX),
        None => 0,
    }
}
