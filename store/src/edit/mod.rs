//! New images out of images that are here: another configuration, several platforms under one name.
//! Nothing is changed in place: blobs are immutable, what changes is where a name leads to.

mod config;
mod index;

pub use config::{BadUnset, ConfigEdit, Unset};
pub use index::{BadMember, IndexMember, Member};
