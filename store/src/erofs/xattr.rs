//! Extended attributes: those of one inode stand behind it, those of several once in a shared area.

use std::collections::HashMap;

use super::ErofsError;
use crate::tar::Xattrs;
use crate::tree::{Node, Tree};

/// One attribute as EROFS writes it: prefix number, rest of the name, value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Attribute<'t> {
    prefix: u8,
    name: &'t [u8],
    value: &'t [u8],
}

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
const OPAQUE: Attribute<'static> = Attribute {
    prefix: 4,
    name: b"overlay.opaque",
    value: b"y",
};

/// The attributes that several inodes have.
#[derive(Debug, Default)]
pub(super) struct Shared<'t> {
    /// Byte offset of each in the area.
    offsets: HashMap<Attribute<'t>, u32>,
    /// The area.
    pub(super) bytes: Vec<u8>,
}

/// All attributes of a node, in a fixed order. Names of other spaces were left out when the tar was read.
pub(super) fn attributes<'t>(node: &'t Node) -> Vec<Attribute<'t>> {
    let mut out: Vec<_> = split(&node.attributes.xattrs).collect();
    if node.directory().is_some_and(|directory| directory.opaque) {
        out.push(OPAQUE);
    }
    out
}

fn split(xattrs: &Xattrs) -> impl Iterator<Item = Attribute<'_>> {
    xattrs.iter().filter_map(|(name, value)| {
        let (prefix, name) = PREFIXES
            .iter()
            .find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)))?;
        Some(Attribute {
            prefix,
            name,
            value,
        })
    })
}

impl Attribute<'_> {
    fn size(&self) -> usize {
        (4 + self.name.len() + self.value.len()).next_multiple_of(4)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.size();
        // Both lengths were limited when the tar was read.
        out.push(u8::try_from(self.name.len()).unwrap_or(u8::MAX));
        out.push(self.prefix);
        out.extend_from_slice(
            &u16::try_from(self.value.len())
                .unwrap_or(u16::MAX)
                .to_le_bytes(),
        );
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.value);
        out.resize(end, 0);
    }
}

impl<'t> Shared<'t> {
    /// Collects what occurs more than once, in the order of the nodes.
    pub(super) fn collect(tree: &'t Tree, nodes: &[crate::tree::NodeId]) -> Shared<'t> {
        let mut counts: HashMap<Attribute<'t>, usize> = HashMap::new();
        let mut order = Vec::new();
        for attribute in nodes.iter().flat_map(|id| attributes(tree.node(*id))) {
            let count = counts.entry(attribute.clone()).or_default();
            *count += 1;
            if *count == 2 {
                order.push(attribute);
            }
        }
        let mut shared = Shared::default();
        for attribute in order {
            let Ok(offset) = u32::try_from(shared.bytes.len()) else {
                break;
            };
            attribute.write(&mut shared.bytes);
            shared.offsets.insert(attribute, offset);
        }
        shared
    }

    /// What stands behind the inode of `node`; empty where it has no attributes.
    pub(super) fn body(&self, node: &'t Node) -> Result<Vec<u8>, ErofsError> {
        let attributes = attributes(node);
        if attributes.is_empty() {
            return Ok(Vec::new());
        }
        let mut shared = Vec::new();
        let mut own = Vec::new();
        for attribute in attributes {
            match self.offsets.get(&attribute) {
                Some(offset) if shared.len() < SHARED_MAX => shared.push(*offset / 4),
                _ => attribute.write(&mut own),
            }
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
