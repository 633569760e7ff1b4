//! `user[:group]` to numbers, by the tree's own /etc/passwd and /etc/group.

use super::{Root, TreeError};
use std::io::Read;
use std::path::Path;

/// Largest passwd or group file that is read, in bytes. A million accounts fit.
const ACCOUNTS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Numeric owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why a name has no number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The file does not list it.
    #[error("{file} of the image lists no {name:?}")]
    Unknown {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The same, after it was opened.
    #[error("read {file} of the image")]
    Read {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Resolves `user`, `user:group`, `uid`, `uid:gid` and their mixtures. Numbers need no file;
/// a user number without group takes the same number as its group, a name its first group.
///
/// # Errors
/// A name that the tree does not know.
pub fn resolve(text: &str, tree: Option<&Root>) -> Result<Owner, OwnerError> {
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    let (uid, first_group) = match (user, user.parse::<u32>()) {
        ("", _) => (0, 0),
        (_, Ok(uid)) => (uid, uid),
        (name, Err(_)) => user_by_name(name, tree)?,
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        None => first_group,
        Some(text) => match text.parse() {
            Ok(gid) => gid,
            Err(_) => group_by_name(text, tree)?,
        },
    };
    Ok(Owner { uid, gid })
}

/// `name:password:uid:gid:...`, passwd(5).
fn user_by_name(name: &str, tree: Option<&Root>) -> Result<(u32, u32), OwnerError> {
    let found = entry("/etc/passwd", name, tree)?
        .and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
    found
        .or((name == "root").then_some((0, 0)))
        .ok_or_else(|| unknown("/etc/passwd", name))
}

/// `name:password:gid:members`, group(5).
fn group_by_name(name: &str, tree: Option<&Root>) -> Result<u32, OwnerError> {
    let found = entry("/etc/group", name, tree)?.and_then(|fields| fields.get(2)?.parse().ok());
    found
        .or((name == "root").then_some(0))
        .ok_or_else(|| unknown("/etc/group", name))
}

fn unknown(file: &'static str, name: &str) -> OwnerError {
    OwnerError::Unknown {
        file,
        name: name.to_owned(),
    }
}

fn entry(
    file: &'static str,
    name: &str,
    tree: Option<&Root>,
) -> Result<Option<Vec<String>>, OwnerError> {
    let Some(tree) = tree else { return Ok(None) };
    if tree.meta(Path::new(file))?.is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let opened = tree.open_file(Path::new(file))?;
    opened
        .take(ACCOUNTS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|source| OwnerError::Read { file, source })?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    Ok(line.map(|line| line.split(':').map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let own = |text: &str| {
            resolve(text, Some(&root))
                .map(|owner| (owner.uid, owner.gid))
                .ok()
        };
        assert_eq!(own("web"), Some((33, 44)));
        assert_eq!(own("web:staff"), Some((33, 50)));
        assert_eq!(own("7"), Some((7, 7)));
        assert_eq!(own("7:staff"), Some((7, 50)));
        assert_eq!(own("web:9"), Some((33, 9)));
        assert_eq!(own("none"), None);
        assert_eq!(own("web:none"), None);
        assert_eq!(resolve("root:root", None).unwrap(), Owner::default());
        assert!(resolve("web", None).is_err());
    }
}
