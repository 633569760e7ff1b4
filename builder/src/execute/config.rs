//! The container's configuration of a RUN step. The store writes it, the one place that does.

use super::mounts::{Mounts, Ready};
use super::run::RunError;
use super::{Executor, Limits, Settings, StepError};
use crate::plan::{Network as PlanNetwork, Run};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use teu_store::bundle::{Mount, Network, Request, write_config_for};
use teu_store::image::ContainerConfig;

/// What a step sees as its machine's name: the same on every machine.
const HOSTNAME: &str = "build";

/// What a container of a step is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To run the step's command.
    Step,
    /// To let somebody look around, perhaps at a terminal.
    Shell {
        /// Whether there is one.
        terminal: bool,
    },
}

/// Writes the bundle's config.json; where its mounts go, in order.
///
/// # Errors
/// `USER` names someone whom the image does not know, or the file cannot be written.
pub(super) fn write(
    executor: &Executor<'_>,
    run: &Run,
    mounts: &Mounts,
    id: &str,
    rootfs: impl AsFd,
    bundle: &Path,
    purpose: Purpose,
) -> Result<Vec<PathBuf>, StepError> {
    let mut request = request(
        run,
        mounts,
        &executor.settings.limits,
        cgroup(executor.settings, id),
    );
    if executor.settings.isolation.shares_procfs {
        request.mounts.push(host_procfs());
    }
    if let Purpose::Shell { terminal } = purpose {
        request.args = vec![shell_of(run)];
        request.terminal = terminal;
    }
    // The plan has settled everything that an image's configuration could say.
    let written = write_config_for(&ContainerConfig::default(), id, &request, rootfs, bundle);
    Ok(written.map_err(|error| RunError::Config(Box::new(error)))?)
}

/// The shell that the step's own command went to, else the usual one.
fn shell_of(run: &Run) -> String {
    let own = run.args.first().filter(|program| program.ends_with("sh"));
    own.map_or_else(|| "/bin/sh".to_owned(), String::clone)
}

/// The step's cgroup. A user may make one only where it was lent one.
fn cgroup(settings: &Settings, id: &str) -> Option<String> {
    let is_without =
        settings.isolation.isolation.is_rootless() && settings.cgroup_parent.is_empty();
    (!is_without).then(|| format!("{}/{id}", settings.cgroup_parent))
}

fn request(run: &Run, mounts: &Mounts, limits: &Limits, cgroup: Option<String>) -> Request {
    let secrets = mounts
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    Request {
        args: run.args.clone(),
        entrypoint: Some(vec![String::new()]),
        env: run
            .proxies
            .iter()
            .chain(&run.env)
            .cloned()
            .chain(secrets)
            .collect(),
        cwd: Some(run.cwd.clone()),
        user: Some(run.user.clone()),
        hostname: Some(run.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned())),
        mounts: shm(limits)
            .into_iter()
            .chain(mounts.list.iter().map(mount))
            .collect(),
        network: match run.network {
            PlanNetwork::Host => Network::Host,
            PlanNetwork::None => Network::None,
        },
        cgroups_path: cgroup,
        resources: (!limits.resources.is_empty()).then(|| limits.resources.clone().into()),
        privileged: run.insecure,
        rlimits: limits.ulimits.clone(),
        ..Request::default()
    }
}

/// The procfs that is here, with all that covers parts of it.
fn host_procfs() -> Mount {
    Mount {
        destination: "/proc".to_owned(),
        kind: Some("bind".to_owned()),
        source: Some("/proc".to_owned()),
        options: ["rbind", "rprivate"].map(str::to_owned).to_vec(),
    }
}

/// /dev/shm, where it has another size than docker's.
fn shm(limits: &Limits) -> Option<Mount> {
    limits.shm_bytes.map(|bytes| Mount {
        destination: "/dev/shm".to_owned(),
        kind: Some("tmpfs".to_owned()),
        source: Some("shm".to_owned()),
        options: ["nosuid", "noexec", "nodev", "mode=1777"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("size={bytes}")])
            .collect(),
    })
}

fn mount(ready: &Ready) -> Mount {
    let destination = ready.target.clone();
    let access = if ready.writable { "rw" } else { "ro" };
    match &ready.source {
        Ok(source) => Mount {
            destination,
            kind: Some("bind".to_owned()),
            source: Some(source.display().to_string()),
            options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
        },
        Err(size) => Mount {
            destination,
            kind: Some("tmpfs".to_owned()),
            source: Some("tmpfs".to_owned()),
            options: ["nosuid", "nodev"]
                .map(str::to_owned)
                .into_iter()
                .chain(size.map(|size| format!("size={size}")))
                .collect(),
        },
    }
}
