//! `config.json` as the runtime specification 1.3 defines it.

mod resources;
mod seccomp;
