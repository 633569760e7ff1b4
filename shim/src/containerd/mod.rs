//! `containerd-shim-teu-v2`: the face towards containerd, one process a pod.

pub mod proto;
