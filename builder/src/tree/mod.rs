//! Directory trees that paths cannot leave: the context, a stage, an image.

mod ahead;
mod listing;
pub mod owner;
mod root;
pub mod walk;

pub use listing::Listing;
pub use root::{Kind, Meta, Root, Time, TreeError};

pub(crate) use root::resolve_with;
