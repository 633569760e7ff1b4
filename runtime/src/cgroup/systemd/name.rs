//! `cgroupsPath` for systemd: `SLICE:PREFIX:NAME`, and the unit that it names
//! (runc's docs/systemd.md; systemd.unit(5), systemd.slice(5)).

use std::path::PathBuf;

use super::Error;

/// The longest name of a unit in bytes (`UNIT_NAME_MAX` of systemd).
const UNIT_BYTES_MAX: usize = 255;

/// A unit and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The slice that it is put in.
    pub(super) slice: String,
    /// Its own name.
    pub(super) unit: String,
    /// What the description calls it.
    pub(super) name: String,
    /// Its cgroup, below that of systemd.
    pub(super) directory: PathBuf,
}

impl Place {
    /// Reads the path; an empty one stands for `:runc:ID`. A user's systemd has
    /// another usual slice.
    pub(super) fn parse(path: &str, id: &str, user: bool) -> Result<Self, Error> {
        let (slice, prefix, name) = if path.is_empty() {
            ("", "runc", id)
        } else {
            let mut parts = path.split(':');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                _ => return Err(Error::Path(path.to_owned())),
            }
        };
        let slice = match (slice, user) {
            ("", true) => "user.slice",
            ("", false) => "system.slice",
            (slice, _) => slice,
        };
        let parent = expand(slice)?;
        let is_slice = name.ends_with(SLICE);
        let unit = if is_slice {
            name.to_owned()
        } else {
            format!("{prefix}-{name}.scope")
        };
        check(&unit)?;
        Ok(Self {
            slice: slice.to_owned(),
            directory: if is_slice {
                expand(name)?
            } else {
                parent.join(&unit)
            },
            name: name.to_owned(),
            unit,
        })
    }

    /// Whether the unit is a slice, which holds units and no processes of its own.
    pub(super) fn is_slice(&self) -> bool {
        self.unit.ends_with(SLICE)
    }
}

const SLICE: &str = ".slice";

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root of all.
fn expand(slice: &str) -> Result<PathBuf, Error> {
    let invalid = || Error::Slice(slice.to_owned());
    let stem = slice.strip_suffix(SLICE).ok_or_else(invalid)?;
    check(slice)?;
    let mut directory = PathBuf::from("/");
    if stem == "-" {
        return Ok(directory);
    }
    let mut end = 0;
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        end += part.len();
        directory.push(format!("{}{SLICE}", &stem[..end]));
        end += 1;
    }
    Ok(directory)
}

/// What systemd takes for a name; nothing of it can lead elsewhere in a path.
fn check(unit: &str) -> Result<(), Error> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if unit.len() > UNIT_BYTES_MAX || !unit.bytes().all(valid) {
        return Err(Error::Unit(unit.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> (String, String) {
        let place = Place::parse(path, "c1", false).unwrap();
        (place.directory.to_str().unwrap().to_owned(), place.unit)
    }

    #[test]
    fn the_path_names_slice_and_scope() {
        for (path, directory, unit) in [
            ("", "/system.slice/runc-c1.scope", "runc-c1.scope"),
            ("::", "/system.slice/-.scope", "-.scope"),
            (":p:n", "/system.slice/p-n.scope", "p-n.scope"),
            (
                "machine-a-b.slice:libpod:x",
                "/machine.slice/machine-a.slice/machine-a-b.slice/libpod-x.scope",
                "libpod-x.scope",
            ),
            ("-.slice:p:n", "/p-n.scope", "p-n.scope"),
            (
                "kube.slice:ignored:kube-pod.slice",
                "/kube.slice/kube-pod.slice",
                "kube-pod.slice",
            ),
            (
                "a.slice:p:n.with.dots",
                "/a.slice/p-n.with.dots.scope",
                "p-n.with.dots.scope",
            ),
        ] {
            assert_eq!(
                place(path),
                (directory.to_owned(), unit.to_owned()),
                "{path}"
            );
        }
        assert_eq!(Place::parse("", "c1", true).unwrap().slice, "user.slice");
    }

    #[test]
    fn what_is_no_such_path_is_refused() {
        let long = format!("a.slice:p:{}", "x".repeat(5000));
        for path in [
            "/a/b",
            "../../x",
            "a:b",
            "a:b:c:d",
            "a.slice/b.slice:p:n",
            "system:p:n",
            ".slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a-.slice:p:n",
            "-:p:n",
            "a.slice:p:../../x",
            "a.slice:../p:n",
            "a.slice:p:n x",
            "..slice/..:p:n",
            "a.slice:p:n\n",
            "a.slice:p:a--b.slice",
            &long,
        ] {
            assert!(Place::parse(path, "c1", false).is_err(), "{path:?}");
        }
        let error = Place::parse("/a/b", "c1", false).unwrap_err().to_string();
        assert_eq!(
            error,
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead"
        );
    }
}
