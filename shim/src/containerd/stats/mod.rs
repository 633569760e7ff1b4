//! What a container uses, read from its cgroups as the kernel counts it.
//!
//! Nothing is computed but units: each value is that of a file. What the kernel
//! does not count on this host is 0 or absent, as in containerd's own shim.

mod text;
pub mod v1;
mod v1_read;
pub mod v2;
mod v2_read;

use super::proto::Any;
use crate::supervisor::cgroups::Cgroups;

/// The figures of one container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Metrics {
    /// Of cgroups with hierarchies of their own.
    V1(Box<v1::Metrics>),
    /// Of the unified hierarchy.
    V2(Box<v2::Metrics>),
}

impl Metrics {
    /// Reads them. `None`: the cgroups are gone.
    #[must_use]
    pub fn read(cgroups: &Cgroups) -> Option<Self> {
        match cgroups {
            Cgroups::V1(folders) => folders
                .iter()
                .any(|(_, folder)| folder.is_dir())
                .then(|| Self::V1(Box::new(v1_read::metrics(cgroups)))),
            Cgroups::V2(folder) => folder
                .is_dir()
                .then(|| Self::V2(Box::new(v2_read::metrics(folder)))),
        }
    }

    /// As the answer to `Stats` carries them.
    #[must_use]
    pub fn to_any(&self) -> Any {
        match self {
            Self::V1(metrics) => Any::of(metrics.as_ref()),
            Self::V2(metrics) => Any::of(metrics.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests;
