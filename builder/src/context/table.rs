//! What is remembered of files' contents: a table in memory, and how it is written.
//!
//! ```text
//! cache/contexts/<sha256 of the context's path>
//!     "teu-hash-index 3\n"
//!     number of records (u32), each: what statx said (16), sha256 of the content, age (u8)
//!     number of extended ones (u32), each: which record (u32), sha256 of its extended attributes
//!     sha256 of all that
//! ```
//!
//! A record does not say whose it is, but what statx(2) must say of a file for it to count: a
//! sha256, cut to 16 bytes, of device, inode, size and both times. So a record is small and a
//! renamed file is hashed again (its ctime changes), a table of a million takes 50 MB, and a
//! file is found by a search in a sorted array that was read as it is.

use super::{Fingerprint, Print};
use crate::tree::Meta;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};

const MAGIC: &[u8] = b"teu-hash-index 3\n";

/// Bytes of a record.
const RECORD_BYTES: usize = 16 + 32 + 1;

/// A record that so many tables in a row did not need is left out of the next: of a file that is
/// gone, or was changed. Builds of different targets, which see different files, come between.
const AGE_MAX: u8 = 16;

/// What a file must look like for what is remembered of it to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look([u8; 16]);

impl Look {
    /// What a file looks like: all of statx(2) that changes with its content. No program can set the ctime.
    pub(super) fn of(meta: &Meta) -> Self {
        // One block of the hash holds up to 55 bytes.
        let mut bytes = [0; 48];
        let fields: [&[u8]; 7] = [
            &meta.id.0.to_le_bytes(),
            &meta.id.1.to_le_bytes(),
            &meta.size.to_le_bytes(),
            &meta.mtime.seconds.to_le_bytes(),
            &meta.mtime.nanoseconds.to_le_bytes(),
            &meta.ctime.seconds.to_le_bytes(),
            &meta.ctime.nanoseconds.to_le_bytes(),
        ];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (head, tail) = rest.split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        }
        let sum: [u8; 32] = Sha256::digest(bytes).into();
        let mut look = [0; 16];
        look.copy_from_slice(&sum[..16]);
        Self(look)
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    look: Look,
    content: Fingerprint,
    /// How many tables in a row were written without its being needed.
    age: u8,
    /// Whether it will still be true in the next build.
    is_lasting: bool,
}

/// The fingerprints of files, by what the files look like. Positions stay: it only grows.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: Vec<Record>,
    /// So many were read from disk, sorted by their looks.
    old: usize,
    /// What was added since, sorted by the looks.
    added: BTreeMap<Look, u32>,
    /// Extended attributes of those that have any.
    xattrs: BTreeMap<u32, Fingerprint>,
    /// Something was added that the next build can use.
    has_news: bool,
}

impl Table {
    /// The position of what is remembered of a file.
    pub(super) fn find(&self, look: &Look) -> Option<u32> {
        let old = self.records[..self.old].binary_search_by(|record| record.look.cmp(look));
        match old {
            Ok(at) => u32::try_from(at).ok(),
            Err(_) => self.added.get(look).copied(),
        }
    }

    /// Notes that a record was needed.
    pub(super) fn touch(&mut self, position: u32) {
        self.records[position as usize].age = 0;
    }

    /// What is remembered at a position.
    pub(super) fn print(&self, position: u32) -> Print {
        Print {
            content: self.records[position as usize].content,
            xattrs: self.xattrs.get(&position).copied(),
        }
    }

    /// Adds what a file holds, and how it is found; `None` where there is no room for so many.
    ///
    /// Without a look it is only known by its position: the file changed while it was read.
    pub(super) fn add(
        &mut self,
        print: Print,
        look: Option<Look>,
        is_lasting: bool,
    ) -> Option<u32> {
        let position = u32::try_from(self.records.len()).ok()?;
        if let Some(look) = look {
            self.added.insert(look, position);
        }
        if let Some(xattrs) = print.xattrs {
            self.xattrs.insert(position, xattrs);
        }
        let is_lasting = is_lasting && look.is_some();
        self.has_news |= is_lasting;
        self.records.push(Record {
            look: look.unwrap_or(Look([0; 16])),
            content: print.content,
            age: 0,
            is_lasting,
        });
        Some(position)
    }

