//! Docker's documents as OCI's: other names for the same things, so that tools
//! that read only OCI's (umoci) read a layout made of docker's images.

use crate::image::{Index, Manifest, media_type};

/// Changes a manifest's own type and those of what it names.
pub(super) fn manifest(manifest: &mut Manifest) {
    if manifest.media_type.as_deref() != Some(media_type::DOCKER_MANIFEST) {
        return;
    }
    manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
    for blob in manifest.layers.iter_mut().chain([&mut manifest.config]) {
        if let Some(kind) = oci_type(&blob.media_type) {
            blob.media_type = kind.to_owned();
        }
    }
}

/// Changes an index's own type; whether there was anything to change.
pub(super) fn index(index: &mut Index) -> bool {
    if index.media_type.as_deref() != Some(media_type::DOCKER_INDEX) {
        return false;
    }
    index.media_type = Some(media_type::OCI_INDEX.to_owned());
    true
}

fn oci_type(docker: &str) -> Option<&'static str> {
    Some(match docker {
        media_type::DOCKER_CONFIG => media_type::OCI_CONFIG,
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_FOREIGN_LAYER_GZIP => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        _ => return None,
    })
}
