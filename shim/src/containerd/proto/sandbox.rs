//! The sandbox service (`api/runtime/sandbox/v1/sandbox.proto`).

use std::collections::BTreeMap;

use prost::Message;

use super::{Any, Metric, Mount, Platform, Timestamp};

/// The service's name.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// `CreateSandbox`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(string, tag = "2")]
    pub bundle_path: String,
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    #[prost(message, optional, tag = "4")]
    pub options: Option<Any>,
    #[prost(string, tag = "5")]
    pub netns_path: String,
}

/// `StartSandbox`, `Platform`, `WaitSandbox`, `PingSandbox`, `ShutdownSandbox`, `SandboxMetrics`: their messages have the same field.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

/// The sandbox runs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StartSandboxResponse {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(message, optional, tag = "2")]
    pub created_at: Option<Timestamp>,
}

/// What programs it runs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PlatformResponse {
    #[prost(message, optional, tag = "1")]
    pub platform: Option<Platform>,
}

/// `StopSandbox`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StopSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(uint32, tag = "2")]
    pub timeout_secs: u32,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WaitSandboxResponse {
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Timestamp>,
}

/// `SandboxStatus`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// What it is doing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxStatusResponse {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    #[prost(string, tag = "3")]
    pub state: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub info: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub exited_at: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub extra: Option<Any>,
}

/// Figures of its cgroup.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SandboxMetricsResponse {
    #[prost(message, optional, tag = "1")]
    pub metrics: Option<Metric>,
}
