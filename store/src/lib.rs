//! The image store: content-addressed, shared by any number of processes, safe against kills and power cuts.
//!
//! Start reading at [`Store`] (the folder), then [`Transaction`] (how content gets in).

pub mod archive;
pub mod bundle;
pub mod copy;
pub mod digest;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod image;
pub mod layer;
pub mod pack;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod tar;
pub mod transfer;

mod blobs;
mod chains;
mod descent;
mod dirs;
mod edit;
mod erofs;
mod error;
mod gc;
mod images;
mod ingest;
mod layers;
mod lock;
mod mount;
#[cfg(test)]
mod oracles;
mod packed;
mod partial;
mod probe;
mod processors;
mod put;
mod readahead;
mod refs;
mod report;
mod roots;
mod store;
mod summary;
mod transaction;
mod tree;
mod unpack;
mod verify;
mod views;

pub use blobs::Verified;
pub use digest::{ChainId, DiffId, Digest};
pub use edit::{
    BadMember, BadUnset, ConfigEdit, IndexMember, Member, RepackOptions, Repacked, Unset,
};
pub use error::Error;
pub use gc::{ImageUsage, PrunePolicy, Pruned, Removed, Usage};
pub use images::Image;
pub use ingest::LayerWriter;
pub use layers::Layer;
pub use packed::{Format, Packed};
pub use probe::{Backend, UpperPlace};
pub use reference::Reference;
pub use refs::RefRecord;
pub use report::{Difference, DifferenceKind, SharedLayer, Step};
pub use roots::Root;
pub use store::Store;
pub use summary::{ImageList, ListedImage, Summary};
pub use transaction::{BlobWriter, Transaction};
pub use verify::{Checked, Damage, Fetch, Problem, Repaired};
