//! The list of a cache: keys of steps and the layers they made.

use super::ExchangeError;
use crate::cache::Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use teu_store::DiffId;
use teu_store::image::{Descriptor, ImageConfig, Manifest};

/// The type of a cache's configuration.
pub(super) const CONFIG_TYPE: &str = "application/vnd.teu.buildcache.config.v1+json";

/// The field of an image's configuration that holds the list for its own layers.
pub const INLINE_FIELD: &str = "teu.buildcache.v1";

/// Keys and layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// What each key made.
    pub keys: BTreeMap<Key, DiffId>,
    /// The layers in the order of the manifest's; none where they are the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<DiffId>,
}

/// What a cache offers: keys, and where their layers are.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) keys: BTreeMap<Key, DiffId>,
    pub(super) blobs: BTreeMap<DiffId, Descriptor>,
}

/// Reads the list of a manifest from its configuration's bytes. Of an image it is the inline
/// one, and nothing if it has none.
pub(super) fn offer(
    what: &str,
    manifest: &Manifest,
    config: &[u8],
) -> Result<Offer, ExchangeError> {
    let bad = |why: String| ExchangeError::Document {
        what: what.to_owned(),
        why,
    };
    let (keys, layers) = if manifest.config.media_type == CONFIG_TYPE {
        let records: Records =
            serde_json::from_slice(config).map_err(|error| bad(error.to_string()))?;
        (records.keys, records.layers)
    } else {
        let image: ImageConfig =
            serde_json::from_slice(config).map_err(|error| bad(error.to_string()))?;
        let inline = image.other.get(INLINE_FIELD).cloned();
        let records: Records = match inline {
            Some(value) => serde_json::from_value(value).map_err(|error| bad(error.to_string()))?,
            None => return Ok(Offer::default()),
        };
        (records.keys, image.rootfs.diff_ids)
    };
    if layers.len() != manifest.layers.len() {
        let (own, named) = (layers.len(), manifest.layers.len());
        return Err(bad(format!("it lists {own} layers and names {named}")));
    }
    let blobs = layers.into_iter().zip(manifest.layers.iter().cloned());
    Ok(Offer {
        keys,
        blobs: blobs.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use teu_store::Digest;

    #[test]
    fn a_list_must_fit_its_manifest() {
        let layer = DiffId(Digest::of(b"layer"));
        let records = Records {
            keys: [(Key::of(&"k").unwrap(), layer)].into(),
            layers: vec![layer],
        };
        let config = serde_json::to_vec(&records).unwrap();
        let blob = Descriptor::new("t", Digest::of(b"blob"), 4);
        let mut manifest = Manifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::new(CONFIG_TYPE, Digest::of(&config), 1),
            layers: vec![blob.clone()],
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        };
        let found = offer("c", &manifest, &config).unwrap();
        assert_eq!(found.keys, records.keys);
        assert_eq!(found.blobs.get(&layer), Some(&blob));
        manifest.layers.clear();
        assert!(offer("c", &manifest, &config).is_err());
        assert!(offer("c", &manifest, b"{\"keys\":{\"../x\":\"y\"}}").is_err());
        // An image without a list offers nothing.
        manifest.config.media_type = "application/vnd.oci.image.config.v1+json".to_owned();
        let image = serde_json::to_vec(&ImageConfig::default()).unwrap();
        assert!(offer("c", &manifest, &image).unwrap().keys.is_empty());
    }
}
