//! Where a build's result goes: images into the store, registries and archives, or plain files.
//!
//! ```text
//! parse.rs     -o type=...,key=value and --annotation -> Output, Annotation
//! document.rs  layers and configurations -> manifests and an index, in the store
//! send.rs      manifests and indexes -> registries, layouts, archives, the docker daemon
//! files.rs     the file system -> a directory, or a tar
//! metadata.rs  what --metadata-file says
//! ```

mod document;
mod files;
mod metadata;
mod parse;
mod send;

pub use files::FilesError;
pub(crate) use files::{tree_to_directory, tree_to_tar};
pub use metadata::metadata;
pub use parse::{BadOutput, annotations};
pub use send::{OutputError, Sending, Sent};

use crate::attest::Predicate;
use std::path::PathBuf;
use teu_store::image::{ImageConfig, Platform};
use teu_store::transfer::Packing;
use teu_store::{DiffId, Reference};

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub kind: Kind,
    /// Names of its own, instead of `--tag`'s.
    pub names: Vec<Reference>,
    /// How layers are packed; none is what the kind does by itself.
    pub packing: Option<Packing>,
    /// An index over a single image, too.
    pub index: bool,
    /// Documents and layers are called as docker calls them.
    pub docker_types: bool,
    /// Annotations of this output alone.
    pub annotations: Vec<Annotation>,
    /// The registry is spoken to without TLS, or with a certificate that nobody vouches for.
    pub insecure: bool,
}

/// What an output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An image of the store; sent to a registry, too.
    Image {
        /// Also to the registry that its name says.
        push: bool,
        /// Under its digest alone.
        by_digest: bool,
        /// Also here, under its name.
        store: bool,
    },
    /// An OCI layout: a directory, or a tar of one.
    Oci {
        /// Where.
        place: Place,
        /// As a tar.
        tar: bool,
    },
    /// What `docker save` writes.
    Docker(Place),
    /// The docker daemon of this machine.
    DockerDaemon,
    /// The file system as a tar.
    Tar(Place),
    /// The file system as files in a directory.
    Local {
        /// Which.
        directory: PathBuf,
        /// Each platform in a directory of its own, even if there is only one.
        split: Option<bool>,
    },
    /// Nothing: what the build leaves in the cache is all.
    CacheOnly,
}

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path on the host.
    Path(PathBuf),
    /// `-`.
    Stdout,
}

/// An annotation of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Of which document.
    pub level: Level,
    /// Only of this platform's.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Which document an annotation is for; image-spec, annotations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The manifest of an image.
    Manifest,
    /// The index over the platforms.
    Index,
    /// The manifest's descriptor in the index.
    ManifestDescriptor,
    /// The descriptor of what is on top, in an OCI layout.
    IndexDescriptor,
}

/// Everything that the command line says about outputs.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// `--output`, `--load` and `--push`; none leaves the image in the store.
    pub list: Vec<Output>,
    /// `--annotation`.
    pub annotations: Vec<Annotation>,
}

impl Outputs {
    /// Whether one of them is written to standard output, which then holds nothing else.
    pub fn takes_stdout(&self) -> bool {
        self.list.iter().any(|output| match &output.kind {
            Kind::Oci { place, .. } | Kind::Docker(place) | Kind::Tar(place) => {
                *place == Place::Stdout
            }
            _ => false,
        })
    }
}

/// What was built for one platform.
#[derive(Debug, Clone)]
pub struct Built {
    /// What it runs on.
    pub platform: Platform,
    /// The configuration; its list of layers is not filled in.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<DiffId>,
    /// What is said about it, when asked for.
    pub predicates: Vec<Predicate>,
}
