//! OCI image layouts (image-spec, image-layout.md).

use super::place::Place;
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, Index};
use crate::transfer::Error;
use crate::transfer::intake::Origin;
use std::io::Read;

/// The annotation that names an image of a layout: a tag, or with some tools a whole name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's and BuildKit's annotation for the whole name.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Marks a folder as a layout.
pub(super) const MARKER: &str = "oci-layout";

/// What the marker says; the only version there is.
pub(super) const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest marker, in bytes; real ones have 30.
const MARKER_BYTES_MAX: u64 = 4096;

/// An image of a layout: what `index.json` says about it.
pub(super) struct Listed {
    pub(super) target: Descriptor,
    /// `io.containerd.image.name`, else `org.opencontainers.image.ref.name`.
    pub(super) name: Option<String>,
}

/// The images that a layout lists, in its order.
pub(super) fn images(place: &Place, what: &str) -> Result<Vec<Listed>, Error> {
    let wrong = |why: String| Error::Archive {
        what: what.to_owned(),
        why,
    };
    if !place.has("index.json") {
        return Err(wrong("it is no OCI layout: it has no index.json".into()));
    }
    if place.has(MARKER) {
        let marker: serde_json::Value =
            serde_json::from_slice(&place.read(MARKER, MARKER_BYTES_MAX)?)
                .map_err(|error| wrong(format!("its {MARKER} is not JSON: {error}")))?;
        let version = marker["imageLayoutVersion"].as_str().unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(wrong(format!(
                "it is an OCI layout of version {version:?}, only 1 is known"
            )));
        }
    }
    let index: Index = serde_json::from_slice(&place.read("index.json", DOCUMENT_BYTES_MAX)?)
        .map_err(|error| wrong(format!("its index.json is not an index: {error}")))?;
    let listed = index.manifests.into_iter().map(|target| {
        let annotation = |key: &str| {
            target
                .annotations
                .get(key)
                .filter(|name| !name.is_empty())
                .cloned()
        };
        let name = annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME));
        Listed {
            target: plain(target),
            name,
        }
    });
    Ok(listed.collect())
}

/// The descriptor alone: how a layout names or places an image is not the image's.
fn plain(target: Descriptor) -> Descriptor {
    Descriptor::new(target.media_type, target.digest, target.size)
}

/// A layout as the origin of its images.
pub(super) struct Layout<'p>(pub(super) &'p Place);

impl Origin for Layout<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        self.0.open(&format!(
            "blobs/{}/{}",
            blob.digest.algorithm().name(),
            blob.digest.hex()
        ))
    }
}
