//! What one layer may cost: a small archive can unpack to any number of members, and each stays in memory as a node
//! until the layer is written.

use super::LayerError;
use crate::tar::{Entry, Kind};

/// Most members of one layer, and most nodes made of them; each takes some 50 bytes of memory while the layer is read,
/// so a million 48 MiB and as many as this 100 MiB. A full desktop distribution has half a million files, the largest
/// source trees have a million.
pub(super) const ENTRIES_MAX: usize = 2 << 20;
/// Most bytes of names, link targets, extended attributes and sparse maps that one layer may make us keep. Two million
/// names of 64 bytes have as many; without a limit each member could keep a mebibyte of attributes.
pub(super) const TEXT_BYTES_MAX: usize = 128 << 20;
/// Most bytes of paths in one layer, which bounds how many directories are looked up on their way. Two million paths
/// of 256 bytes have as many.
pub(super) const PATH_BYTES_MAX: usize = 512 << 20;

/// What the members of a layer may still cost.
#[derive(Debug)]
pub(super) struct Budget {
    entries: usize,
    path_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            entries: ENTRIES_MAX,
            path_bytes: PATH_BYTES_MAX,
        }
    }
}

impl Budget {
    /// Takes the cost of one more member off.
    pub(super) fn charge(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let link = match &entry.kind {
            Kind::HardLink(target) => target.len(),
            Kind::File(_) | Kind::Directory | Kind::Symlink(_) | Kind::Device(_) | Kind::Fifo => 0,
        };
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or(LayerError::TooManyEntries)?;
        self.path_bytes = self
            .path_bytes
            .checked_sub(entry.path.len() + link)
            .ok_or(LayerError::TooLongPaths)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Attributes;

    fn link(target: usize) -> Entry {
        Entry {
            path: b"path".to_vec(),
            attributes: Attributes::default(),
            kind: Kind::HardLink(vec![b't'; target]),
        }
    }

    #[test]
    fn members_and_their_paths_are_counted() {
        let mut budget = Budget {
            entries: 2,
            path_bytes: 100,
        };
        budget.charge(&link(96)).unwrap();
        assert!(matches!(
            budget.charge(&link(1)),
            Err(LayerError::TooLongPaths)
        ));
        assert!(matches!(
            budget.charge(&link(0)),
            Err(LayerError::TooManyEntries)
        ));
    }
}
