//! How far views are read ahead of who reads them.
//!
//! The kernel gives every EROFS mount on a file 128 KiB, whatever the disk below is set to. A view that may not read ahead
//! as far as the file system it lies on asks for the same bytes in a third more requests, and is slower when it is cold.
//! The kernel shows no connection from a mount to its place in `/sys/class/bdi`: the places that are new after mounting
//! are ours, or another store's, for which the same is right. All of this is advice: where it cannot be given, nothing fails.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rustix::fs::{major, minor, stat};

/// Where the kernel keeps it, a folder a file system; sysfs-class-bdi.
const FOLDER: &str = "/sys/class/bdi";
/// The file, in KiB.
const FILE: &str = "read_ahead_kb";

/// The EROFS mounts that there are.
#[derive(Debug)]
pub(crate) struct Known(HashSet<OsString>);

impl Known {
    /// Those before mounting.
    pub(crate) fn look() -> Known {
        Known(names().collect())
    }

    /// Lets all that came since read as far ahead as the disk of `store`, where that is further.
    pub(crate) fn adjust_new(&self, store: &Path) {
        let Some(wanted) = of_disk(store) else {
            return;
        };
        for name in names().filter(|name| !self.0.contains(name)) {
            let path = Path::new(FOLDER).join(name).join(FILE);
            if read(&path).is_some_and(|own| own < wanted) {
                let _ = fs::write(path, wanted.to_string());
            }
        }
    }
}

fn names() -> impl Iterator<Item = OsString> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    names.filter(|name| name.as_encoded_bytes().starts_with(b"erofs-"))
}

/// Of the disk that `path` lies on, in KiB; `None` where that is no disk.
fn of_disk(path: &Path) -> Option<u64> {
    let disk = stat(path).ok()?.st_dev;
    let name = format!("{}:{}", major(disk), minor(disk));
    read(&Path::new(FOLDER).join(name).join(FILE))
}

fn read(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
