//! `containerd-shim-teu-v2`: the face towards containerd, one process a pod.

pub mod oom;
pub mod proto;
pub mod stats;
pub mod stdio;
