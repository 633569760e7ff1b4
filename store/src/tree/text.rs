//! The bytes that a tree keeps, one after another: names, link targets, extended attributes.
//! Millions of small allocations would each cost as much again.

use crate::tar;

/// Bytes of one arena; a place in it is a number of four bytes.
#[derive(Debug, Default)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps a name of at most 255 bytes; where it stands. `None`: the arena is full.
    pub(super) fn push_name(&mut self, name: &[u8]) -> Option<u32> {
        let at = self.next(1 + name.len())?;
        self.0.push(u8::try_from(name.len()).ok()?);
        self.0.extend_from_slice(name);
        Some(at)
    }

    /// The name that stands at `at`.
    pub(super) fn name(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let length = usize::from(self.0[at]);
        &self.0[at + 1..][..length]
    }

    /// Keeps `bytes`; where they stand, and how many. `None`: the arena is full.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<(u32, u32)> {
        let at = self.next(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Some((at, u32::try_from(bytes.len()).ok()?))
    }

    pub(super) fn get(&self, (at, length): (u32, u32)) -> &[u8] {
        &self.0[at as usize..][..length as usize]
    }

    /// Where the next `length` bytes will stand.
    fn next(&self, length: usize) -> Option<u32> {
        u32::try_from(self.0.len() + length).ok()?;
        u32::try_from(self.0.len()).ok()
    }
}

/// Extended attributes, sorted by name. Each stands as the length of its name (1 byte), that of its value
/// (2 bytes, little-endian), name, value; so equal attributes are equal bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Xattrs<'t>(pub(super) &'t [u8]);

/// One extended attribute, in the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Xattr<'t>(&'t [u8]);

/// Bytes before the name.
const HEADER_BYTES: usize = 3;

/// The bytes of `xattrs`, whose names and values must have been found short enough.
pub(super) fn encode(xattrs: &tar::Xattrs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out
}

impl<'t> Xattrs<'t> {
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Xattr<'t>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value) = Xattr(rest).lengths()?;
            let (xattr, behind) = rest.split_at_checked(HEADER_BYTES + name + value)?;
            rest = behind;
            Some(Xattr(xattr))
        })
    }
}

impl PartialEq<tar::Xattrs> for Xattrs<'_> {
    fn eq(&self, other: &tar::Xattrs) -> bool {
        let pairs = other.iter().map(|(name, value)| (&**name, &**value));
        self.iter()
            .map(|xattr| (xattr.name(), xattr.value()))
            .eq(pairs)
    }
}

impl<'t> Xattr<'t> {
    /// An attribute that stands in no tree, in the form described at [`Xattrs`].
    pub(crate) const fn from_static(bytes: &'static [u8]) -> Xattr<'static> {
        Xattr(bytes)
    }

    fn lengths(self) -> Option<(usize, usize)> {
        let [name, low, high] = *self.0.first_chunk::<HEADER_BYTES>()?;
        Some((name.into(), u16::from_le_bytes([low, high]).into()))
    }

    /// Its full name (`user.comment`).
    pub(crate) fn name(self) -> &'t [u8] {
        let name = self.lengths().map_or(0, |(name, _)| name);
        &self.0[HEADER_BYTES..][..name]
    }

    pub(crate) fn value(self) -> &'t [u8] {
        let name = self.lengths().map_or(0, |(name, _)| name);
        &self.0[HEADER_BYTES + name..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_in_their_order() {
        let map: tar::Xattrs = [
            (b"user.b"[..].into(), vec![7; 65_535].into()),
            (vec![b'a'; 255].into(), b""[..].into()),
        ]
        .into();
        let bytes = encode(&map);
        let back: Vec<_> = Xattrs(&bytes)
            .iter()
            .map(|one| (one.name(), one.value()))
            .collect();
        assert_eq!(
            back,
            [(&[b'a'; 255][..], &b""[..]), (b"user.b", &[7; 65_535])]
        );
        assert_eq!(Xattrs(&bytes), map);
        assert_ne!(Xattrs(&bytes), tar::Xattrs::new());
        assert!(Xattrs(&encode(&tar::Xattrs::new())).is_empty());
    }
}
