//! `mounts` (config.md, "Mounts").

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IdMapping, nullable};

/// One entry of `mounts`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    /// Where, inside the container.
    #[serde(default, deserialize_with = "nullable")]
    pub destination: PathBuf,
    /// File system type; ignored for bind mounts.
    #[serde(
        rename = "type",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// Device, name, or for bind mounts a path (relative to the bundle).
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub source: String,
    /// Options as mount(8) spells them.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    /// User ids of the source seen through the mount.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of the source seen through the mount.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gid_mappings: Vec<IdMapping>,
}
