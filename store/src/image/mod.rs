//! The documents of the image specification: descriptors, manifests, indexes and configurations.
//!
//! Unknown fields are kept, so that a document read and written again says what it said.
//! Documents of a registry or an archive are stored byte-exact; these types only read them.

mod config;
mod descriptor;
mod document;
pub mod media_type;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{BadPlatform, Descriptor, Platform};
pub use document::{BadDocument, DOCUMENT_BYTES_MAX, Document, Index, Manifest};
pub(crate) use document::{Named, Names};

use serde::{Deserialize, Deserializer};

/// Go writes an empty list or map as `null`; both mean the default.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
