//! `config.json` as the runtime specification 1.3 defines it.

pub(crate) mod resources;
pub(crate) mod seccomp;
