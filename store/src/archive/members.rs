//! A tar as a place to find members by name, without unpacking it.

use crate::tar::{FileSource, Kind, Reader};
use crate::transfer::Error;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Most members of an archive of images: each image has three for a layer.
const MEMBERS_MAX: usize = 200_000;

/// Links followed to one member; `docker save` of old makes one, to a layer it already wrote.
const LINKS_MAX: usize = 8;

/// Where a member is.
enum Member {
    Data { offset: u64, size: u64 },
    Link(String),
}

/// An archive with its members by name.
pub(crate) struct Members {
    file: File,
    what: String,
    members: HashMap<String, Member>,
}

impl Members {
    /// Reads the headers of `file`, a plain tar; `what` names it in messages.
    pub(crate) fn read(file: File, what: &str) -> Result<Self, Error> {
        let wrong = |source| Error::Tar {
            what: what.to_owned(),
            source,
        };
        let source = FileSource::new(&file).map_err(|error| wrong(error.into()))?;
        let mut reader = Reader::new(source);
        let mut members = HashMap::new();
        while let Some(entry) = reader.next(|| {}).map_err(wrong)? {
            if members.len() >= MEMBERS_MAX {
                let why = format!("it has more than {MEMBERS_MAX} members");
                return Err(Error::Archive {
                    what: what.to_owned(),
                    why,
                });
            }
            let Ok(path) = String::from_utf8(entry.path) else {
                continue;
            };
            let Some(name) = normal("", &path) else {
                continue;
            };
            let member = match entry.kind {
                Kind::File(data) if data.odd.is_none() => Member::Data {
                    offset: data.offset,
                    size: data.size,
                },
                // The padding of a member means nothing here; holes would.
                Kind::File(data) if matches!(data.odd, Some(crate::tar::Odd::DirtyPadding)) => {
                    Member::Data {
                        offset: data.offset,
                        size: data.size,
                    }
                }
                Kind::Symlink(target) => match link(&name, &target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::HardLink(target) => match link("", &target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::File(_) | Kind::Directory | Kind::Device(_) | Kind::Fifo => continue,
            };
            members.insert(name, member);
        }
        Ok(Self {
            file,
            what: what.to_owned(),
            members,
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A member's length in bytes.
    pub(crate) fn size(&self, name: &str) -> Result<u64, Error> {
        self.find(name)
            .map(|(_, size)| size)
            .ok_or_else(|| self.missing(name))
    }

    /// Opens a member.
    pub(crate) fn open(&self, name: &str) -> Result<impl Read + Send + '_, Error> {
        let (offset, size) = self.find(name).ok_or_else(|| self.missing(name))?;
        Ok(Window {
            file: &self.file,
            offset,
            end: offset.saturating_add(size),
        })
    }

    fn missing(&self, name: &str) -> Error {
        Error::Archive {
            what: self.what.clone(),
            why: format!("it has no member {name:?}"),
        }
    }

    /// Place and length of a file, through links within the archive.
    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normal("", name)?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&name)? {
                Member::Data { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// A link's target as a name within the archive.
fn link(from: &str, target: &[u8]) -> Option<String> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    normal(folder, std::str::from_utf8(target).ok()?)
}

/// `path`, seen from `folder`, without `.` and `..`; none when it leaves the archive.
fn normal(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// A part of a file as a reader; several may read one file.
struct Window<'f> {
    file: &'f File,
    offset: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..length], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Attributes, Writer};

    #[test]
    fn names_never_leave_the_archive() {
        assert_eq!(normal("", "./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(normal("a/b", "../c").as_deref(), Some("a/c"));
        for path in ["/etc/shadow", "../x", "a/../../x"] {
            assert_eq!(normal("", path), None, "{path}");
        }
    }

    #[test]
    fn members_are_found_through_links() {
        let attributes = Attributes::default();
        let mut out = Writer::new(tempfile::tempfile().unwrap());
        out.file(b"a/layer.tar", &attributes, 5, &b"hello"[..])
            .unwrap();
        out.symlink(b"b/layer.tar", &attributes, b"../a/layer.tar")
            .unwrap();
        out.symlink(b"c/layer.tar", &attributes, b"/etc/shadow")
            .unwrap();
        out.symlink(b"loop", &attributes, b"loop").unwrap();
        let members = Members::read(out.finish().unwrap(), "test").unwrap();
        for name in ["a/layer.tar", "./b/layer.tar"] {
            let mut text = String::new();
            members
                .open(name)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!((text.as_str(), members.size(name).unwrap()), ("hello", 5));
        }
        for name in ["c/layer.tar", "loop", "nosuch", "../a"] {
            assert!(members.open(name).is_err(), "{name}");
        }
    }
}
