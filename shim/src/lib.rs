//! The supervisor of a container and the command that a person types.
//!
//! Two programs share this library and meet in files and sockets:
//!
//! - `teu-shim` ([`supervisor`]): one small process a container, that outlives
//!   everything around it and records how the container ended;
//! - `teu` ([`cli`]): writes down what was asked, starts the shim, and later
//!   reads what the shim left.
//!
//! [`container`] owns what both of them put on disk: start reading there.
//! Neither program knows namespaces, cgroups (but for one counter) or image
//! formats: they execute `teu-runtime`, `teu-store` and `teu-build`.

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
