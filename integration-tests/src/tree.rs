//! The content of a directory tree as text, to compare two trees by.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One line for every entry below `root`, sorted: type, mode, owner, times in
/// nanoseconds (of what is not a directory), size or device, link target or
/// the hash of the content. The root itself is left out.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn describe(root: &Path) -> String {
    let mut lines = Vec::new();
    walk(root, Path::new(""), &mut lines);
    lines.sort();
    lines.join("\n")
}

fn walk(root: &Path, below: &Path, lines: &mut Vec<String>) {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("read {folder:?}: {error}")) {
        let name = below.join(entry.expect("read a directory entry").file_name());
        let path = root.join(&name);
        let meta =
            fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("stat {path:?}: {error}"));
        lines.push(line(&name, &path, &meta));
        if meta.is_dir() {
            walk(root, &name, lines);
        }
    }
}

fn line(name: &Path, path: &Path, meta: &fs::Metadata) -> String {
    let mut out = format!(
        "{} {:o} {}:{}",
        name.as_os_str().as_bytes().escape_ascii(),
        meta.mode(),
        meta.uid(),
        meta.gid()
    );
    let kind = meta.file_type();
    if !kind.is_dir() {
        let _ = write!(
            out,
            " {}.{:09} links={}",
            meta.mtime(),
            meta.mtime_nsec(),
            meta.nlink()
        );
    }
    if kind.is_file() {
        let content = fs::read(path).unwrap_or_else(|error| panic!("read {path:?}: {error}"));
        let hash = Sha256::digest(&content);
        let _ = write!(
            out,
            " {} {}",
            meta.size(),
            hash.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        );
    } else if kind.is_symlink() {
        let target =
            fs::read_link(path).unwrap_or_else(|error| panic!("read link {path:?}: {error}"));
        let _ = write!(out, " -> {}", target.as_os_str().as_bytes().escape_ascii());
    } else if kind.is_char_device() || kind.is_block_device() {
        let _ = write!(out, " device {:x}", meta.rdev());
    }
    out
}
