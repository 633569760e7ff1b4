//! Directory trees that paths cannot leave: the context, a stage, an image.

pub mod owner;
mod root;
pub mod walk;

pub use root::{Kind, Meta, Root, Time, TreeError};

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The names in an open directory, sorted by their bytes; `path` is what messages call it.
///
/// # Errors
/// As `getdents(2)`.
pub fn list(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<OsString>, TreeError> {
    root::names(directory).map_err(|source| root::error("list", path, source))
}

pub(crate) use root::resolve_with;
