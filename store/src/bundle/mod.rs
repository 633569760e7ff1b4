//! Bundles: an image's configuration and a request become a `config.json` (runtime-spec, config.md).
//!
//! This is the one place where image metadata turns into something that steers a host, and it only does so by the
//! fields named here: labels, annotations and names of an image never do.
//!
//! [`write()`] pins the image, makes its layers available as directories and writes the bundle; the caller
//! mounts the overlay on `rootfs`, because that mount belongs to whoever supervises the container.

mod defaults;
mod process;
mod request;
mod rootless;
mod seccomp;
mod spec;
#[cfg(test)]
mod tests;
mod user;

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::digest::{DiffId, Digest};
use crate::error::{Context, Error};
use crate::identity;
use crate::image::{ContainerConfig, Healthcheck};
use crate::images::Image;
use crate::probe::UpperPlace;
use crate::reference::Reference;
use crate::store::{self, Store};
use crate::tar;
use crate::transaction::Transaction;
use crate::tree::{Content, NodeId};

pub use request::{Mount, Network, Request};
pub use rootless::{Ids, lender};
pub use user::{User, UserError};

/// What a bundle stands on; `teu-store bundle create` prints it as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Bundle {
    /// The image's id: the digest of its configuration.
    pub image: Digest,
    /// The name it was found by.
    pub reference: Option<Reference>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Lower directories of the container's overlay, top first.
    pub lower: Vec<PathBuf>,
    /// Where the overlay's upper directory can lie.
    pub upper: UpperPlace,
    /// The signal that ends the container kindly.
    pub stop_signal: String,
    /// Ports the image says it listens on: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories the image says are for data.
    pub volumes: Vec<String>,
    /// The image's health check.
    pub healthcheck: Option<Healthcheck>,
}

/// Why image and request make no container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Nothing to run.
    #[error("the image says no command to run, so one must be given")]
    NoCommand,
    /// A user that the image does not have, or files that it should stand in.
    #[error("user {user:?}")]
    User {
        /// As image or request say it.
        user: String,
        /// Why not.
        source: UserError,
    },
    /// A path that must start with a slash.
    #[error("{what} {path:?} is not absolute")]
    Relative {
        /// Which.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// An environment variable without a name or value.
    #[error("{0:?} is not an environment variable: want NAME=value")]
    Environment(String),
}

/// Writes a bundle for the image that `name` means into `folder`, which is made where it is missing: `config.json`, and the empty directory
/// `rootfs` as mount point. The image is pinned under `id` until [`Store::release_root`]; a failure releases it.
pub fn write(
    store: &Store,
    id: &str,
    name: &str,
    request: &Request,
    folder: &Path,
) -> Result<Bundle, Error> {
    store.with_image(name, |image| write_for(store, id, image, request, folder))
}

fn write_for(
    store: &Store,
    id: &str,
    image: &Image,
    request: &Request,
    folder: &Path,
) -> Result<Bundle, Error> {
    let layers = &image.config.rootfs.diff_ids;
    let root = store.pin(id, layers, Some(image))?;
    let written = (|| {
        // Who may not mount looks at users in a copy of the two files that name them.
        let (rootfs, _copies) = match identity::own().is_root {
            true => (store.merged(root.lowers())?, None),
            false => copied_users(store, layers)?,
        };
        let config =
            plan(&image.config.config, request, id, &rootfs).map_err(|source| Error::Bundle {
                id: id.to_owned(),
                source,
            })?;
        prepare(folder, &config)
    })();
    if let Err(err) = written {
        // The error that is reported is the first one.
        let _ = root.release();
        return Err(err);
    }
    let config = &image.config.config;
    Ok(Bundle {
        image: image.id(),
        reference: image.reference.clone(),
        manifest: image.manifest_digest(),
        lower: root.lowers().to_vec(),
        upper: root.upper_place(),
        stop_signal: config
            .stop_signal
            .clone()
            .filter(|signal| !signal.is_empty())
            .unwrap_or_else(|| "SIGTERM".into()),
        exposed_ports: config.exposed_ports.keys().cloned().collect(),
        volumes: config.volumes.keys().cloned().collect(),
        healthcheck: config.healthcheck.clone(),
    })
}

