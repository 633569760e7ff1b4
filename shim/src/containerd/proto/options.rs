//! Options of runc's shim (`api/types/runc/options/oci.proto`), which are ours too.

use prost::{Message, Name};

const PACKAGE: &str = "containerd.runc.v1";

/// `containerd.runc.v1.Options`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Options {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    #[prost(string, tag = "6")]
    pub binary_name: String,
    #[prost(string, tag = "7")]
    pub root: String,
    /// Until containerd 1.7.
    #[prost(string, tag = "8")]
    pub criu_path: String,
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
}

/// `containerd.runc.v1.CheckpointOptions`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CheckpointOptions {
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    #[prost(string, tag = "8")]
    pub image_path: String,
    #[prost(string, tag = "9")]
    pub work_path: String,
}

/// `containerd.runc.v1.ProcessDetails`: which exec a pid is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessDetails {
    #[prost(string, tag = "1")]
    pub exec_id: String,
}

/// `runtimeoptions.v1.Options`: what CRI and newer dockerds pass on to a shim
/// that is not called runc's, without knowing what it means.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Generic {
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// A file with the options, TOML.
    #[prost(string, tag = "2")]
    pub config_path: String,
    /// The options themselves, if there is no file.
    #[prost(bytes = "vec", tag = "3")]
    pub config_body: Vec<u8>,
}

impl Name for Generic {
    const NAME: &'static str = "Options";
    const PACKAGE: &'static str = "runtimeoptions.v1";
}

impl Name for Options {
    const NAME: &'static str = "Options";
    const PACKAGE: &'static str = PACKAGE;
}

impl Name for CheckpointOptions {
    const NAME: &'static str = "CheckpointOptions";
    const PACKAGE: &'static str = PACKAGE;
}

impl Name for ProcessDetails {
    const NAME: &'static str = "ProcessDetails";
    const PACKAGE: &'static str = PACKAGE;
}
