//! The image store: content-addressed, shared by any number of processes, safe against kills and power cuts.
//!
//! Start reading at [`Store`] (the folder), then [`Transaction`] (how content gets in).

pub mod digest;
pub mod image;
pub mod reference;
pub mod registry;

mod blobs;
mod error;
mod images;
mod lock;
mod probe;
mod refs;
mod store;
mod transaction;

pub use blobs::Verified;
pub use digest::{ChainId, DiffId, Digest};
pub use error::Error;
pub use images::Image;
pub use probe::Backend;
pub use reference::Reference;
pub use refs::RefRecord;
pub use store::Store;
pub use transaction::{BlobWriter, Transaction};
