//! `checkpoint` and `restore`, which CRIU does for us.
//!
//! CRIU runs as a child, `criu swrk FD`, and is told what to do over a socket:
//!
//! ```text
//! runtime                                 criu swrk
//!    │  request (VERSION, FEATURE_CHECK,     │
//!    │  DUMP, PRE_DUMP or RESTORE)  ────────►│
//!    │◄──────  NOTIFY: a point has come ─────┤  any number of times;
//!    │  NOTIFY, success  ───────────────────►│  without it, CRIU gives up
//!    │◄──────  the same kind: done ──────────┤
//!    │  end of file  ───────────────────────►│  exits
//! ```
//!
//! [`mod@dump`] and [`mod@restore`] are the two verbs; [`criu`] has the child and the
//! talk, [`rpc`] the messages, [`wire`] their bytes. What of a container lies
//! outside of it is declared to CRIU: its bind mounts ([`mounts`]), namespaces
//! that it joined ([`outside`]), and what its first process was given to read
//! from and write to ([`streams`]).
//!
//! The images hold processes and nothing that steers the host: a restored
//! container's mounts, cgroups, namespaces and hooks come from the bundle that
//! `restore` names, [`protection`] and [`foreign`] compare what was mounted with
//! it, and [`privileges`] what the processes may do.

mod criu;
mod dump;
mod foreign;
mod images;
mod mounts;
mod outside;
mod private;
mod privileges;
mod protection;
mod quote;
mod restore;
mod rpc;
mod saved_mounts;
mod streams;
mod table;
mod wire;

use std::os::fd::RawFd;
use std::path::PathBuf;

pub(crate) use dump::checkpoint;
pub(crate) use restore::restore;
pub(crate) use rpc::{CgroupMode, PageServer};

use crate::error::Facts;
use rpc::{Kind, Version};

/// What the caller of `checkpoint` or `restore` asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// `--criu`: the program; without a slash one in `PATH`.
    pub criu: PathBuf,
    /// `--image-path`, absolute.
    pub images: PathBuf,
    /// `--work-path`, absolute; without one CRIU works in `images`.
    pub work: Option<PathBuf>,
    /// `--parent-path`, relative to `images`.
    pub parent: Option<String>,
    /// `--leave-running`.
    pub leave_running: bool,
    /// `--tcp-established`.
    pub tcp_established: bool,
    /// `--tcp-skip-in-flight`.
    pub tcp_skip_in_flight: bool,
    /// `--link-remap`.
    pub link_remap: bool,
    /// `--ext-unix-sk`.
    pub ext_unix_sk: bool,
    /// `--shell-job`.
    pub shell_job: bool,
    /// `--lazy-pages`.
    pub lazy_pages: bool,
    /// `--status-fd`.
    pub status_fd: Option<RawFd>,
    /// `--page-server`.
    pub page_server: Option<PageServer>,
    /// `--file-locks`.
    pub file_locks: bool,
    /// `--pre-dump`.
    pub pre_dump: bool,
    /// `--manage-cgroups-mode`.
    pub cgroups: CgroupMode,
    /// `--auto-dedup`.
    pub auto_dedup: bool,
    /// `--lsm-profile`.
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`.
    pub lsm_mount_context: Option<String>,
}

impl Wishes {
    /// Where CRIU writes its log.
    fn log_dir(&self) -> &std::path::Path {
        self.work.as_deref().unwrap_or(&self.images)
    }
}

/// Namespaces whose content CRIU neither saves nor restores (`CLONE_*`): the
/// network is made by whoever makes it for a new container. So it is whether
/// or not `--empty-ns network` says so.
const EMPTY_NAMESPACES: u32 = libc::CLONE_NEWNET as u32;

/// What went wrong between us and CRIU. The first words are runc's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(
        "exec: {0:?}: executable file not found in $PATH (checkpoint and restore are done by CRIU: install it)"
    )]
    Missing(PathBuf),
    #[error("run criu")]
    Start(#[source] std::io::Error),
    #[error("CRIU version check failed")]
    VersionCheck(#[source] Box<Error>),
    #[error("CRIU feature check failed")]
    FeatureCheck(#[source] Box<Error>),
    #[error("CRIU version {} must be {} or higher", have.0, need.0)]
    TooOld { have: Version, need: Version },
    #[error("{flag} requires at least CRIU 3.16")]
    FlagTooNew { flag: &'static str },
    #[error("criu lacks support for external {kind} namespace (old criu version?)")]
    NoExternal { kind: &'static str },
    #[error("criu is missing features: [{feature}]")]
    NoFeature { feature: &'static str },
    #[error("talk to criu")]
    Talk(#[source] std::io::Error),
    #[error("unexpected EOF: criu {how} before it answered{said}")]
    Gone { how: String, said: String },
    #[error("read the answer of criu")]
    Malformed(#[from] wire::Malformed),
    #[error("unable to parse the response of criu: type {kind}")]
    Unexpected { kind: Kind },
    #[error("criu failed: type {kind} errno {errno}{message}")]
    Failed {
        kind: Kind,
        errno: i32,
        message: String,
    },
    #[error("criu failed: {how}")]
    Exit { how: String },
    #[error("{error}, log file: {log}", log = log.display())]
    Logged { log: PathBuf, error: Box<Error> },
    #[error("{0}")]
    Refused(String),
    #[error("criu did not say when the restored processes could be compared with the bundle")]
    Uncompared,
    #[error("create mount point for restore")]
    MountPoint(#[source] crate::init::Failure),
}

impl Error {
    /// The error as values.
    pub(crate) fn facts(&self) -> Facts {
        let (step, object) = match self {
            Self::Missing(_) | Self::Start(_) => ("run", "criu".to_owned()),
            Self::VersionCheck(error) | Self::FeatureCheck(error) => return error.facts(),
            Self::Logged { log, error } => {
                return Facts {
                    object: log.display().to_string(),
                    ..error.facts()
                };
            }
            Self::FlagTooNew { flag } => ("check the version of criu", (*flag).to_owned()),
            Self::TooOld { .. } | Self::NoExternal { .. } => {
                ("check the version of criu", String::new())
            }
            Self::NoFeature { feature } => ("check the features of criu", (*feature).to_owned()),
            Self::Talk(_)
            | Self::Gone { .. }
            | Self::Malformed(_)
            | Self::Unexpected { .. }
            | Self::Uncompared => ("talk to criu", String::new()),
            Self::Failed { kind, .. } => ("let criu work", kind.to_string()),
            Self::Exit { .. } => ("let criu work", String::new()),
            Self::Refused(_) => ("check what criu is told", String::new()),
            Self::MountPoint(failure) => ("create mount point", failure.object.clone()),
        };
        Facts {
            step: step.to_owned(),
            object,
            ..Facts::default()
        }
    }
}
