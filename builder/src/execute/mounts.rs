//! What `RUN --mount` shows, and the script of a heredoc: each made ready at a place of ours,
//! from where the container's configuration binds it.
//!
//! Sources are opened inside the context, a stage or a cache, and cloned by descriptor: what
//! a symbolic link says when the runtime looks does not matter any more.

use super::agent::Forwarded;
use super::fill::copy_tree;
use super::rootfs::Mounted;
use super::run::{RunError, failed, make_folder};
use super::{Executor, SecretSource, StepError, trust};
use crate::cache::CacheMount;
use crate::plan::{Mount, MountKind, Origin, Run, Sharing};
use crate::tree::Root;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Largest secret, in bytes; BuildKit's limit.
const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// Where programs look for an agent; ssh-agent(1).
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// How often a step that waits for a locked cache looks whether the build ended.
const WAIT: Duration = Duration::from_millis(20);

/// Most copies of a private cache: as many steps as run at once.
const PRIVATE_MAX: usize = 256;

/// The mounts of one step. Dropped, they are unmounted and their locks released.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// What the container's configuration binds or mounts.
    pub(super) list: Vec<Ready>,
    /// Secrets that are variables.
    pub(super) env: Vec<(String, String)>,
    pub(super) held: Vec<Mounted>,
    /// Agents that are led into the step.
    agents: Vec<Forwarded>,
    locks: Vec<File>,
    pub(super) trees: Vec<Arc<Root>>,
}

/// One mount that the container's configuration names.
#[derive(Debug)]
pub(super) struct Ready {
    /// Where it appears.
    pub(super) target: String,
    /// What is bound; `None` for a tmpfs of that size in bytes.
    pub(super) source: Result<PathBuf, Option<u64>>,
    /// Whether writing is possible.
    pub(super) writable: bool,
}

/// The folders a mount is prepared in.
pub(super) struct Folders<'a> {
    /// In memory.
    pub(super) memory: &'a Path,
    /// On disk.
    pub(super) disk: &'a Path,
}

impl Mounts {
    /// Prepares all mounts of a step. `memory` is an empty folder on a tmpfs, `disk` one on the store's file system.
    pub(super) fn prepare(
        executor: &Executor<'_>,
        run: &Run,
        memory: &Path,
        disk: &Path,
    ) -> Result<Self, StepError> {
        let mut mounts = Self::default();
        let folders = Folders { memory, disk };
        if let Some((name, text)) = &run.script {
            let path = memory.join("script");
            write_private(&path, text.as_bytes(), 0o755)?;
            mounts.list.push(Ready {
                target: format!("/dev/pipes/{name}"),
                source: Ok(path),
                writable: false,
            });
        }
        if let Some(bundle) = &executor.settings.ca_bundle {
            mounts.trust(bundle, run, memory)?;
        }
        let mut names = executor.settings.limits.hosts.clone();
        names.extend(own_name(run));
        if let Some(ready) = hosts(&names, memory)? {
            mounts.list.push(ready);
        }
        for (index, mount) in run.mounts.iter().enumerate() {
            mounts.one(executor, mount, index, &folders)?;
        }
        Ok(mounts)
    }

    /// Shows the certificates of the command line to programs that a variable tells of them.
    fn trust(&mut self, bundle: &[u8], run: &Run, memory: &Path) -> Result<(), RunError> {
        let path = memory.join("ca-bundle.pem");
        write_private(&path, bundle, 0o644)?;
        self.list.push(Ready {
            target: trust::TARGET.to_owned(),
            source: Ok(path),
            writable: false,
        });
        let is_set = |name: &str| {
            let mut names = run.env.iter().filter_map(|text| text.split_once('='));
            names.any(|(own, _)| own == name)
        };
        let unset = trust::VARIABLES.into_iter().filter(|name| !is_set(name));
        self.env
            .extend(unset.map(|name| (name.to_owned(), trust::TARGET.to_owned())));
        Ok(())
    }

