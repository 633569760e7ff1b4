//! Where the images of a registry are fetched from and sent to: the registry
//! itself, mirrors before it, and what administrators wrote about them, in
//! podman's words (`registries.conf`) or in containerd's (`hosts.toml`).
//!
//! Files become values here, and values a [`Plan`]; nothing is contacted.

mod hosts;
mod registries_conf;

use super::error::Error;
use super::trust::OwnFiles;
use crate::reference::Reference;
use std::path::PathBuf;

/// Most bytes read of one configuration file; real ones have some hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most mirrors of one registry; each that is down costs its time limit.
const MIRRORS_MAX: usize = 16;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path:?}: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// Which files say where images are.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// A `registries.conf` instead of the usual ones.
    pub registries_conf: Option<PathBuf>,
    /// A folder with a folder a registry (`HOST/hosts.toml`) instead of containerd's.
    pub hosts_dir: Option<PathBuf>,
}

/// When a mirror is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// For everything.
    All,
    /// For names with a digest, and for blobs.
    Digests,
    /// For tags alone.
    Tags,
}

/// One host that has a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host, with its port where it has one, as in an address.
    pub(super) host: String,
    /// `http` or `https`, where it is said.
    pub(super) scheme: Option<&'static str>,
    /// What stands before `/<repository>/` in addresses.
    pub(super) path: String,
    /// What the repository is called there.
    pub(super) repository: String,
    /// Its certificate need not be good, and it may speak plain http.
    pub(super) insecure: bool,
    /// Its own authorities and our certificates for it.
    pub(super) files: OwnFiles,
    /// When it is asked.
    pub(super) serves: Serves,
    /// The registry it stands for, told to it as containerd does.
    pub(super) stands_for: Option<String>,
}

/// Whom to ask, in this order: the mirrors, then the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mirrors: Vec<Endpoint>,
    pub(super) home: Endpoint,
}

impl Endpoint {
    /// The registry as its name says, with nothing known about it.
    fn plain(host: &str, repository: &str) -> Self {
        Self {
            host: api_host(host).to_owned(),
            scheme: None,
            path: "/v2".into(),
            repository: repository.to_owned(),
            insecure: false,
            files: OwnFiles::default(),
            serves: Serves::All,
            stands_for: None,
        }
    }
}

/// Where a registry's API is: Docker Hub's is not at its own name.
pub(super) fn api_host(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Whom to ask for `reference`.
///
/// # Errors
/// Files that are there and cannot be used, and registries that are blocked.
pub(super) fn plan(reference: &Reference, files: &Files) -> Result<Plan, Error> {
    let known = registries_conf::read(files.registries_conf.as_deref())?;
    let (registry, repository) = (reference.registry(), reference.repository());
    let mut plan = registries_conf::plan(&known, registry, repository)?;
    if let Some(hosts) = hosts::read(files.hosts_dir.as_deref(), registry)? {
        hosts::apply(hosts, registry, repository, &mut plan);
    }
    plan.mirrors.truncate(MIRRORS_MAX);
    Ok(plan)
}

/// A file's text, if the file is there.
fn read_file(path: &std::path::Path) -> Result<Option<String>, PlaceError> {
    use std::io::Read as _;
    let failed = |source| PlaceError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}
