//! Where a context is: a directory, a git repository, a URL, standard input.
//!
//! A directory is read in place. A repository is checked out into the build's own folder. An archive
//! becomes a layer of the store and is read as one: nothing of it is unpacked anywhere. A text that is
//! no archive is a Dockerfile, with an empty context.

use super::ContextError;
use crate::cancel::Cancel;
use crate::copy::archive;
use crate::dockerfile::DOCKERFILE_BYTES_MAX;
use crate::pattern::ignore::Rules;
use crate::remote::git::Git;
use crate::remote::{self, BadUrl, GitSource, HttpSource, http};
use crate::storage::{Storage, StorageError};
use crate::tree::walk::{Excluding, walk};
use crate::tree::{Root, TreeError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest archive of a context, in bytes after decompression: a bomb shall fill no disk.
const ARCHIVE_BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;

/// Bytes copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// A place that files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of this host.
    Directory(PathBuf),
    /// A git repository.
    Git(GitSource),
    /// An archive, or a Dockerfile, behind a URL.
    Http(HttpSource),
    /// An archive, or a Dockerfile, on standard input.
    Stdin,
}

/// What a place turned out to be.
#[derive(Debug)]
pub enum Opened {
    /// Files, and when they are from.
    Files(Root, Date),
    /// A Dockerfile, and no files.
    Dockerfile(String),
}

/// When a context is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Date {
    /// It changes as the user works.
    None,
    /// Seconds since 1970, as its server or repository says.
    At(i64),
    /// As the newest of its files.
    Newest,
}

impl Place {
    /// Reads the context's name.
    ///
    /// # Errors
    /// A URL or address that cannot be used.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let expanded = match text.strip_prefix("github.com/") {
            Some(_) if !Path::new(text).exists() => format!("https://{}", with_git_suffix(text)),
            _ => text.to_owned(),
        };
        if let Some(source) = remote::git_source(&expanded) {
            return source.map(Self::Git);
        }
        match remote::http_source(&expanded) {
            Some(source) => source.map(Self::Http),
            None => Ok(Self::Directory(PathBuf::from(text))),
        }
    }

    /// As the user may see it: without passwords.
    pub fn shown(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Git(source) => source.shown(),
            Self::Http(source) => source.url.clone(),
            Self::Stdin => "-".to_owned(),
        }
    }
}

impl Date {
    /// In seconds since 1970, for a context with these files; `None` where there is none to speak of.
    ///
    /// # Errors
    /// The files cannot be listed.
    pub fn seconds(self, root: &Root) -> Result<Option<i64>, TreeError> {
        match self {
            Self::None => Ok(None),
            Self::At(seconds) => Ok(Some(seconds)),
            Self::Newest => {
                let all = walk(root, Path::new(""), "", &Excluding(&Rules::default()))?;
                let files = all.iter().filter(|found| !found.meta.is_directory());
                Ok(files.map(|found| found.meta.mtime.seconds).max())
            }
        }
    }
}

/// `github.com/a/b#c` as the repository that it means.
fn with_git_suffix(text: &str) -> String {
    let end = text.find(['#', '?']).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let path = path.trim_end_matches('/').trim_end_matches(".git");
    format!("{path}.git{rest}")
}

/// Opens places for one build.
#[derive(Debug)]
pub struct Opener<'a> {
    /// Where archives and repositories are kept while the build lasts.
    pub storage: &'a Storage,
    /// How git is run.
    pub git: Git<'a>,
    /// Ends it.
    pub cancel: &'a Cancel,
}

