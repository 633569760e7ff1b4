//! What was asked for: the intent of a container, on disk before anything is done for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ContainerId, Name};

/// Version of the record's format.
pub const VERSION: u32 = 1;

/// One container as it was asked for. Written by `teu`, read by `teu-shim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// When it was asked for.
    pub created: String,
    /// The image as typed.
    pub image: String,
    /// What the image turned out to be. Absent until the bundle exists.
    #[serde(default)]
    pub bundle: Option<Bundle>,
    /// The command line in the container, for people; until the bundle exists, what was typed of it.
    pub command: Vec<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What its standard input is.
    pub stdin: Stdin,
    /// Whether the shim removes it once it has ended.
    pub remove: bool,
    /// What to do with output while the disk is full.
    #[serde(default)]
    pub log_full: LogFull,
    /// Most bytes of one log file, after which the next is begun; absent: there is one file.
    #[serde(default)]
    pub log_size: Option<u64>,
    /// How many full log files are kept.
    #[serde(default)]
    pub log_files: u32,
    /// Its network.
    pub network: Network,
    /// Its hostname.
    pub hostname: String,
    /// Volumes that we own and mount.
    pub volumes: Vec<Volume>,
    /// The signal that asks it to stop, by name or number; absent: the image's.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// How long it may take to stop before it is killed, in seconds.
    pub stop_timeout: u64,
    /// Its cgroup, from the hierarchies' roots.
    pub cgroups_path: String,
    /// The runtime that executes it.
    pub runtime: PathBuf,
}

/// What `teu-store bundle create` said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Digest of the image's configuration.
    pub image: String,
    /// Canonical reference.
    #[serde(default)]
    pub reference: Option<String>,
    /// Digest of the manifest.
    #[serde(default)]
    pub manifest: Option<String>,
    /// Overlay lower directories, top first.
    #[serde(default)]
    pub lower: Vec<PathBuf>,
    /// Where the writable layer goes.
    pub upper: Upper,
    /// The image's stop signal.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Ports that the image says it serves, `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// Paths that the image wants volumes at.
    #[serde(default)]
    pub volumes: Vec<String>,
}

/// Where a container's writable layer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upper {
    /// Beside the container's other files.
    #[default]
    Directory,
    /// In memory: the data folder's file system cannot hold an overlay's upper layer.
    Tmpfs,
}

/// A container's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// /dev/null.
    Closed,
    /// From attached clients; at its end as soon as one has ended its input or left.
    Once,
    /// From attached clients, one after another; never at its end.
    Open,
}

/// What happens to output that cannot be logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFull {
    /// The container waits; nothing is lost.
    #[default]
    Block,
    /// The container goes on; what is lost is counted and said in the log.
    Drop,
}

/// A container's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode")]
pub enum Network {
    /// The host's.
    Host,
    /// A namespace of its own with nothing but a loopback interface.
    None,
    /// A namespace of its own, joined to the bridge by CNI plugins.
    Bridge {
        /// Ports of the host that lead into it.
        ports: Vec<Port>,
    },
}

/// A port of the host that leads to one of the container. The names are those
/// of CNI's `portMappings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host's address that is listened on; all where absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
}

/// A volume: a folder under DATA/volumes that is mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its folder's name.
    pub name: Name,
    /// Where in the container.
    pub target: String,
    /// Made for this container alone, and removed with it.
    pub anonymous: bool,
    /// Whether an empty volume is filled with what the image has at that place.
    pub copy: bool,
}
