//! COPY and ADD, from paths to a layer.
//!
//! ```text
//! select.rs  the sources' patterns -> groups of files, as the origin has them
//! items.rs   what was selected, file by file
//! digest.rs  what was selected -> one digest, the cache's view
//! place.rs   groups and the tree below -> entries at their final paths
//! layer.rs   entries -> a tar stream
//! archive.rs ADD's archives, member by member
//! ```

pub mod archive;
pub mod digest;
pub mod items;
pub mod layer;
pub mod place;
pub mod select;

use crate::pattern::ignore::BadRule;
use crate::tree::TreeError;
use crate::tree::owner::OwnerError;
use std::path::PathBuf;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A source that is not there.
    #[error("{path:?}: no such file or directory in {place}{hint}")]
    Missing {
        /// The source.
        path: String,
        /// The context, or another stage.
        place: &'static str,
        /// Which ignore rule excluded it, or which file was nearly meant.
        hint: String,
    },
    /// A file of the layer would replace a directory or the reverse.
    #[error("cannot replace {what} {path:?} by {by}")]
    Replace {
        /// What is there.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is copied.
        by: &'static str,
    },
    /// Two sources would become one file.
    #[error(
        "several files would become {path:?}: end the destination with a / to copy them into a directory"
    )]
    SeveralToOne {
        /// The destination.
        path: PathBuf,
    },
    /// A pattern of the sources.
    #[error("{pattern:?} is no pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A pattern of `--exclude` or `--parents`.
    #[error(transparent)]
    Rule(#[from] BadRule),
    /// The file system.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// `--chown`.
    #[error("resolve the owner")]
    Owner(#[from] OwnerError),
    /// The content of a file changed while it was read, or cannot be read.
    #[error("read {path:?}")]
    Read {
        /// Which, seen from its origin.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The layer cannot be written.
    #[error("write the layer")]
    Write(#[source] std::io::Error),
    /// A URL.
    #[error("fetch")]
    Http(#[source] crate::remote::http::HttpError),
    /// A git repository.
    #[error("fetch")]
    Git(#[source] crate::remote::git::GitError),
    /// An archive of ADD cannot be unpacked.
    #[error("unpack {path:?}")]
    Unpack {
        /// Which, seen from the context.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
