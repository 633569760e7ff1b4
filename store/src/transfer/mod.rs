//! Images between the store and elsewhere: registries here, archives in [`crate::archive`].
//!
//! What comes in goes through [`intake`], wherever it is from: document by
//! document, layers in parallel, each checked while it streams. What goes out
//! goes through [`outgoing`]: bytes as they came, and layers that were built
//! here packed once.

pub(crate) mod intake;
pub(crate) mod outgoing;
mod packing;
pub(crate) mod parallel;
mod pull;
mod push;

pub use packing::Packing;
pub use pull::{Pulled, pull};
pub use push::{PushOptions, Pushed, push};

use crate::digest::Digest;
use crate::registry;
use std::io;
use std::path::PathBuf;

/// What can go wrong with an image on its way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Registry(Box<registry::Error>),
    /// The store.
    #[error(transparent)]
    Store(Box<crate::Error>),
    /// The image is for other machines.
    #[error("it has nothing for {wanted}, only for {offered}: choose one of these with --platform")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// An index in an index in an index.
    #[error("its indexes are nested deeper than {0}")]
    Nested(usize),
    /// An artifact, such as a chart or a signature.
    #[error("it is not an image but holds {0:?}")]
    NotAnImage(String),
    /// A layer that the registry does not hold.
    #[error(
        "layer {0} is foreign: it is not stored with the image but at addresses of its own; --allow-foreign-layers fetches it from there"
    )]
    ForeignLayer(Digest),
    /// The destination's name has a digest that the image has not.
    #[error("the name says {named}, and the image is {found}: leave the digest out")]
    OtherDigest {
        /// What the name says.
        named: Box<Digest>,
        /// What the image is.
        found: Box<Digest>,
    },
    /// Another part of the same image failed first.
    #[error("stopped because another part failed")]
    Stopped,
    /// An archive or a layout on disk.
    #[error("{action} {path:?}")]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An archive that is not what it should be.
    #[error("{what}: {why}")]
    Archive {
        /// The archive, and what of it.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A tar that is not one.
    #[error("read {what}")]
    Tar {
        /// The archive.
        what: String,
        /// What is wrong.
        source: crate::tar::TarError,
    },
    /// A reference without which the image would have no name.
    #[error("{0}")]
    NoName(String),
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::Store(Box::new(error))
    }
}