    /// Whether there is anything that a table on disk does not have.
    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Writes what lasts, sorted, one record for each look.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut kept: Vec<u32> = (0..)
            .zip(&self.records)
            .filter(|(_, record)| record.is_lasting && record.age < AGE_MAX)
            .map(|(position, _)| position)
            .collect();
        let look = |position: &u32| self.records[*position as usize].look;
        kept.sort_unstable_by_key(look);
        kept.dedup_by_key(|position| look(position));
        let mut out = Summing {
            out,
            sum: Sha256::new(),
        };
        out.write_all(MAGIC)?;
        out.number(kept.len())?;
        for position in &kept {
            let record = self.records[*position as usize];
            let mut bytes = [0; RECORD_BYTES];
            bytes[..16].copy_from_slice(&record.look.0);
            bytes[16..48].copy_from_slice(&record.content);
            bytes[48] = record.age.saturating_add(1);
            out.write_all(&bytes)?;
        }
        let extended = (0..).zip(&kept).filter_map(|(number, position): (u32, _)| {
            let xattrs = self.xattrs.get(position)?;
            Some((number, xattrs))
        });
        out.number(extended.clone().count())?;
        for (number, xattrs) in extended {
            out.write_all(&number.to_le_bytes())?;
            out.write_all(xattrs)?;
        }
        let sum: Fingerprint = out.sum.finalize().into();
        out.out.write_all(&sum)
    }

    /// Reads what [`Table::write`] wrote; `None` for anything else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if Sha256::digest(body)[..] != *sum {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let count = number(&mut rest)?;
        let (records, after) = rest.split_at_checked(count.checked_mul(RECORD_BYTES)?)?;
        rest = after;
        let (records, []) = records.as_chunks::<RECORD_BYTES>() else {
            return None;
        };
        let records: Vec<Record> = records.iter().map(Record::read).collect();
        let mut xattrs = BTreeMap::new();
        for _ in 0..number(&mut rest)? {
            let position = u32::from_le_bytes(take(&mut rest)?);
            if position as usize >= records.len() {
                return None;
            }
            xattrs.insert(position, take(&mut rest)?);
        }
        let is_sorted = records.is_sorted_by_key(|record| record.look);
        (rest.is_empty() && is_sorted).then(|| Self {
            old: records.len(),
            records,
            xattrs,
            ..Self::default()
        })
    }
}

impl Record {
    fn read(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (mut look, mut content) = ([0; 16], [0; 32]);
        look.copy_from_slice(&bytes[..16]);
        content.copy_from_slice(&bytes[16..48]);
        Self {
            look: Look(look),
            content,
            age: bytes[48],
            is_lasting: true,
        }
    }
}

/// Hashes what is written.
struct Summing<'a> {
    out: &'a mut dyn Write,
    sum: Sha256,
}

impl Summing<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }

    fn number(&mut self, number: usize) -> io::Result<()> {
        let number = u32::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.write_all(&number.to_le_bytes())
    }
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take(rest)?)).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_at_checked(N)?;
    *rest = tail;
    head.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(number: u8) -> Look {
        Look([number; 16])
    }

    fn print(number: u8) -> Print {
        Print {
            content: [number; 32],
            xattrs: (number % 2 == 1).then_some([number; 32]),
        }
    }

    fn bytes(table: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_lasts_comes_back() {
        let mut table = Table::default();
        for number in [3, 1, 2, 3] {
            table.add(print(number), Some(look(number)), true).unwrap();
        }
        table.add(print(4), Some(look(4)), false).unwrap();
        table.add(print(5), None, true).unwrap();
        assert!(table.has_news());
        assert_eq!(
            table.find(&look(4)).map(|at| table.print(at)),
            Some(print(4))
        );
        let again = Table::read(&bytes(&table)).unwrap();
        assert!(again.len() == 3 && !again.has_news());
        for number in 1..=5 {
            let found = again.find(&look(number)).map(|at| again.print(at));
            assert_eq!(found, (number < 4).then(|| print(number)), "{number}");
        }
    }

    #[test]
    fn what_nobody_needs_is_forgotten() {
        let mut table = Table::default();
        table.add(print(1), Some(look(1)), true).unwrap();
        table.add(print(2), Some(look(2)), true).unwrap();
        for _ in 0..AGE_MAX {
            table = Table::read(&bytes(&table)).unwrap();
            let needed = table.find(&look(1)).unwrap();
            table.touch(needed);
        }
        table = Table::read(&bytes(&table)).unwrap();
        assert!(table.find(&look(1)).is_some() && table.find(&look(2)).is_none());
    }

    #[test]
    fn a_torn_table_is_no_table() {
        let mut table = Table::default();
        table.add(print(1), Some(look(1)), true).unwrap();
        let whole = bytes(&table);
        assert!(Table::read(&whole).is_some());
        for cut in 0..whole.len() {
            assert!(Table::read(&whole[..cut]).is_none());
        }
        // Signed, but not what it should be.
        let signed = |mut body: Vec<u8>| {
            let sum: Fingerprint = Sha256::digest(&body).into();
            body.extend(sum);
            body
        };
        let body = whole[..whole.len() - 32].to_vec();
        assert!(Table::read(&signed(body.clone())).is_some());
        assert!(Table::read(&signed([body.clone(), vec![0]].concat())).is_none());
        let mut count = body;
        count[MAGIC.len()..MAGIC.len() + 4].fill(0xff);
        assert!(Table::read(&signed(count)).is_none());
    }
}