    fn one(
        &mut self,
        executor: &Executor<'_>,
        mount: &Mount,
        index: usize,
        folders: &Folders<'_>,
    ) -> Result<(), StepError> {
        let place = folders.memory.join(index.to_string());
        let ready = |source, writable| Ready {
            target: mount.target.clone(),
            source,
            writable,
        };
        let made = match &mount.kind {
            MountKind::Tmpfs { size } => ready(Err(*size), true),
            MountKind::Bind {
                origin,
                source,
                writable,
            } => {
                let layers = self.bind(executor, *origin, source, &place)?;
                let source = self.stack(layers, index, *writable, folders)?;
                ready(Ok(source), *writable)
            }
            MountKind::Cache { writable, .. } => {
                let source = self.cache(executor, &mount.kind, &place)?;
                ready(Ok(source), *writable)
            }
            MountKind::Secret { .. } => return self.secret(executor, mount, &place),
            MountKind::Ssh { .. } => return self.ssh(executor, mount, place),
        };
        self.list.push(made);
        Ok(())
    }

    /// The directory of a named cache: `cache/mounts/<sha256 of its id>/<copy>/`, locked as its sharing says.
    fn cache(
        &mut self,
        executor: &Executor<'_>,
        kind: &MountKind,
        place: &Path,
    ) -> Result<PathBuf, StepError> {
        let MountKind::Cache {
            id,
            sharing,
            source,
            mode,
            uid,
            gid,
            from,
            ..
        } = kind
        else {
            return Ok(place.to_owned());
        };
        let filled = from
            .map(|from| filling(executor, from, source))
            .transpose()?;
        let mut name = format!("{id}\0{mode:o}\0{uid}\0{gid}");
        if let Some((_, content)) = &filled {
            name.push_str(content);
        }
        let name: String = Sha256::digest(name)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let folder = make_folder(executor.storage.cache_folder().join("mounts").join(name))?;
        CacheMount::note(&folder, id, (*mode, *uid, *gid));
        let copy = self.lock_cache(executor, &folder, *sharing)?;
        let data = folder.join(copy.to_string());
        if !data.is_dir() {
            let unfinished = make_folder(folder.join(format!("{copy}.new")))?;
            std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(*mode))
                .map_err(failed("set permissions of", &unfinished))?;
            chown(&unfinished, Some(*uid), Some(*gid))
                .map_err(failed("set the owner of", &unfinished))?;
            if let Some((root, _)) = &filled {
                copy_tree(root, Path::new(source), &unfinished)?;
            }
            match std::fs::rename(&unfinished, &data) {
                // Another step that shares it was faster.
                Err(_) if data.is_dir() => {}
                other => other.map_err(failed("create", &data))?,
            }
        }
        let root = Root::open(&data).map_err(RunError::from)?;
        // A filled cache holds the files of `source` alone.
        let source = if filled.is_some() {
            "/"
        } else {
            source.as_str()
        };
        Ok(self.clone_place(&root, Path::new(source), place, "the cache")?)
    }

    /// Which copy of the cache this step uses.
    fn lock_cache(
        &mut self,
        executor: &Executor<'_>,
        folder: &Path,
        sharing: Sharing,
    ) -> Result<usize, StepError> {
        for copy in 0..PRIVATE_MAX {
            let path = folder.join(format!("{copy}.lock"));
            let file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(failed("open", &path))?;
            let operation = match sharing {
                Sharing::Shared => FlockOperation::NonBlockingLockShared,
                Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
            };
            loop {
                match flock(&file, operation) {
                    Ok(()) => {
                        self.locks.push(file);
                        return Ok(copy);
                    }
                    Err(_) if sharing == Sharing::Private => break,
                    Err(_) if executor.cancel.is_stopped() => return Err(StepError::Cancelled),
                    Err(_) => std::thread::sleep(WAIT),
                }
            }
        }
        Err(StepError::Cancelled)
    }

    /// Leads a step to an agent of the user.
    fn ssh(
        &mut self,
        executor: &Executor<'_>,
        mount: &Mount,
        place: PathBuf,
    ) -> Result<(), StepError> {
        let MountKind::Ssh {
            id,
            required,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let Some(agent) = executor.settings.agent(id) else {
            return if *required {
                Err(RunError::NoAgent(id.clone()).into())
            } else {
                Ok(())
            };
        };
        let forwarded = Forwarded::start(&agent, &place);
        self.agents
            .push(forwarded.map_err(failed("connect to the agent", &agent))?);
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(*mode))
            .map_err(failed("set permissions of", &place))?;
        chown(&place, Some(*uid), Some(*gid)).map_err(failed("set the owner of", &place))?;
        if !self.env.iter().any(|(name, _)| name == AGENT_VARIABLE) {
            self.env
                .push((AGENT_VARIABLE.to_owned(), mount.target.clone()));
        }
        self.list.push(Ready {
            target: mount.target.clone(),
            source: Ok(place),
            writable: true,
        });
        Ok(())
    }

    /// A secret exists only in memory: as a file of a tmpfs, or as a variable.
    fn secret(
        &mut self,
        executor: &Executor<'_>,
        mount: &Mount,
        place: &Path,
    ) -> Result<(), StepError> {
        let MountKind::Secret {
            id,
            required,
            env,
            file,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let given = executor
            .settings
            .secrets
            .iter()
            .rev()
            .find(|(name, _)| name == id);
        let Some((_, source)) = given else {
            return if *required {
                Err(RunError::NoSecret(id.clone()).into())
            } else {
                Ok(())
            };
        };
        let value = read_secret(source)?;
        if let Some(name) = env {
            self.env
                .push((name.clone(), String::from_utf8_lossy(&value).into_owned()));
        }
        if *file {
            write_private(place, &value, *mode)?;
            chown(place, Some(*uid), Some(*gid)).map_err(failed("set the owner of", place))?;
            self.list.push(Ready {
                target: mount.target.clone(),
                source: Ok(place.to_owned()),
                writable: false,
            });
        }
        Ok(())
    }
}

