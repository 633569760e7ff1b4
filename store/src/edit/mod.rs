//! New images out of images that are here: another configuration, several platforms under one name,
//! a directory that was changed as a layer more.
//! Nothing is changed in place: blobs are immutable, what changes is where a name leads to.

mod changes;
mod config;
mod index;
mod repack;
mod stamps;

pub(crate) use changes::{Before, Changes, find as find_changes};
pub use config::{BadUnset, ConfigEdit, Unset};
pub use index::{BadMember, IndexMember, Member};
pub use repack::{RepackOptions, Repacked};
pub(crate) use stamps::Stamps;
