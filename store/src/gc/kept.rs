//! The digests that stay.

use std::collections::HashSet;

use crate::digest::Digest;

/// Digests; 33 bytes each, where [`Digest`] has room for the longer kind.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sha256: HashSet<[u8; 32]>,
    sha512: HashSet<[u8; 64]>,
}

impl Kept {
    /// Adds `digest`; whether it is new.
    pub(super) fn insert(&mut self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(bytes) => self.sha256.insert(*bytes),
            Digest::Sha512(bytes) => self.sha512.insert(*bytes),
        }
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(bytes) => self.sha256.contains(bytes),
            Digest::Sha512(bytes) => self.sha512.contains(bytes),
        }
    }

    pub(super) fn extend(&mut self, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            self.insert(&digest);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Digest> {
        let long = self.sha512.iter().map(|bytes| Digest::Sha512(*bytes));
        let short = self.sha256.iter().map(|bytes| Digest::Sha256(*bytes));
        short.chain(long)
    }

    /// Both as one; the larger one grows.
    pub(super) fn joined(self, other: Kept) -> Kept {
        let (mut larger, smaller) = match self.sha256.len() < other.sha256.len() {
            true => (other, self),
            false => (self, other),
        };
        larger.sha256.extend(smaller.sha256);
        larger.sha512.extend(smaller.sha512);
        larger
    }
}
