//! What can go wrong in the store, said so that the user can act on it.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::BundleError;
use crate::digest::{BadDigest, Digest};
use crate::dirs::WriteError;
use crate::erofs::ErofsError;
use crate::image::BadDocument;
use crate::reference::BadReference;
use crate::tree::LayerError;

/// Everything that can go wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path of the store, or of the user's.
    #[error("{action} {path:?}")]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Content that comes from elsewhere could not be read to its end.
    #[error("read {what}")]
    Read {
        /// What was being read.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A folder that is no store of ours, or one of another version.
    #[error("{path:?} is a store of version {found:?}, this program knows version {known:?}")]
    Version {
        /// The store.
        path: PathBuf,
        /// What its VERSION says.
        found: String,
        /// What we write.
        known: &'static str,
    },
    /// No reference and no image id is like this.
    #[error("no such image {0:?}: pull, import or build it first (`images` lists what is here)")]
    NoSuchImage(String),
    /// A short id that means several images.
    #[error("{0:?} is the beginning of several image ids, write more of it")]
    AmbiguousId(String),
    /// A blob that something names is not there.
    #[error("blob {0} is missing from the store: pull or import the image again")]
    NoSuchBlob(Digest),
    /// A layer that something names is not there.
    #[error("layer {0} is missing from the store: pull or import the image again")]
    NoSuchLayer(crate::digest::DiffId),
    /// Content is not what its name promises.
    #[error("{what} is corrupt: its digest is {found}, not {expected}")]
    DigestMismatch {
        /// What was being read.
        what: String,
        /// The promise.
        expected: Box<Digest>,
        /// The truth.
        found: Box<Digest>,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("{what} is corrupt: it has {found} bytes, not {expected}")]
    SizeMismatch {
        /// What was being read.
        what: String,
        /// The promise, in bytes.
        expected: u64,
        /// The truth, in bytes; reading stops at the first byte too many.
        found: u64,
    },
    /// A document larger than [`crate::image::DOCUMENT_BYTES_MAX`].
    #[error("{what} has {size} bytes, more than the {max} that a document may have")]
    TooLarge {
        /// What was being read.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A manifest or index.
    #[error("read {what}")]
    Document {
        /// Which.
        what: String,
        /// Why not.
        source: BadDocument,
    },
    /// Other JSON.
    #[error("parse {what}")]
    Json {
        /// Which.
        what: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The manifest and the configuration contradict each other.
    #[error("image {image}: {why}")]
    Inconsistent {
        /// Digest of the manifest or configuration.
        image: Digest,
        /// The contradiction.
        why: String,
    },
    /// A layer of a kind that is no tar.
    #[error("layers of media type {0:?} are not supported: only tar, tar+gzip and tar+zstd are")]
    LayerType(String),
    /// A layer's archive.
    #[error("layer {layer}")]
    Layer {
        /// Its blob, or its diff id.
        layer: String,
        /// What is wrong with it.
        source: LayerError,
    },
    /// Layers do not fit on each other.
    #[error("stack the layers of {0}")]
    Stack(crate::digest::ChainId, #[source] LayerError),
    /// A layer's index.
    #[error("layer {layer}")]
    Index {
        /// Its diff id.
        layer: String,
        /// Why not.
        source: ErofsError,
    },
    /// A layer's or image's directory.
    #[error("unpack to {target:?}")]
    Unpack {
        /// Where to.
        target: PathBuf,
        /// What failed.
        source: WriteError,
    },
    /// Image and request make no container.
    #[error("container {id:?}")]
    Bundle {
        /// The container.
        id: String,
        /// Why not.
        source: BundleError,
    },
    /// What a name leads to.
    #[error("image {name}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// An ordinary user outside of any namespace of its own.
    #[error(
        "only root may mount: use a user namespace (`unshare --map-root-user --mount`, then --root with this store), or `unpack` the image"
    )]
    MountByUser,
    /// A directory that `mount` did not make.
    #[error("{0:?} is not a directory that `mount` made")]
    NotMounted(PathBuf),
    /// An image id with several names, of which one must be chosen.
    #[error("image {id} has several names: {names}; name one, or use --force to remove all")]
    SeveralNames {
        /// Its short id.
        id: String,
        /// Its names.
        names: String,
    },
    /// A name that means one image, where an index is needed.
    #[error("{0:?} is a single image, not an index (`index create` makes one)")]
    NoIndex(String),
    /// A manifest that an index does not hold.
    #[error("the index has nothing for {0} (`index list` shows what it has)")]
    NoMember(String),
    /// Two images for the same platform.
    #[error("two of the images are for {0}, an index can have one")]
    SeveralMembers(String),
    /// Others change the same name all the time.
    #[error("{0:?} is changed by others all the time")]
    Contended(String),
    /// A bundle that `unpack` did not make, or another version of it.
    #[error("{0:?} is not a bundle that this version's `unpack` made")]
    NotUnpacked(PathBuf),
    /// A directory that is to become a layer.
    #[error("read {folder:?}")]
    Changes {
        /// The directory.
        folder: PathBuf,
        /// What of it.
        source: crate::layer::UpperError,
    },
    /// A directory to unpack to that has something in it.
    #[error("{0:?} is not empty")]
    NotEmpty(PathBuf),
    /// A text that should be a digest.
    #[error(transparent)]
    BadDigest(#[from] BadDigest),
    /// A text that should be an image name.
    #[error(transparent)]
    BadReference(#[from] BadReference),
}

impl Error {
    /// Whether something is not here that should be.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Error::NoSuchBlob(_) | Error::NoSuchLayer(_))
    }

    /// Whether the disk has no room, or the user may have no more of it.
    pub(crate) fn is_full_disk(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Error::Io { source, .. } if full.contains(&source.kind()))
    }
}

/// Adds to an error of the system what was attempted on what.
pub(crate) trait Context<T> {
    /// `action` is a verb: `open`, `rename`.
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
