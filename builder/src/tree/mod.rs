//! Directory trees that paths cannot leave: the context, a stage, an image.

pub mod owner;
mod root;
pub mod walk;

pub use root::{Kind, Listing, Meta, Root, Time, TreeError};

pub(crate) use root::resolve_with;
