//! Where an image is copied from or to, in the words of skopeo.

use crate::reference::Reference;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `oci:PATH[:REF]`: an OCI layout as a directory; REF is a name in its index, or `@DIGEST` of any document in it.
    OciDir(PathBuf, Option<String>),
    /// `oci-archive:PATH[:REF]`: a tar of an OCI layout.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:PATH[:NAME]`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `docker-daemon:NAME`: the docker daemon of this machine.
    DockerDaemon(String),
    /// `store:NAME`, or a name alone: the store.
    Store(String),
}

/// A text that is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a place of images: {why}")]
pub struct BadLocation {
    text: String,
    why: String,
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        let bad = |why: &str| BadLocation {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        if let Some(name) = text.strip_prefix("docker://") {
            let name = name.parse().map_err(|error| bad(&format!("{error}")))?;
            return Ok(Self::Registry(name));
        }
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        let in_file = || {
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(bad("it names no path"));
            }
            let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
            Ok((PathBuf::from(path), name))
        };
        match kind {
            "oci" => in_file().map(|(path, name)| Self::OciDir(path, name)),
            "oci-archive" => in_file().map(|(path, name)| Self::OciArchive(path, name)),
            "docker-archive" => {
                let (path, name) = in_file()?;
                if let Some(name) = &name {
                    name.parse::<Reference>()
                        .map_err(|error| bad(&error.to_string()))?;
                }
                Ok(Self::DockerArchive(path, name))
            }
            "docker-daemon" if rest.is_empty() => Err(bad("it names no image")),
            "docker-daemon" => Ok(Self::DockerDaemon(rest.to_owned())),
            "store" if rest.is_empty() => Err(bad("it names no image")),
            "store" => Ok(Self::Store(rest.to_owned())),
            _ if text.contains("://") => Err(bad(
                "want docker://NAME, oci:PATH[:REF], oci-archive:PATH[:REF], docker-archive:PATH[:NAME], docker-daemon:NAME or store:NAME",
            )),
            _ => Ok(Self::Store(text.to_owned())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut in_file = |kind: &str, path: &PathBuf, name: &Option<String>| {
            write!(f, "{kind}:{}", path.display())?;
            name.iter().try_for_each(|name| write!(f, ":{name}"))
        };
        match self {
            Self::Registry(name) => write!(f, "docker://{name}"),
            Self::OciDir(path, name) => in_file("oci", path, name),
            Self::OciArchive(path, name) => in_file("oci-archive", path, name),
            Self::DockerArchive(path, name) => in_file("docker-archive", path, name),
            Self::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
            Self::Store(name) => write!(f, "store:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_people_write_them() {
        for (text, printed) in [
            (
                "docker://alpine",
                "docker://docker.io/library/alpine:latest",
            ),
            ("oci:/a/b:1.2", "oci:/a/b:1.2"),
            ("oci:layout", "oci:layout"),
            (
                "oci-archive:x.tar:r.test/a:1",
                "oci-archive:x.tar:r.test/a:1",
            ),
            (
                "docker-archive:x.tar:localhost:5000/a:1",
                "docker-archive:x.tar:localhost:5000/a:1",
            ),
            ("docker-daemon:busybox:1", "docker-daemon:busybox:1"),
            ("store:busybox", "store:busybox"),
            ("busybox:1.36", "store:busybox:1.36"),
            ("localhost:5000/a", "store:localhost:5000/a"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), printed);
        }
        for bad in [
            "docker://UPPER/..",
            "oci:",
            "oci::x",
            "docker-daemon:",
            "store:",
            "dir://x",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
