//! What the caller wants of a container, beside what its image says. JSON, every field optional.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A container as wanted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Replaces the image's CMD where not empty.
    pub args: Vec<String>,
    /// Replaces the image's ENTRYPOINT and drops its CMD; `[""]` means none.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Replaces WORKDIR.
    pub cwd: Option<String>,
    /// Replaces USER: a name or number, with an optional `:group`.
    pub user: Option<String>,
    /// The host name; by default the beginning of the id.
    pub hostname: Option<String>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Whether the root file system is read-only.
    pub readonly: bool,
    /// Mounts over docker's defaults.
    pub mounts: Vec<Mount>,
    /// The network.
    pub network: Network,
    /// The container's cgroup.
    pub cgroups_path: Option<String>,
    /// Limits: runtime-spec's `linux.resources`.
    pub resources: Option<Value>,
    /// Resource limits: a name such as `nofile`, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// All capabilities and devices that we have, nothing filtered, hidden or read-only.
    pub privileged: bool,
    /// Runtime-spec's annotations; the image's own are not among them.
    pub annotations: BTreeMap<String, String>,
}

/// A mount, as runtime-spec has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Mount {
    /// Where in the container; absolute.
    pub destination: String,
    /// `bind`, `tmpfs` and so on.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The network a container is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A name space of its own, with nothing but its loopback.
    #[default]
    None,
    /// The host's; resolv.conf and hosts, too.
    Host,
    /// One that is there already: the path of a network name space.
    Path(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_shim_writes_it() {
        let request: Request = serde_json::from_str(
            r#"{"args":["x"],"network":{"path":"/run/netns/a"},"mounts":[{"type":"bind","source":"/a","destination":"/b","options":["ro"]}]}"#,
        )
        .unwrap();
        assert_eq!(request.network, Network::Path("/run/netns/a".into()));
        assert_eq!(request.mounts[0].kind.as_deref(), Some("bind"));
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"network":"host"}"#)
                .unwrap()
                .network,
            Network::Host
        );
        assert!(serde_json::from_str::<Request>(r#"{"nework":"host"}"#).is_err());
    }
}