/// A directory with the image's `/etc/passwd` and `/etc/group` as its layers have them, for who may not mount the
/// layers. It goes with the transaction. Links are not followed: an image without these files at their places has no names.
fn copied_users(store: &Store, layers: &[DiffId]) -> Result<(OwnedFd, Option<Transaction>), Error> {
    let work = store.begin()?;
    work.want(layers.iter().map(|layer| &layer.0))?;
    let tree = store.flat_tree(layers)?;
    let root = work.scratch().join("users");
    let etc = root.join("etc");
    fs::create_dir_all(&etc).context("create directory", &etc)?;
    for name in ["passwd", "group"] {
        let node = tree
            .lookup(NodeId::ROOT, b"etc")
            .and_then(|etc| tree.lookup(etc, name.as_bytes()));
        let Some(Content::File(file)) = node.map(|id| tree.node(id).content) else {
            continue;
        };
        let tar = store.layer_tar(&layers[usize::from(file.layer)])?.0;
        let mut content = tar::content::Content::new(&tar, file.size, file.offset, file.odd)
            .take(user::FILE_BYTES_MAX + 1);
        let path = etc.join(name);
        let mut copy = fs::File::create(&path).context("create", &path)?;
        std::io::copy(&mut content, &mut copy).context("write", &path)?;
    }
    let opened = fs::File::open(&root).context("open", &root)?;
    Ok((opened.into(), Some(work)))
}

/// Writes `config.json` into `folder` for a container whose root file system the caller already has, open as `rootfs`:
/// a step of a build, which belongs to no image yet. Nothing is pinned or mounted.
/// Returns where the container's mounts go, in their order: a runtime makes those places when they are missing.
pub fn write_config_for(
    image: &ContainerConfig,
    id: &str,
    request: &Request,
    rootfs: impl std::os::fd::AsFd,
    folder: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let mut config = plan(image, request, id, rootfs).map_err(|source| Error::Bundle {
        id: id.to_owned(),
        source,
    })?;
    let who = identity::own();
    if who.is_root && !who.is_whole {
        rootless::adapt_within(&mut config);
    }
    write_config(folder, &config)?;
    let mounts = config["mounts"].as_array().into_iter().flatten();
    Ok(mounts
        .filter_map(|mount| mount["destination"].as_str().map(PathBuf::from))
        .collect())
}

/// A bundle with a root file system of its own in `folder/rootfs`, independent of the store; for any runtime.
/// `folder` must be missing or empty. Where neither image nor request name a command it says `sh`, as umoci's bundles do:
/// whoever unpacks may want the files alone, or write the command in afterwards.
pub fn unpack(store: &Store, image: &Image, request: &Request, folder: &Path) -> Result<(), Error> {
    match fs::read_dir(folder) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => store::make_directory(folder)?,
        other => {
            if other.context("list", folder)?.next().is_some() {
                return Err(Error::NotEmpty(folder.to_owned()));
            }
        }
    }
    let rootfs = folder.join("rootfs");
    let tree = store.unpack_tree(&image.config.rootfs.diff_ids, &rootfs)?;
    let name = folder.file_name().map_or_else(
        || "bundle".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let opened = fs::File::open(&rootfs).context("open", &rootfs)?;
    let mut request = request.clone();
    if process::command(&image.config.config, &request).is_err() {
        request.args = vec!["sh".into()];
    }
    let mut config =
        plan(&image.config.config, &request, &name, &opened).map_err(|source| Error::Bundle {
            id: name.clone(),
            source,
        })?;
    if !identity::own().is_root {
        rootless::adapt(&mut config, &rootless::Ids::of_this_user());
    }
    write_config(folder, &config)?;
    store.stamp(&tree, &opened, image.manifest_digest(), folder)
}

/// The `config.json` of a container. Reads users from `rootfs` and what the host can do; touches nothing.
fn plan(
    image: &ContainerConfig,
    request: &Request,
    id: &str,
    rootfs: impl std::os::fd::AsFd,
) -> Result<Value, BundleError> {
    let wanted = request.user.as_deref().unwrap_or(&image.user);
    let user = user::resolve(rootfs.as_fd(), wanted).map_err(|source| BundleError::User {
        user: wanted.to_owned(),
        source,
    })?;
    let process = process::process(image, request, &user, id)?;
    spec::config(request, process, id, &defaults::Host::of_this_machine())
}

fn prepare(folder: &Path, config: &Value) -> Result<(), Error> {
    store::make_directory(folder)?;
    store::make_directory(&folder.join("rootfs"))?;
    write_config(folder, config)
}

fn write_config(folder: &Path, config: &Value) -> Result<(), Error> {
    let text = serde_json::to_vec(config).map_err(|source| Error::Json {
        what: "config.json".into(),
        source,
    })?;
    let path = folder.join("config.json");
    // Not synced: a bundle is of no use after a power cut, its container is gone.
    let unfinished = folder.join("config.json.new");
    fs::write(&unfinished, text).context("write", &unfinished)?;
    fs::rename(&unfinished, &path).context("rename to", &path)
}
