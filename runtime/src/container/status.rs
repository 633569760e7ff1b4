//! What a container is doing, as `state` and `list` say it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::cgroup::freezer;
use crate::error::Error;
use crate::process::lookup;
use crate::state::{Phase, State};

/// The state of a container (runtime.md, "State"), with runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Being made.
    Creating,
    /// Waiting for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Held still.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }

    /// Asks the kernel how a recorded container is.
    pub(crate) fn of(state: &State) -> Result<Status, Error> {
        // Without a pid yet: the intent of a `create` that runs, or was killed.
        if state.pid == 0 {
            return Ok(Status::Creating);
        }
        if !state.alive()? {
            return Ok(Status::Stopped);
        }
        if freezer::is_frozen(&state.cgroups)? {
            return Ok(Status::Paused);
        }
        Ok(match state.phase {
            Phase::Creating => Status::Creating,
            Phase::Created => Status::Created,
            Phase::Running => Status::Running,
        })
    }
}

/// What `state` prints, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Version of the specification that the bundle names.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Pid of init; 0 once it is gone.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: String,
    /// Annotations of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// User that created it.
    pub owner: String,
}

impl Report {
    /// The report on a recorded container.
    pub(crate) fn new(state: State) -> Result<Report, Error> {
        let status = Status::of(&state)?;
        Ok(Report {
            pid: if status == Status::Stopped {
                0
            } else {
                state.pid
            },
            owner: owner(state.owner),
            oci_version: state.oci_version,
            id: state.id,
            status,
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
        })
    }
}

/// The name of a user of the host, `#uid` where it has none.
fn owner(uid: u32) -> String {
    // Most often it is root's, which needs no search.
    if uid == 0 {
        return "root".into();
    }
    lookup::name(uid).unwrap_or_else(|| format!("#{uid}"))
}