/// The name that the build gives to the step's machine, and where that is: here.
fn own_name(run: &Run) -> Option<(String, IpAddr)> {
    let name = run.hostname.clone()?;
    Some((name, Ipv4Addr::LOCALHOST.into()))
}

/// /etc/hosts with names that the build gives, where there are some.
fn hosts(names: &[(String, IpAddr)], memory: &Path) -> Result<Option<Ready>, RunError> {
    if names.is_empty() {
        return Ok(None);
    }
    let own = Path::new("/etc/hosts");
    let mut text = std::fs::read_to_string(own).unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in names {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let path = memory.join("hosts");
    write_private(&path, text.as_bytes(), 0o644)?;
    Ok(Some(Ready {
        target: own.display().to_string(),
        source: Ok(path),
        writable: false,
    }))
}

/// The tree that a new cache is filled from, and what identifies its content.
fn filling(
    executor: &Executor<'_>,
    from: Origin,
    source: &str,
) -> Result<(Arc<Root>, String), StepError> {
    if let Origin::Tree(tree) = from {
        let content = format!("{source}\0{:?}", executor.layers(tree));
        let root = match executor.view(tree)? {
            Some(view) => view,
            None => Arc::new(executor.storage.empty()?),
        };
        return Ok((root, content));
    }
    let (_, digested) = executor.context_content(from, Path::new(source))?;
    let content = format!("{source}\0{:?}", digested.sum);
    let directory = executor.context(from).root.open_directory(Path::new("/"));
    Ok((Arc::new(Root::new(directory?)), content))
}

pub(super) fn read_secret(source: &SecretSource) -> Result<Vec<u8>, RunError> {
    match source {
        SecretSource::Env(name) => Ok(std::env::var_os(name)
            .map(|value| value.into_encoded_bytes())
            .unwrap_or_default()),
        SecretSource::File(path) => {
            let fail = || failed("read the secret", path);
            let file = File::open(path).map_err(fail())?;
            // A pipe or a device does not say how much it has.
            let mut value = Vec::new();
            let read = file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut value);
            read.map_err(fail())?;
            if value.len() as u64 > SECRET_BYTES_MAX {
                let why = format!("it has more than {SECRET_BYTES_MAX} bytes");
                return Err(fail()(std::io::Error::other(why)));
            }
            Ok(value)
        }
    }
}

fn write_private(path: &Path, bytes: &[u8], mode: u32) -> Result<(), RunError> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create", path))?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed("write", path))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(failed("set permissions of", path))
}