impl Opener<'_> {
    /// Opens a place; `number` tells it from the build's others.
    ///
    /// # Errors
    /// It is not to be had, or nothing that files can be taken from.
    pub fn open(&self, place: &Place, number: usize) -> Result<Opened, ContextError> {
        match place {
            Place::Directory(path) => Ok(Opened::Files(Root::open(path)?, Date::None)),
            Place::Git(source) => self.repository(source, number),
            Place::Stdin => self.stream("standard input", io::stdin(), Date::Newest),
            Place::Http(source) => {
                let cache = self.storage.cache_folder();
                let fetched = http::fetch(source, &cache, self.cancel, &|_| ())?;
                let file = std::fs::File::open(&fetched.path);
                let seconds = |time: SystemTime| {
                    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                    i64::try_from(since.as_secs()).ok()
                };
                let date = fetched.modified.and_then(seconds);
                let date = date.map_or(Date::Newest, Date::At);
                self.stream(&source.url, file.map_err(unreadable(&source.url))?, date)
            }
        }
    }

    fn repository(&self, source: &GitSource, number: usize) -> Result<Opened, ContextError> {
        let folder = self.storage.scratch().join(format!("context-{number}"));
        std::fs::create_dir(&folder).map_err(unreadable(&folder.display().to_string()))?;
        let commit = self.git.resolve(source)?;
        let date = Date::At(self.git.checkout(source, &commit, &folder)?);
        let root = Root::open(&folder)?;
        if source.directory.is_empty() {
            return Ok(Opened::Files(root, date));
        }
        // Whatever links lead to it, it lies in the repository.
        let directory = root.open_directory(Path::new(&source.directory))?;
        Ok(Opened::Files(Root::new(directory), date))
    }

    fn stream(&self, name: &str, stream: impl Read, date: Date) -> Result<Opened, ContextError> {
        let (is_archive, mut stream) = archive::recognize(stream).map_err(unreadable(name))?;
        if is_archive {
            let root = self.archive(name, &mut stream)?;
            return Ok(Opened::Files(root, date));
        }
        let mut text = String::new();
        let read = stream
            .take(DOCKERFILE_BYTES_MAX + 1)
            .read_to_string(&mut text);
        read.map_err(unreadable(name))?;
        if text.len() as u64 > DOCKERFILE_BYTES_MAX {
            return Err(ContextError::Neither(name.to_owned()));
        }
        Ok(Opened::Dockerfile(text))
    }

    fn archive(&self, name: &str, stream: &mut dyn Read) -> Result<Root, ContextError> {
        let layer = self.storage.write_layer(|out| {
            copy(stream, out, self.cancel)
                .map_err(|error| StreamError::Read(name.to_owned(), error))
        })?;
        Ok(self.storage.own_view(&[layer])?)
    }
}

fn unreadable(what: &str) -> impl FnOnce(io::Error) -> ContextError {
    let what = what.to_owned();
    move |source| ContextError::Read { what, source }
}

/// What can go wrong while an archive becomes a layer.
enum StreamError {
    Read(String, io::Error),
    Storage(StorageError),
}

impl From<StorageError> for StreamError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<StreamError> for ContextError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Read(what, source) => Self::Read { what, source },
            StreamError::Storage(error) => Self::Storage(error),
        }
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, cancel: &Cancel) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut left = ARCHIVE_BYTES_MAX;
    loop {
        if cancel.is_stopped() {
            return Err(io::Error::other("canceled"));
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        left = left.checked_sub(length as u64).ok_or_else(|| {
            let why = format!("more than {ARCHIVE_BYTES_MAX} bytes after decompression");
            io::Error::new(io::ErrorKind::FileTooLarge, why)
        })?;
        to.write_all(&buffer[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_their_names() {
        assert_eq!(Place::parse("-").unwrap(), Place::Stdin);
        assert_eq!(Place::parse("./x").unwrap(), Place::Directory("./x".into()));
        assert!(matches!(
            Place::parse("https://h/a.tar").unwrap(),
            Place::Http(_)
        ));
        assert!(matches!(
            Place::parse("https://h/a.git#b").unwrap(),
            Place::Git(_)
        ));
        let Place::Git(source) = Place::parse("github.com/a/b#c:d").unwrap() else {
            panic!()
        };
        assert_eq!(source.remote, "https://github.com/a/b.git");
        assert!(Place::parse("https://h/a.git#-x").is_err());
    }
}
