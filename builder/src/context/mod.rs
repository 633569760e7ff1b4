//! The build context: a directory read in place, minus what .dockerignore excludes.

mod index;
mod place;
mod table;

pub(crate) use index::attributes_of;
pub use index::{Files, Fingerprint, HashIndex, Print, Prints, Reading};
pub use place::{Date, Opened, Opener, Place};

use crate::pattern::ignore::{BadRule, Rules};
use crate::remote::git::GitError;
use crate::remote::http::HttpError;
use crate::storage::StorageError;
use crate::tree::{Root, TreeError};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest ignore file, in bytes.
const IGNORE_BYTES_MAX: u64 = 1024 * 1024;

/// An opened context.
#[derive(Debug)]
pub struct Context {
    /// The directory's path on the host, absolute.
    pub path: PathBuf,
    /// The directory.
    pub root: Root,
    /// What is left out.
    pub rules: Rules,
    /// The ignore file's name in the context, for messages.
    pub ignore_file: Option<String>,
    /// Hashes of files, remembered between builds.
    pub hashes: HashIndex,
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// It cannot be opened or read.
    #[error("open the context")]
    Tree(#[from] TreeError),
    /// It is no directory of this host.
    #[error("resolve the context {path:?}")]
    Path {
        /// As the user gave it.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What it consists of cannot be read.
    #[error("read the context {what}")]
    Read {
        /// What.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is neither an archive nor a Dockerfile.
    #[error("the context {0} is neither an archive nor a Dockerfile")]
    Neither(String),
    /// A git repository.
    #[error("fetch the context")]
    Git(#[from] GitError),
    /// A URL.
    #[error("fetch the context")]
    Http(#[from] HttpError),
    /// The store, which keeps archives.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its ignore file cannot be read.
    #[error("read {name}")]
    ReadIgnore {
        /// The file.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Its ignore file has a line that is no pattern.
    #[error("{name}")]
    Ignore {
        /// The file.
        name: String,
        /// The line.
        source: BadRule,
    },
}

impl Context {
    /// Opens the directory `path`.
    ///
    /// Ignore rules come from `dockerfile`'s own ignore file (its name with `.dockerignore`
    /// appended) or the context's. Hashes are remembered in the folder `cache`.
    ///
    /// # Errors
    /// The directory or the ignore file cannot be read.
    pub fn open(
        path: &Path,
        dockerfile: Option<&Path>,
        cache: &Path,
    ) -> Result<Self, ContextError> {
        let full = path.canonicalize().map_err(|source| ContextError::Path {
            path: path.to_owned(),
            source,
        })?;
        let root = Root::open(&full)?.remembering();
        let (rules, ignore_file) = match own_ignore_file(dockerfile)? {
            Some(found) => found,
            None => context_ignore_file(&root)?,
        };
        Ok(Self {
            hashes: HashIndex::load(cache, &full),
            path: full,
            root,
            rules,
            ignore_file,
        })
    }
}

impl Context {
    /// Takes files that are no directory of the user, called `name`. Ignore rules come from the
    /// ignore file of the Dockerfile `dockerfile` in it, or its own.
    ///
    /// # Errors
    /// The ignore file cannot be read.
    pub fn of_files(
        root: Root,
        name: &str,
        dockerfile: Option<&str>,
    ) -> Result<Self, ContextError> {
        let root = root.remembering();
        let own = dockerfile.map(|name| format!("{name}.dockerignore"));
        let own = match own {
            Some(name) => ignore_file_in(&root, &name)?,
            None => None,
        };
        let (rules, ignore_file) = match own {
            Some(found) => found,
            None => context_ignore_file(&root)?,
        };
        Ok(Self {
            hashes: HashIndex::forgetful(),
            path: PathBuf::from(name),
            root,
            rules,
            ignore_file,
        })
    }
}

type Ignore = (Rules, Option<String>);

/// `web.Dockerfile.dockerignore` beside `web.Dockerfile`.
fn own_ignore_file(dockerfile: Option<&Path>) -> Result<Option<Ignore>, ContextError> {
    let Some(dockerfile) = dockerfile else {
        return Ok(None);
    };
    let mut path = dockerfile.as_os_str().to_owned();
    path.push(".dockerignore");
    match std::fs::File::open(&path) {
        Ok(file) => parse(&Path::new(&path).to_string_lossy(), file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ContextError::ReadIgnore {
            name: path.to_string_lossy().into_owned(),
            source,
        }),
    }
}

fn context_ignore_file(root: &Root) -> Result<Ignore, ContextError> {
    Ok(ignore_file_in(root, ".dockerignore")?.unwrap_or_default())
}

fn ignore_file_in(root: &Root, name: &str) -> Result<Option<Ignore>, ContextError> {
    match root.meta(Path::new(name))? {
        None => Ok(None),
        Some(_) => parse(name, root.open_file(Path::new(name))?).map(Some),
    }
}

fn parse(name: &str, file: std::fs::File) -> Result<Ignore, ContextError> {
    let mut text = String::new();
    let read = file.take(IGNORE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| ContextError::ReadIgnore {
        name: name.to_owned(),
        source,
    })?;
    let rules = Rules::parse(&text).map_err(|source| ContextError::Ignore {
        name: name.to_owned(),
        source,
    })?;
    Ok((rules, Some(name.to_owned())))
}
