//! The supervisors of containers and the command that a person types.
//!
//! Three programs share this library:
//!
//! - `teu-shim` ([`supervisor`]): one small process a container, that outlives
//!   everything around it and records how the container ended; called with conmon's
//!   words, it is conmon ([`conmon`]), for podman and cri-o;
//! - `containerd-shim-teu-v2` ([`containerd`]): the same for containerd, dockerd and
//!   Kubernetes, one process a pod;
//! - `teu` ([`cli`]): writes down what was asked, starts `teu-shim`, and later
//!   reads what it left.
//!
//! [`container`] owns what `teu` and `teu-shim` put on disk: start reading there.
//! None of them knows namespaces, limits or image formats: they execute
//! `teu-runtime` or another runtime, `teu-store` and `teu-build`.

pub mod cli;
pub mod clock;
pub mod conmon;
pub mod container;
pub mod containerd;
pub mod error;
pub mod network;
pub mod runtime;
pub mod siblings;
pub mod supervisor;
pub mod sys;
pub mod volume;

pub use error::Error;
