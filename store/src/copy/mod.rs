//! `copy`: images from any place to any other, without a store in between.
//!
//! A copy is one walk over documents: of a manifest its blobs, several at a
//! time, then itself; of an index (with `all`) each manifest, then itself; what
//! the destination's name leads to comes last. Bytes stream from one place to
//! the other and are checked on their way.
//!
//! ```text
//!   Source (an Origin)          walk            Destination
//!   registry, layout, archive, --------------> registry, layout, archive
//!   daemon, store              \-- intake ----> store
//!                               \- docker ----> docker archive, daemon
//! ```

mod convert;
mod daemon;
mod destination;
mod docker;
mod layout;
mod location;
mod look;
mod scratch;
mod source;
mod walk;

pub use location::{BadLocation, Location};
pub use look::{Look, Looked};

use crate::digest::Digest;
use crate::image::{Descriptor, Document, Platform};
use crate::progress::Progress;
use crate::reference::{DEFAULT_TAG, Reference};
use crate::registry::{Access, Client, Options};
use crate::transfer::{Error, intake};
use crate::{Store, images};
use destination::{Destination, ToRegistry};
use layout::{ToLayoutDirectory, ToLayoutTar};
use source::Source;
use std::path::PathBuf;
use walk::Walk;

/// How an image is copied.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// About the registry that is copied from.
    pub from: Options,
    /// About the registry that is copied to.
    pub to: Options,
    /// Every platform of an index, and the index; else the one of `platform`.
    pub all: bool,
    /// Which image of an index.
    pub platform: Platform,
    /// No byte of any document or layer is changed.
    pub preserve_digests: bool,
    /// The docker daemon's socket.
    pub docker_socket: PathBuf,
}

/// Copies the image at `from` to `to`; the digest of what `to` names now.
///
/// What the destination's name means changes last and at once; killed before, a
/// registry and a layout have blobs that nothing names, an archive is not there.
///
/// Unless digests are to be preserved, layers that are plain tars are packed by
/// gzip for registries and layouts, and docker's documents become OCI's in layouts.
///
/// # Errors
/// What either place refuses; content that is not what its digest says.
pub fn copy(
    store: &Store,
    from: &Location,
    to: &Location,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Digest, Error> {
    let source = Source::open(store, from, options)?;
    copy_opened(store, &source, to, options, progress)
}

/// As [`copy`], of a manifest or an index of the store that need not have a name. The caller keeps it there.
///
/// # Errors
/// As [`copy`].
pub fn copy_document(
    store: &Store,
    document: &Descriptor,
    to: &Location,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Digest, Error> {
    let source = Source::document(store, document)?;
    copy_opened(store, &source, to, options, progress)
}

fn copy_opened(
    store: &Store,
    source: &Source,
    to: &Location,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Digest, Error> {
    let (target, bytes) = source.target()?;
    match to {
        Location::Store(name) => into_store(store, source, &target, bytes, name, options, progress),
        Location::DockerArchive(path, name) => {
            let image = docker::Image::read(source, &target, bytes, options)?;
            docker::write_file(source, &image, path, name.as_deref(), progress)?;
            Ok(image.manifest.digest)
        }
        Location::DockerDaemon(name) => {
            let image = docker::Image::read(source, &target, bytes, options)?;
            docker::load(source, &image, name, &options.docker_socket, progress)?;
            Ok(image.manifest.digest)
        }
        Location::Registry(name) => {
            let mount_from = source.repository_at(name.registry());
            let repositories: Vec<String> = mount_from.iter().cloned().collect();
            let client = Client::connect(name, Access::Push, &repositories, &options.to)?;
            let destination = ToRegistry {
                client,
                mount_from,
                tag: name
                    .tag()
                    .or(name.digest().is_none().then_some(DEFAULT_TAG))
                    .map(str::to_owned),
                digest: name.digest(),
            };
            walk(source, &destination, &target, &bytes, options, progress)
        }
        Location::OciDir(path, name) => {
            let destination = ToLayoutDirectory::open(path, name.clone())?;
            walk(source, &destination, &target, &bytes, options, progress)
        }
        Location::OciArchive(path, name) => {
            let destination = ToLayoutTar::create(path, name.clone())?;
            let digest = walk(source, &destination, &target, &bytes, options, progress)?;
            destination.finish()?;
            Ok(digest)
        }
    }
}

fn walk(
    source: &Source,
    destination: &dyn Destination,
    target: &Descriptor,
    bytes: &[u8],
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Digest, Error> {
    let walk = Walk::new(source, destination, options, progress);
    Ok(walk.top(target, bytes)?.digest)
}

/// Into the store: layers are unpacked, so images only, and each whole.
fn into_store(
    store: &Store,
    source: &Source,
    target: &Descriptor,
    bytes: Vec<u8>,
    name: &str,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Digest, Error> {
    let name: Reference = name.parse().map_err(crate::Error::from)?;
    let work = store.begin()?;
    let is_index = matches!(images::parse_document(target, &bytes)?, Document::Index(_));
    if options.all && is_index {
        intake::all(&work, source, target, bytes, &name, progress)?;
        return Ok(target.digest);
    }
    let taken = intake::image(&work, source, target, bytes, &options.platform, progress)?;
    taken.name(&work, &name)?;
    Ok(taken.target.digest)
}
