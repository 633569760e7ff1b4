//! The life of a container: one file a verb.

pub(crate) mod agent;
mod bring_up;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod foreground;
pub(crate) mod mounts;
pub(crate) mod service;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod status;
