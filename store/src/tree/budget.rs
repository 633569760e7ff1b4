//! What one layer may cost: a small archive can unpack to any number of members, and each stays in memory as a node
//! until the layer is written.

use super::LayerError;
use crate::tar::{Entry, Kind, Odd};

/// Most members of one layer, and most nodes made of them; each takes some 350 bytes of memory while the layer is read.
/// A full desktop distribution has half a million files, the largest source trees have a million.
pub(super) const ENTRIES_MAX: usize = 2 << 20;
/// Most bytes of paths, link targets, extended attributes and sparse maps in one layer. Two million paths of 256 bytes
/// have as many; without a limit each member could keep a mebibyte of attributes.
pub(super) const TEXT_BYTES_MAX: usize = 512 << 20;

/// What a layer may still cost.
#[derive(Debug)]
pub(super) struct Budget {
    entries: usize,
    text_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            entries: ENTRIES_MAX,
            text_bytes: TEXT_BYTES_MAX,
        }
    }
}

impl Budget {
    /// Takes the cost of one more member off.
    pub(super) fn charge(&mut self, entry: &Entry) -> Result<(), LayerError> {
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or(LayerError::TooManyEntries)?;
        self.text_bytes = self
            .text_bytes
            .checked_sub(text_bytes(entry))
            .ok_or(LayerError::TooMuchText)?;
        Ok(())
    }
}

/// What of a member is kept beside its node, in bytes.
fn text_bytes(entry: &Entry) -> usize {
    let xattrs = entry.attributes.xattrs.iter();
    let kind = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target.len(),
        Kind::File(data) => match &data.odd {
            Some(Odd::Sparse(extents)) => size_of_val(extents.as_ref()),
            Some(Odd::DirtyPadding) | None => 0,
        },
        Kind::Directory | Kind::Device(_) | Kind::Fifo => 0,
    };
    entry.path.len()
        + kind
        + xattrs
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Attributes;

    fn link(target: usize) -> Entry {
        Entry {
            path: b"path".to_vec(),
            attributes: Attributes {
                xattrs: [(b"user.a"[..].into(), b"b"[..].into())].into(),
                ..Attributes::default()
            },
            kind: Kind::Symlink(vec![b't'; target]),
        }
    }

    #[test]
    fn members_and_their_text_are_counted() {
        let mut budget = Budget {
            entries: 2,
            text_bytes: 111,
        };
        budget.charge(&link(89)).unwrap();
        assert!(matches!(
            budget.charge(&link(1)),
            Err(LayerError::TooMuchText)
        ));
        assert!(matches!(
            budget.charge(&link(0)),
            Err(LayerError::TooManyEntries)
        ));
    }
}
