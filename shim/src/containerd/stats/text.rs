//! The formats in which the kernel shows figures of cgroups: all are lines of words.

use std::path::{Path, PathBuf};

use crate::supervisor::cgroups;

/// A number, by the kernel's habits: a negative one counts as 0.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix('-') {
        Some(rest) => rest.parse::<u64>().ok().map(|_| 0),
        None => text.parse().ok(),
    }
}

/// A file with one number, or `max`, which stands for `unlimited`; 0 where there is no such file.
pub(super) fn value(folder: &Path, file: &str, unlimited: u64) -> u64 {
    let text = cgroups::read(&folder.join(file)).unwrap_or_default();
    match text.trim() {
        "max" => unlimited,
        text => number(text).unwrap_or_default(),
    }
}

/// A file of lines `name value`.
#[derive(Debug, Default)]
pub(super) struct Table(String);

impl Table {
    /// Reads it; one that is not there is empty.
    pub(super) fn read(folder: &Path, file: &str) -> Self {
        Self(cgroups::read(&folder.join(file)).unwrap_or_default())
    }

    #[cfg(test)]
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name`; 0 where it is not named.
    pub(super) fn get(&self, name: &str) -> u64 {
        let value = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            (key == name).then(|| number(value))?
        };
        self.0.lines().find_map(value).unwrap_or_default()
    }
}

/// A line `name key=value key=value ...`.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// Its first word.
    pub(super) name: &'a str,
    rest: &'a str,
}

impl<'a> Record<'a> {
    /// Parses one; `None` for a line without any key.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.trim().split_once(' ')?;
        Some(Self { name, rest })
    }

    /// The text of `key`'s value.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        let of_key = |word: &'a str| word.strip_prefix(key)?.strip_prefix('=');
        self.rest.split_ascii_whitespace().find_map(of_key)
    }

    /// The number of `key`'s value; 0 where it is not named.
    pub(super) fn number(&self, key: &str) -> u64 {
        self.text(key).and_then(number).unwrap_or_default()
    }
}

/// `MAJOR:MINOR`.
pub(super) fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((number(major)?, number(minor)?))
}

/// One line of an `rdma.current` or `rdma.max`: device, handles, objects.
pub(super) fn rdma(folder: &Path, file: &str) -> Vec<(String, u32, u32)> {
    let text = cgroups::read(&folder.join(file)).unwrap_or_default();
    let narrow = |record: &Record<'_>, key| match record.text(key) {
        Some("max") => u32::MAX,
        _ => u32::try_from(record.number(key)).unwrap_or(u32::MAX),
    };
    let entry = |line| {
        let record = Record::parse(line)?;
        let (handles, objects) = (narrow(&record, "hca_handle"), narrow(&record, "hca_object"));
        Some((record.name.to_owned(), handles, objects))
    };
    text.lines().filter_map(entry).collect()
}

/// The page sizes that `folder` counts huge pages of, by the names of its
/// files: `hugetlb.SIZE<suffix>`.
pub(super) fn huge_page_sizes(folder: &Path, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = entries.filter_map(size).collect();
    sizes.sort();
    sizes
}

/// Where the kernel lists block devices by number and name.
pub(super) const PARTITIONS: &str = "/proc/partitions";

/// The device node of a block device, by the text of [`PARTITIONS`]; empty for an unknown one.
pub(super) fn device_node(partitions: &str, (major, minor): (u64, u64)) -> String {
    let node = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let same = number(words.next()?)? == major && number(words.next()?)? == minor;
        let name = words.nth(1)?;
        same.then(|| PathBuf::from("/dev").join(name).display().to_string())
    };
    partitions.lines().find_map(node).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_give_numbers() {
        let table = Table::new("cache 7\ncache_x 8\nnegative -1\nbroken x\nshort\n");
        assert_eq!(table.get("cache"), 7);
        assert_eq!(table.get("cache_x"), 8);
        assert_eq!(table.get("negative"), 0);
        assert_eq!(table.get("broken"), 0);
        assert_eq!(table.get("short"), 0);
        assert_eq!(table.get("absent"), 0);
    }

    #[test]
    fn records_give_numbers() {
        let record = Record::parse("8:0 rbytes=1 wbytes=22 rios=3\n").unwrap();
        assert_eq!(device(record.name), Some((8, 0)));
        assert_eq!(record.number("wbytes"), 22);
        assert_eq!(record.number("bytes"), 0);
        assert!(Record::parse("8:0").is_none());
    }

    #[test]
    fn devices_have_names() {
        let text = "major minor  #blocks  name\n\n   8        0   10 sda\n   8        1   9 sda1\n";
        assert_eq!(device_node(text, (8, 1)), "/dev/sda1");
        assert_eq!(device_node(text, (9, 1)), "");
    }

    #[test]
    fn files_say_max_or_a_number() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "max\n"), ("b", "12\n"), ("c", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(value(dir.path(), "a", u64::MAX), u64::MAX);
        assert_eq!(value(dir.path(), "a", 0), 0);
        assert_eq!(value(dir.path(), "b", 0), 12);
        assert_eq!(value(dir.path(), "c", 9), 0);
        assert_eq!(value(dir.path(), "absent", 9), 0);
        std::fs::write(
            dir.path().join("rdma.max"),
            "mlx4_0 hca_handle=2 hca_object=max\n",
        )
        .unwrap();
        assert_eq!(
            rdma(dir.path(), "rdma.max"),
            [("mlx4_0".to_owned(), 2, u32::MAX)]
        );
        for name in [
            "hugetlb.2MB.current",
            "hugetlb.2MB.rsvd.current",
            "hugetlb.1GB.current",
        ] {
            std::fs::write(dir.path().join(name), "0\n").unwrap();
        }
        assert_eq!(huge_page_sizes(dir.path(), ".current"), ["1GB", "2MB"]);
    }
}
