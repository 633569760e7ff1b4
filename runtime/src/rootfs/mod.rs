//! The container's file system: planned from `config.json`, then built by
//! init in its own mount namespace, by descriptors only.
//!
//! Two steps, because hooks may run between them: [`build`](apply::build)
//! mounts everything below the new root, [`seal`](apply::seal) takes away
//! what may not be written or seen and switches to it.

pub(crate) mod apply;
mod copyup;
mod device;
mod flags;
pub(crate) mod idmap;
mod label;
pub(crate) mod later;
pub(crate) mod mount;
pub(crate) mod op;
pub(crate) mod options;
#[cfg(test)]
mod oracle;
pub(crate) mod plan;
pub(crate) mod root;
pub(crate) mod source;

pub(crate) use plan::Plan;
pub(crate) use root::RootDir;
