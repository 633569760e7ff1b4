//! OCI image layouts (image-spec, image-layout.md).

use super::place::Place;
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, Index};
use crate::transfer::Error;
use crate::transfer::intake::Origin;
use std::io::Read;

/// The annotation that names an image of a layout: a tag, or with some tools a whole name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's and BuildKit's annotation for the whole name.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Marks a folder as a layout.
pub(crate) const MARKER: &str = "oci-layout";

/// What the marker says; the only version there is.
pub(crate) const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest marker, in bytes; real ones have 30.
const MARKER_BYTES_MAX: u64 = 4096;

/// An image of a layout: what `index.json` says about it.
pub(crate) struct Listed {
    pub(crate) target: Descriptor,
    /// `io.containerd.image.name`, else `org.opencontainers.image.ref.name`.
    pub(crate) name: Option<String>,
    /// Both, as far as they are there.
    pub(crate) names: Vec<String>,
}

/// The images that a layout lists, in its order.
pub(crate) fn images(place: &Place, what: &str) -> Result<Vec<Listed>, Error> {
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
        let names: Vec<String> = [annotation(IMAGE_NAME), annotation(REF_NAME)]
            .into_iter()
            .flatten()
            .collect();
        Listed {
            name: names.first().cloned(),
            names,
            target: plain(target),
        }
    });
    Ok(listed.collect())
}

/// The descriptor alone: how a layout names or places an image is not the image's.
fn plain(target: Descriptor) -> Descriptor {
    Descriptor::new(target.media_type, target.digest, target.size)
}

/// A layout as the origin of its images.
pub(crate) struct Layout<'p>(pub(crate) &'p Place);

impl Origin for Layout<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        open(self.0, blob)
    }
}

/// Opens a blob of a layout; who reads checks.
pub(crate) fn open<'p>(
    place: &'p Place,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send + 'p>, Error> {
    let (algorithm, hex) = (blob.digest.algorithm().name(), blob.digest.hex());
    place.open(&format!("blobs/{algorithm}/{hex}"))
}
