//! PAX extended headers (POSIX pax, "pax Extended Header"): records `<length> <key>=<value>\n`.

use super::{Time, Xattrs};

/// What the extended header of one member says.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseKeys,
}

/// GNU tar's three ways to say that a member is sparse, as far as they stand in the header.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Versions 0.0 and 0.1: offsets and lengths in turn.
    pub(super) map: Option<Vec<u64>>,
}

impl SparseKeys {
    /// Whether any key was there.
    pub(super) fn is_used(&self) -> bool {
        self.major.is_some()
            || self.minor.is_some()
            || self.name.is_some()
            || self.real_size.is_some()
            || self.map.is_some()
    }
}

/// Reads all records of `data`; what is malformed is an error, never skipped.
pub(super) fn parse(data: &[u8]) -> Result<Extended, String> {
    let mut extended = Extended::default();
    for record in Records(data) {
        let (key, value) = record?;
        extended.set(key, value)?;
    }
    Ok(extended)
}

/// Whether a global header says nothing that would change a member.
pub(super) fn is_only_comment(data: &[u8]) -> Result<bool, String> {
    let mut only = true;
    for record in Records(data) {
        only &= record?.0 == b"comment";
    }
    Ok(only)
}

impl Extended {
    /// An empty value takes an earlier one back.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = name(key, value)?,
            b"linkpath" => self.linkpath = name(key, value)?,
            b"size" => self.size = decimal(key, value)?,
            b"uid" => self.uid = decimal(key, value)?,
            b"gid" => self.gid = decimal(key, value)?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => self.sparse.major = decimal(key, value)?,
            b"GNU.sparse.minor" => self.sparse.minor = decimal(key, value)?,
            b"GNU.sparse.name" => self.sparse.name = name(key, value)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = decimal(key, value)?
            }
            b"GNU.sparse.map" => self.sparse.map = Some(list(key, value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_number(key, value)?,
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(attribute.into(), value.into());
                }
                // Other keys (atime, uname, ACLs as text, other tools' own) say nothing about a layer.
            }
        }
        Ok(())
    }

    /// Version 0.0 repeats the two keys; each offset is followed by its length.
    fn sparse_number(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let map = self.sparse.map.get_or_insert_default();
        let wanted: &[u8] = if map.len().is_multiple_of(2) {
            b"GNU.sparse.offset"
        } else {
            b"GNU.sparse.numbytes"
        };
        if key != wanted {
            return Err("sparse offsets and lengths do not alternate".into());
        }
        map.push(decimal(key, value)?.ok_or("empty sparse number")?);
        Ok(())
    }
}

/// The records of an extended header.
struct Records<'d>(&'d [u8]);

impl<'d> Iterator for Records<'d> {
    type Item = Result<(&'d [u8], &'d [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match split_record(self.0) {
            Some((key, value, rest)) => {
                self.0 = rest;
                Some(Ok((key, value)))
            }
            None => {
                self.0 = b"";
                Some(Err("malformed PAX record".into()))
            }
        }
    }
}

/// Splits the first record off. The length counts itself, the blank and the newline.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = digits(&data[..blank])?.try_into().ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

/// Decimal digits only: no sign, no blank, no empty text.
fn digits(text: &[u8]) -> Option<u64> {
    let decimal = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if decimal {
        str::from_utf8(text).ok()?.parse().ok()
    } else {
        None
    }
}

fn decimal(key: &[u8], value: &[u8]) -> Result<Option<u64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    digits(value)
        .map(Some)
        .ok_or_else(|| format!("{} is not a number: {:?}", lossy(key), lossy(value)))
}

fn list(key: &[u8], value: &[u8]) -> Result<Vec<u64>, String> {
    let numbers = value
        .split(|byte| *byte == b',')
        .filter(|text| !text.is_empty());
    let numbers: Option<Vec<u64>> = numbers.map(digits).collect();
    numbers.ok_or_else(|| format!("{} is not a list of numbers", lossy(key)))
}

fn name(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        return Err(format!("{} holds a NUL", lossy(key)));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Seconds with an optional fraction and sign; digits beyond the nanosecond are dropped.
fn time(value: &[u8]) -> Result<Option<Time>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let bad = || format!("mtime is not a time: {:?}", lossy(value));
    let (negative, rest) = value
        .strip_prefix(b"-")
        .map_or((false, value), |rest| (true, rest));
    let mut parts = rest.splitn(2, |byte| *byte == b'.');
    let whole = digits(parts.next().unwrap_or_default())
        .and_then(|whole| i64::try_from(whole).ok())
        .ok_or_else(bad)?;
    let mut fraction = parts.next().unwrap_or_default().to_vec();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    fraction.resize(9, b'0');
    let nanoseconds = digits(&fraction)
        .and_then(|nanoseconds| u32::try_from(nanoseconds).ok())
        .ok_or_else(bad)?;
    Ok(Some(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds: whole,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -whole,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -whole - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    }))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes() {
        let extended = parse(b"30 SCHILY.xattr.user.a=x\n\0=y\xff\n10 path=a\n").unwrap();
        assert_eq!(extended.xattrs[&b"user.a"[..]].as_ref(), b"x\n\0=y\xff");
        assert_eq!(extended.path.as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(
            time(b"-0.25"),
            Ok(Some(Time {
                seconds: -1,
                nanoseconds: 750_000_000
            }))
        );
        assert_eq!(
            time(b"-2"),
            Ok(Some(Time {
                seconds: -2,
                nanoseconds: 0
            }))
        );
        assert_eq!(
            time(b"1.0000000019"),
            Ok(Some(Time {
                seconds: 1,
                nanoseconds: 1
            }))
        );
    }

    // security.md, S9.
    #[test]
    fn malformed_records_are_errors() {
        let bad: [&[u8]; 9] = [
            b"x",
            b"9 path=ab",
            b"99 path=a\n",
            b"9 path=ab\n1",
            b"-9 path=a\n",
            b"11 path=a\0b\n",
            b"5 =a\n",
            b"8 path a\n",
            b"10 size=x1\n",
        ];
        for data in bad {
            assert!(parse(data).is_err(), "{:?}", lossy(data));
        }
    }
}
