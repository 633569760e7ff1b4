//! Mount tables, `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A line of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its number, as `statx(2)` gives it.
    pub id: u64,
    /// Device of its files, `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system it shows.
    pub root: PathBuf,
    /// Where, from the root of the process.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// What it was mounted from, as whoever mounted it said.
    pub source: String,
    /// Options of the file system.
    pub options: String,
}

impl Mount {
    /// All mounts of a table; what is no whole line is left out.
    pub(super) fn table(text: &[u8]) -> Vec<Self> {
        text.split(|&byte| byte == b'\n')
            .filter_map(Self::parse)
            .collect()
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let text = |word: &[u8]| String::from_utf8_lossy(&unescaped(word)).into_owned();
        let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescaped(word)));
        let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let device = text(words.nth(1)?);
        let root = path(words.next()?);
        let point = path(words.next()?);
        words.by_ref().find(|word| *word == b"-")?;
        Some(Self {
            id,
            device,
            root,
            point,
            kind: text(words.next()?),
            source: text(words.next()?),
            options: text(words.next()?),
        })
    }
}

/// Undoes the `\040` of the kernel for space, tab, newline and backslash.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |value, digit| match digit {
                b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
                _ => None,
            })
        };
        let escape = rest.get(..3).filter(|_| byte == b'\\').and_then(octal);
        match escape.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                out.push(value);
                text = &rest[3..];
            }
            None => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_table_is_read() {
        let table = b"22 28 0:21 / /sys rw - sysfs sysfs rw\n\
            31 22 0:22 /x /a\\040b\\134]:c rw shared:5 master:3 - ext4 d rw,x\n\ntorn\n1 2 0:1 / /x rw - a";
        let all = Mount::table(table);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].id, &all[0].kind[..]), (22, "sysfs"));
        let known = Mount {
            id: 31,
            device: "0:22".into(),
            root: "/x".into(),
            point: "/a b\\]:c".into(),
            kind: "ext4".into(),
            source: "d".into(),
            options: "rw,x".into(),
        };
        assert_eq!(all[1], known);
        assert_eq!(unescaped(b"\\04"), b"\\04");
        assert_eq!(unescaped(b"\\999"), b"\\999");
    }
}
