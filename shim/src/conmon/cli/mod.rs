//! The command line: conmon's, as podman and cri-o write it.

mod options;
mod syntax;

pub use options::{Level, Mode, Options, read};
pub use syntax::{Asked, BadOption, Entry, Kind, Value, help, parse};
