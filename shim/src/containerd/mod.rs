//! `containerd-shim-teu-v2`: the face towards containerd, one process a pod.

pub mod bootstrap;
pub mod events;
pub mod flags;
pub mod oom;
pub mod proto;
pub mod rootfs;
pub mod record;
pub mod stats;
pub mod stdio;
pub mod task;
pub mod ttrpc;
